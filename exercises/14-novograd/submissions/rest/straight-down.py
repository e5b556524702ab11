# named: how small is the rate there
def rate(t, steps):
    return 0.01 * (1 - t / steps)
