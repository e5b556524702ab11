# named: a well-known mistake: no-decay
def sgd_step(p, g, t, *, lr=0.1, weight_decay=0.0):
    return (p - lr * g,)
