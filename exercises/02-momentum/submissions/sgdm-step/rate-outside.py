# named: a well-known mistake: rate-outside
def sgdm_step(p, g, t, m, *, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0):
    decayed = g + weight_decay * p
    m = momentum * m + (1 - dampening) * decayed
    return p - lr * m, m
