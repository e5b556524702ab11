# named: NameError
def final_lr_for(lr, momentum, times):
    return lr / (1 - beta1) / times
