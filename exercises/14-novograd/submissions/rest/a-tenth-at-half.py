# named: how small is the rate there
def rate(t, steps):
    return 0.01 if t < steps / 2 else 0.001
