# named: New p must have the shape
def nesterov_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = momentum * m + lr * g
    return (p - momentum * m - lr * g).mean(), m
