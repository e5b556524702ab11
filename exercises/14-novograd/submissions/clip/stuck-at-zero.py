# named: or it never leaves zero
def layer_rate(lr, clip, p, m):
    return min(lr, (clip * p.norm() / m.norm()).item())
