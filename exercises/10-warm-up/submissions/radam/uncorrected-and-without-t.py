# named: rho-without-t + second-moment-uncorrected
def radam_step(p, g, t, m, v, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    beta1, beta2 = betas
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * beta2**t / (1 - beta2**t)
    if rho <= 4:
        return p - lr * m_hat, m, v
    r = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
    return p - lr * r * m_hat / (v.sqrt() + eps), m, v
