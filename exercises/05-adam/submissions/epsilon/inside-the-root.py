# named: Your epsilon is
def epsilon_for_tensorflow(eps, beta2):
    return eps**2
