# named: group 1, step 1
def set_rates(optimizer, t, over):
    """Called before step t = 1, 2, 3, …: sets the rate of every group for that step."""
    full = optimizer.param_groups[0].setdefault("initial_lr", optimizer.param_groups[0]["lr"])
    for group in optimizer.param_groups:
        group["lr"] = full * min(1.0, t / over)
