# named: must return a dict
def two_rates():
    return 0.5, 0.001
