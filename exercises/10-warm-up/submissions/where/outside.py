# named: must lie between
def two_rates():
    return {"helps": 0.5, "harms": 1e-6}
