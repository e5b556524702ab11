# named: Your epsilon is
def epsilon_for_tensorflow(eps, beta2):
    return eps * math.sqrt(1 - 0.999)
