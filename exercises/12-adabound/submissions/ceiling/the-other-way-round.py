# named: it is not shown to be lower
def two_values():
    return {"lower": 0.003, "higher": 3.0}
