# named: it returned 1 value
def nesterov_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = momentum * m + lr * g
    return p - momentum * m - lr * g
