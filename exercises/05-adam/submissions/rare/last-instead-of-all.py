# named: Which of the two averages fades
def rare(beta1, beta2):
    now = (1 - beta1) / math.sqrt(1 - beta2)
    return now, now * beta1 / math.sqrt(beta2)
