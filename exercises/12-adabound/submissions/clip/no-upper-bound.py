# named: above the upper bound
def adabound_step(p, g, t, m, v, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, final_lr=0.1, gamma=1e-3):
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step_size = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
    lower, upper = final_lr * (1 - 1 / (gamma * t + 1)), final_lr * (1 + 1 / (gamma * t))
    rate = (step_size / (v.sqrt() + eps)).clamp(min=lower)
    return p - rate * m, m, v
