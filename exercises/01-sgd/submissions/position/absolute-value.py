# named: The right size, the wrong side
def position(x, h, lr, t):
    return x * abs(1 - lr * h) ** t
