# named: times as far
def final_lr_for(lr, momentum, times):
    return lr / (1 - momentum) / times**2
