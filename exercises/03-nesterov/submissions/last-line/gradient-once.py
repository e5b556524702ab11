# named: a well-known mistake: gradient-once
def nesterov_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = momentum * m + lr * g
    return p - momentum * m, m
