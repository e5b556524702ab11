# named: Your epsilon is too small
def epsilon_for_tensorflow(eps, beta2):
    return eps * (1 - beta2)
