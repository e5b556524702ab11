# named: times as far from what torch stores
def textbook(p, momentum_buffer, *, lr, momentum):
    return p + momentum * momentum_buffer
