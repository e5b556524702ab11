# named: The signs?
def per_period(c, beta2):
    share = (1 - beta2) / (1 - beta2**3)
    after_c = share * (c**2 + beta2 + beta2**2)
    one_later = share * (1 + beta2 * c**2 + beta2**2)
    two_later = share * (1 + beta2 + beta2**2 * c**2)
    return (2 - c) / ((c**2 + 2) / 3) ** 0.5
