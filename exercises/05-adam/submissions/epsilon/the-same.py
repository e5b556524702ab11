# named: Your epsilon is too large
def epsilon_for_tensorflow(eps, beta2):
    return eps
