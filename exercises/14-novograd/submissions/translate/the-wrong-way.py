# named: average, on gradients alone
def translated(lr, weight_decay, beta1):
    return {"average": (lr * (1 - beta1), weight_decay), "outside": (lr, weight_decay / (1 - beta1))}
