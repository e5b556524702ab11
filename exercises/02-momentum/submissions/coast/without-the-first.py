# named: Is the first step in your sum?
def coast(g, lr, momentum):
    return -momentum * lr * g / (1 - momentum)
