# named: must return a number
def warmed(t, over):
    """The factor at step t, which counts from 1."""
    min(1.0, t / over)
