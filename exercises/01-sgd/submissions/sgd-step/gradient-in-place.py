# named: Your step changes g itself
def sgd_step(p, g, t, *, lr=0.1, weight_decay=0.0):
    g += weight_decay * p
    return (p - lr * g,)
