# named: TypeError
def two_rates():
    return {"helps": "0.5", "harms": 0.001}
