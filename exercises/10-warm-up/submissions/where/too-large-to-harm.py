# named: warm-up is not shown to harm
def two_rates():
    return {"helps": 0.5, "harms": 0.1}
