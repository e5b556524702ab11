# named: Which norm divides
def layer_rate(lr, clip, p, m):
    if p.norm() == 0:
        return lr
    return min(lr, (clip * p.abs().max() / m.abs().max()).item())
