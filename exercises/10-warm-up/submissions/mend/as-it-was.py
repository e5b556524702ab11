# named: Of which rate is it a share
def set_rates(optimizer, t, over):
    """Called before step t = 1, 2, 3, …: sets the rate of every group for that step."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * min(1.0, t / over)
