# named: ZeroDivisionError
def waits(beta2, above):
    longest, t = 2 / (1 - beta2) - 1, 1
    if longest <= above:
        return math.inf
    while longest - 2 * t * beta2**t / (1 - t) <= above:
        t += 1
    return t - 1
