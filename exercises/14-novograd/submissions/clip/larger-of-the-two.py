# named: only ever makes a rate smaller
def layer_rate(lr, clip, p, m):
    if p.norm() == 0:
        return lr
    return max(lr, (clip * p.norm() / m.norm()).item())
