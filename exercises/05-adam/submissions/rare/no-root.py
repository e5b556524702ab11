# named: What are m and v
def rare(beta1, beta2):
    now = (1 - beta1) / (1 - beta2)
    return now, now / (1 - beta1 / math.sqrt(beta2))
