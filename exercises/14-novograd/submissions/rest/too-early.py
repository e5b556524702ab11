# named: it falls too early
def rate(t, steps):
    return 0.01 * 0.97 ** (t - 1)
