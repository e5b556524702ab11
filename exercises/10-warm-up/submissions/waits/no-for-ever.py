# named: How far does rho ever grow
def waits(beta2, above):
    longest, t = 2 / (1 - beta2) - 1, 1
    while t < 1000 and longest - 2 * t * beta2**t / (1 - beta2**t) <= above:
        t += 1
    return t - 1
