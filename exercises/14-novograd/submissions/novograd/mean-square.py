# named: mean-square
def novograd_step(p, g, t, v, m, *, lr=1e-2, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0, grad_averaging=False):
    beta1, beta2 = betas
    squared = (g * g).mean()
    v = torch.where(v == 0, squared, beta2 * v + (1 - beta2) * squared)
    u = g / (v.sqrt() + eps) + weight_decay * p
    m = beta1 * m + (1 - beta1 if grad_averaging else 1) * u
    return p - lr * m, v, m
