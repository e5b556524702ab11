# named: do that step by hand
import math


def position(x, h, lr, t):
    return x * math.exp(-lr * h * t)
