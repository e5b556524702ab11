# named: (step 2 came twice)
def set_rates(optimizer, t, over):
    """Called before step t = 1, 2, 3, …: sets the rate of every group for that step."""
    for group in optimizer.param_groups:
        if t == 1:
            group["lr"] /= over
        elif t <= over:
            group["lr"] *= t / (t - 1)
