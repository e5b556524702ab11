# named: must return a number above 0
def final_lr_for(lr, momentum, times):
    return lr / (momentum - 1) / times
