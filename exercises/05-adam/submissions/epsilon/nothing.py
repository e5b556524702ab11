# named: return one number; yours returned None
def epsilon_for_tensorflow(eps, beta2):
    eps * math.sqrt(1 - beta2)
