# named: final_lr must be above 0
def two_values():
    return {"lower": 3.0, "higher": 0.0}
