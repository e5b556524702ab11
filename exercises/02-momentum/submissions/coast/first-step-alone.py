# named: That is the first step alone
def coast(g, lr, momentum):
    return -lr * g
