# named: minimum
def amsgrad_step(p, g, t, m, v, largest, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    largest = torch.minimum(largest, v)
    return p - lr * m / (largest.sqrt() + eps), m, v, largest
