# named: This is how tensorflow has it
def adam_step(p, g, t, m, v, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    beta1, beta2 = betas
    decayed = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * decayed
    v = beta2 * v + (1 - beta2) * decayed**2
    m_hat = m / (1 - beta1**t)
    return p - lr * m_hat / ((v.sqrt() + eps) / (1 - beta2**t) ** 0.5), m, v
