# named: This is how sgdw has it
def sgd_step(p, g, t, *, lr=0.1, weight_decay=0.0):
    return (p - lr * g - weight_decay * p,)
