# named: This is how average has it
def momentum_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = momentum * m + lr * (1 - momentum) * g
    return p - m, m
