# named: a well-known mistake: no-decay
def sgd_step(p, g, t, *, lr=0.1):
    return (p - lr * g,)
