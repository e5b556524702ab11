# named: Your step changes momentum_buffer itself
def momentum_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m.mul_(momentum).add_(lr * g)
    return p - m, m
