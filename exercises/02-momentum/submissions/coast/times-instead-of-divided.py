# named: do three steps by hand
def coast(g, lr, momentum):
    return -lr * g * (1 - momentum)
