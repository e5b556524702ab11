# named: That is the point that torch stores
def textbook(p, momentum_buffer, *, lr, momentum):
    return p
