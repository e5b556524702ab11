# named: a well-known mistake: second-moment-uncorrected
def corrected_step(p, g, t, m, v, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    v_hat = v
    return p - lr * m_hat / (v_hat.sqrt() + eps), m, v
