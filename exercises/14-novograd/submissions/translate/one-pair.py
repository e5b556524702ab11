# named: must return a dict
def translated(lr, weight_decay, beta1):
    return lr / (1 - beta1), weight_decay
