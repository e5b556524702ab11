# named: this momentum
def largest_stable_rate(rule, momentum):
    paths = landscapes.trajectory(rule, "quadratic", steps=200, lr=rates)
    near = paths[:, -1].norm(dim=1) < 1
    return float(rates[near.numpy()].max())
