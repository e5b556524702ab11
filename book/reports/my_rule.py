"""Soft sign: momentum, each of its elements divided by its own size plus the typical size in its layer."""

from stepsize.rules import norm, rule


@rule(state={"exp_avg": "tensor"}, paper="ours, for this page", year=2026, equation="")
def soft_sign(p, g, t, exp_avg, *, lr=1e-2, momentum=0.9, eps=1e-8):
    """Half-way from sign descent to normalised momentum; no weight moves by more than ``lr``."""
    exp_avg = momentum * exp_avg + (1 - momentum) * g
    # The root mean square over the layer.
    typical = norm(exp_avg) / g.numel() ** 0.5
    return p - lr * exp_avg / (exp_avg.abs() + typical + eps), exp_avg
