# named: a well-known mistake: no-momentum
def momentum_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = lr * g
    return p - m, m
