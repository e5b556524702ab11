# named: return a whole number
def short_steps(size, beta2):
    p, count = torch.zeros((), dtype=torch.float64), 0
    m, v = RULES["adam"].init(p)
    for t in range(1, 1552):
        g = torch.full_like(p, size if t == 51 else 1.0)
        new, m, v = RULES["adam"](p, g, t, m, v, lr=1.0, betas=(0.9, beta2))
        count, p = count + (t > 51 and abs(new - p) < 0.5), new
    return torch.tensor(count)
