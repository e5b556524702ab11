# named: it is not shown to be higher
def two_values():
    return {"lower": 3.0, "higher": 1.0}
