# named: Is it the largest
def largest_stable_rate(rule, momentum):
    paths = landscapes.trajectory(rule, "quadratic", steps=200, lr=rates, momentum=momentum)
    near = paths[:, -1].norm(dim=1) < 1
    return float(rates[near.numpy()].min())
