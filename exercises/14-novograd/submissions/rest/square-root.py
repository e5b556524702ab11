# named: it falls too early
def rate(t, steps):
    return 0.01 / t**0.5
