# named: which way is down?
def position(x, h, lr, t):
    return x * (1 + lr * h) ** t
