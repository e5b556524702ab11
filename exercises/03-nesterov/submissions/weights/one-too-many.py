# named: return a list of
def weights(momentum, n):
    return [1 + momentum] + [momentum ** (k + 1) for k in range(1, n + 1)]
