# named: with twice the curvature
def position(x, h, lr, t):
    return x * (1 - lr) ** t
