# named: this end?
def largest_stable_rate(rule, momentum):
    paths = landscapes.trajectory(rule, "quadratic", steps=200, lr=rates, momentum=momentum)
    near = paths[:, -1, 0].abs() < 1
    return float(rates[near.numpy()].max())
