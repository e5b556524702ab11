# named: but not enough to learn
def two_rates():
    return {"helps": 1.0, "harms": 0.001}
