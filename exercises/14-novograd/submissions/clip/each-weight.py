# named: One number for the layer
def layer_rate(lr, clip, p, m):
    if p.norm() == 0:
        return lr
    return (clip * p.abs() / m.abs()).clamp(max=lr)
