# named: At which t is rho above
def waits(beta2, above):
    longest, t = 2 / (1 - beta2) - 1, 1
    if longest <= above:
        return math.inf
    while longest - 2 * beta2**t / (1 - beta2**t) <= above:
        t += 1
    return t - 1
