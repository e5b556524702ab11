# named: a well-known mistake: decay-sign
def sgd_step(p, g, t, *, lr=0.1, weight_decay=0.0):
    decayed = g - weight_decay * p
    return (p - lr * decayed,)
