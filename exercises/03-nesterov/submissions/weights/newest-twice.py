# named: In how many terms of the step is the newest gradient?
def weights(momentum, n):
    return [2.0] + [momentum ** (k + 1) for k in range(1, n)]
