# named: do three steps by hand
def coast(g, lr, momentum):
    return -g / (1 - momentum)
