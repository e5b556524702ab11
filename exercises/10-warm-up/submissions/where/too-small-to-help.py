# named: warm-up is not shown to help
def two_rates():
    return {"helps": 0.03, "harms": 0.001}
