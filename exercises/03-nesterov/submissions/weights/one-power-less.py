# named: Which power does an older gradient have
def weights(momentum, n):
    return [1 + momentum] + [momentum**k for k in range(1, n)]
