# named: where does t begin
def rate(t, steps):
    return 0.01 * (1 - 100 * t / steps) ** 2
