# named: a pair, lr and weight_decay, is wanted
def translated(lr, weight_decay, beta1):
    return {"average": (lr / (1 - beta1), weight_decay), "outside": (lr, beta1, weight_decay / (1 - beta1))}
