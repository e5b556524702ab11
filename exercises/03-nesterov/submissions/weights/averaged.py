# named: In how many terms of the step is the newest gradient?
def weights(momentum, n):
    return [(1 - momentum) * momentum**k for k in range(n)]
