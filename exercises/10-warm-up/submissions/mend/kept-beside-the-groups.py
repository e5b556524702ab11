# named: What does the file know
def set_rates(optimizer, t, over):
    """Called before step t = 1, 2, 3, …: sets the rate of every group for that step."""
    if not hasattr(optimizer, "full"):
        optimizer.full = [group["lr"] for group in optimizer.param_groups]
    for group, full in zip(optimizer.param_groups, optimizer.full):
        group["lr"] = full * min(1.0, t / over)
