# named: The signs?
def per_period(c, beta2):
    share = (1 - beta2) / (1 - beta2**3)
    after_c = share * (c**2 + beta2 + beta2**2)
    one_later = share * (1 + beta2 * c**2 + beta2**2)
    two_later = share * (1 + beta2 + beta2**2 * c**2)
    return c / after_c**0.5 - 1 / one_later**0.5 - 1 / two_later**0.5
