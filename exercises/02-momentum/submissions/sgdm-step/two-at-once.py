# named: two mistakes at once: decay-after + no-forgetting
def sgdm_step(p, g, t, m, *, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0):
    m = m + lr * (1 - dampening) * g
    return p - m - lr * weight_decay * p, m
