# named: what holds it at 1
def warmed(t, over):
    """The factor at step t, which counts from 1."""
    return t / over
