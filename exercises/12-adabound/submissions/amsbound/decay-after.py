# named: decay-after
def amsbound_step(p, g, t, m, v, largest, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8,
                  weight_decay=0.0, final_lr=0.1, gamma=1e-3, base_lr=None):
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    largest = torch.maximum(largest, v)
    step_size = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
    final = final_lr if base_lr is None else final_lr * lr / base_lr
    lower, upper = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
    rate = (step_size / (largest.sqrt() + eps)).clamp(lower, upper)
    return p - rate * (m + weight_decay * p), m, v, largest
