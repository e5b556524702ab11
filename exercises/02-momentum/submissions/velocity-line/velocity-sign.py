# named: a well-known mistake: velocity-sign
def momentum_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = -momentum * m + lr * g
    return p - m, m
