# named: no-memory-of-norms
def novograd_line(p, g, t, v, m, *, lr=1e-2, betas=(0.95, 0.98), eps=1e-8):
    beta1, beta2 = betas
    squared_norm = (g * g).sum()
    v = squared_norm
    m = beta1 * m + g / (v.sqrt() + eps)
    return p - lr * m, v, m
