# named: Which way does a parameter go
def coast(g, lr, momentum):
    return lr * g / (1 - momentum)
