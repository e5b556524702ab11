# named: a well-known mistake: plain-momentum
def nesterov_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    new_m = momentum * m + lr * g
    return p - momentum * m - lr * g, new_m
