# named: The first factor is 0
def warmed(t, over):
    """The factor at step t, which counts from 1."""
    return min(1.0, (t - 1) / over)
