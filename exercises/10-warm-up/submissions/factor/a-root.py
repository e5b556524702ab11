# named: Is it a straight line
def warmed(t, over):
    """The factor at step t, which counts from 1."""
    return min(1.0, (t / over) ** 0.5)
