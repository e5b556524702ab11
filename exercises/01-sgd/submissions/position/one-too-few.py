# named: how many steps do you count?
def position(x, h, lr, t):
    return x * (1 - lr * h) ** (t - 1)
