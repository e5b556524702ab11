# named: two mistakes at once: ascent + no-forgetting
def momentum_step(p, g, t, m, *, lr=0.1, momentum=0.9):
    m = m + lr * g
    return p + m, m
