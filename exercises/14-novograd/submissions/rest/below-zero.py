# named: never below 0
def rate(t, steps):
    return 0.01 * (1 - 1.2 * t / steps)
