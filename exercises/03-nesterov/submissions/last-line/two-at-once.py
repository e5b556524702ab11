# named: two mistakes at once: gradient-once + no-forgetting
def nesterov_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = m + lr * g
    return p - momentum * m, m
