# named: it is not shown to be lower
def two_values():
    return {"lower": 0.03, "higher": 0.003}
