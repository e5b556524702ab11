# named: This is how optax has it
def novograd_line(p, g, t, v, m, *, lr=1e-2, betas=(0.95, 0.98), eps=1e-8):
    beta1, beta2 = betas
    squared_norm = (g * g).sum()
    v = torch.where(torch.tensor(t == 1), squared_norm, beta2 * v + (1 - beta2) * squared_norm)
    m = beta1 * m + g / (v.sqrt() + eps)
    return p - lr * m, v, m
