# named: where does t begin
def rate(t, steps):
    return 0.01 * (t / steps) ** 2
