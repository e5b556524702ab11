# named: At which t is rho above the limit
def waits(beta2, above):
    return above if 2 / (1 - beta2) - 1 > above else math.inf
