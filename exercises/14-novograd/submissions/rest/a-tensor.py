# named: A rate must be a number
def rate(t, steps):
    return torch.tensor(0.01) * (1 - t / steps) ** 2
