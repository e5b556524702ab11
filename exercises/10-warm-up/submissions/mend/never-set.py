# named: KeyError
def set_rates(optimizer, t, over):
    """Called before step t = 1, 2, 3, …: sets the rate of every group for that step."""
    for group in optimizer.param_groups:
        full = group["initial_lr"]
        group["lr"] = full * min(1.0, t / over)
