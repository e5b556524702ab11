# named: a well-known mistake: stale-velocity
def momentum_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    new_m = momentum * m + lr * g
    return p - m, new_m
