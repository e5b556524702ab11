# named: must return a dict
def two_values():
    return [3.0, 0.003]
