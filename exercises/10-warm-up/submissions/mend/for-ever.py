# named: Of which rate is it a share
def set_rates(optimizer, t, over):
    """Called before step t = 1, 2, 3, …: sets the rate of every group for that step."""
    for group in optimizer.param_groups:
        full = group.setdefault("initial_lr", group["lr"])
        group["lr"] = full * t / over
