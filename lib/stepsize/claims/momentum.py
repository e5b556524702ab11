"""The claims on SGD, momentum and Nesterov: chapters 01 to 03."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import landscapes, stats
from ..rules import RULES
from .base import Outcome, claim, exact, train


@claim(
    "sgd-lr-dilemma",
    source="course",
    says="A fixed rate is too slow when small and bad when large",
    conditions={
        "slow": "the smallest rate of the grid ends at 10 times the best rate's training loss or more",
        "bad": "the largest rate ends at 10 times the best rate's training loss or more, or diverges",
        "inside": "the best rate is neither the first nor the last of the grid",
    },
    chapter=1,
    recorded={"rates": 24, "seeds": 10},
)
def sgd_lr_dilemma(rates: int = 12, seeds: int = 5, steps: int = 300) -> Outcome:
    """Plain SGD on digits-mlp over a log grid of rates from 1e-4 to 30."""
    grid = np.logspace(-4, np.log10(30), rates).tolist()
    runs = train("digits-mlp", {"sgd": {"lr": grid}}, seeds=seeds, steps=steps)
    frame = runs.frame()
    means = frame.groupby("lr")["final_train_loss"].mean().sort_index()
    best = means.idxmin()
    ends = frame[frame.lr == best]["final_train_loss"]
    slow, bad = (frame[frame.lr == lr]["final_train_loss"] for lr in (grid[0], grid[-1]))
    diverged = frame.groupby("lr")["diverged"].mean()
    return Outcome(
        held={
            "slow": bool(slow.mean() >= 10 * ends.mean()),
            "bad": bool(diverged[grid[-1]] > 0 or bad.mean() >= 10 * ends.mean()),
            "inside": not stats.grid_edge(grid, best),
        },
        numbers={
            "best rate": exact(best),
            "training loss there": stats.interval(ends)[:3],
            f"training loss at the smallest rate, {grid[0]:.1g}": stats.interval(slow)[:3],
            f"share of runs that diverge at the largest, {grid[-1]:.2g}": exact(diverged[grid[-1]]),
            "decades of rates within 10 % of the best loss": exact(stats.basin_width(frame, "final_train_loss")),
            "decades of rates within twice the best loss": exact(stats.basin_width(frame, "final_train_loss", 1.0)),
        },
        n=seeds,
        budget=f"digits-mlp, {steps} steps, {rates} rates",
        data=runs,
    )


@claim(
    "sgdm-two-forms",
    source="course",
    says="The two written forms of SGD with momentum are one method",
    conditions={
        "constant": "at a constant rate the iterates agree to 1e-12 in float64",
        "dropped": "they still agree to 1e-12 after the rate is divided by ten half-way",
    },
    chapter=2,
)
def sgdm_two_forms(steps: int = 50, lr: float = 0.02, momentum: float = 0.9) -> Outcome:
    """The rate inside the velocity (the course, Sutskever et al.) and outside it (torch), on the condition-25 bowl."""

    def dropped(t: int) -> float:
        return lr if t <= steps // 2 else lr / 10

    paths = {
        (form, name): landscapes.trajectory(form, "quadratic", steps=steps, lr=rate, momentum=momentum)
        for form in ("sgdm", "sgdm:torch")
        for name, rate in (("constant", lr), ("dropped", dropped))
    }
    gap = {name: (paths["sgdm", name] - paths["sgdm:torch", name]).norm(dim=1) for name in ("constant", "dropped")}
    return Outcome(
        held={name: bool(distance.max() <= 1e-12) for name, distance in gap.items()},
        numbers={
            "largest distance at a constant rate": exact(gap["constant"].max()),
            "largest distance before the drop": exact(gap["dropped"][: steps // 2 + 1].max()),
            "largest distance after the drop": exact(gap["dropped"].max()),
            "distance from start to minimum, for scale": exact(paths["sgdm", "constant"][0].norm()),
        },
        n=1,
        budget=f"exact: condition-25 bowl, float64, {steps} steps, lr {lr}, momentum {momentum}",
        data=paths,
    )


@claim(
    "momentum-escapes",
    source="adabound",
    says="Momentum carries past poor local minima",
    conditions={
        "equal rate": "at an equal lr, more starts end in the deep basin with momentum than without: "
        "the paired 95 % interval lies above 0",
        "equal step": "the same at an equal long-run step, SGD's lr being SGDM's / (1 - momentum)",
        "best": "the same when each method has its own best rate of one grid",
    },
    chapter=2,
    recorded={"starts": 400, "seeds": 10, "rates": 25},
)
def momentum_escapes(
    starts: int = 100, seeds: int = 5, steps: int = 300, momentum: float = 0.9, rates: int = 13
) -> Outcome:
    """Starts drawn on the shallow side of the double well; the share that comes to rest in the deep basin."""
    surface = landscapes.double_well()
    deep = torch.tensor(surface.minima[0])
    grid = np.logspace(-3, np.log10(0.3), rates)
    draws = [np.random.default_rng(seed).uniform((0.1, -1.0), (2.0, 1.0), (starts, 2)) for seed in range(seeds)]
    start = torch.tensor(np.tile(np.concatenate(draws), (rates, 1)))

    def share(rule: str, lr: np.ndarray, **hyper: Any) -> np.ndarray:
        each = torch.tensor(np.repeat(lr, seeds * starts))
        ends = landscapes.trajectory(rule, surface, start, steps=steps, lr=each, **hyper)[:, -1]
        escaped = (ends - deep).norm(dim=1) < 0.1
        return escaped.double().reshape(rates, seeds, starts).mean(2).numpy()

    shares = {
        "sgd": share("sgd", grid),
        "sgdm": share("sgdm", grid, momentum=momentum),
        "sgd, equal step": share("sgd", grid / (1 - momentum)),
    }
    best = {name: values[values.mean(1).argmax()] for name, values in shares.items()}
    pick = int(np.abs(np.log(grid / 0.01)).argmin())
    differences = {
        "equal rate": stats.paired_difference(shares["sgdm"][pick], shares["sgd"][pick]),
        "equal step": stats.paired_difference(shares["sgdm"][pick], shares["sgd, equal step"][pick]),
        "best": stats.paired_difference(best["sgdm"], best["sgd"]),
    }
    return Outcome(
        held={name: bool(difference.low > 0) for name, difference in differences.items()},
        numbers={
            f"share that escapes, SGDM, lr {grid[pick]:.2g}": stats.interval(shares["sgdm"][pick])[:3],
            "… more than SGD at an equal lr": differences["equal rate"][:3],
            "… more than SGD at an equal long-run step": differences["equal step"][:3],
            f"share that escapes, SGDM, its best rate {_best_rate(grid, shares['sgdm'])}": stats.interval(best["sgdm"])[
                :3
            ],
            f"share that escapes, SGD, its best rate {_best_rate(grid, shares['sgd'])}": stats.interval(best["sgd"])[
                :3
            ],
            "… difference of the two": differences["best"][:3],
        },
        n=seeds,
        budget=f"double well, {starts} starts a seed, {steps} steps, {rates} rates up to 0.3, momentum {momentum}",
        data={"lr": grid, **shares},
    )


def _best_rate(grid: np.ndarray, shares: np.ndarray) -> str:
    return f"{grid[shares.mean(1).argmax()]:.2g}"


@claim(
    "nag-equivalence",
    source="course",
    says="Nesterov's look-ahead form and the form in shifted parameters are one method",
    conditions={
        "shifted": "the shifted parameters are the look-ahead form's theta - mu m, to 1e-12 in float64",
        "torch": "torch.optim.SGD(nesterov=True) stores those shifted parameters, to 1e-12",
        "not theta": "and not the textbook's theta: the two are more than 1e-2 apart on the way",
    },
    chapter=3,
)
def nag_equivalence(steps: int = 50, lr: float = 0.02, momentum: float = 0.9) -> Outcome:
    """The look-ahead form (momentum's rule, fed the gradient ahead), the shifted rule, and torch, on one bowl."""
    surface = landscapes.get("quadratic")
    shifted = landscapes.trajectory("nag", surface, steps=steps, lr=lr, momentum=momentum)
    theta, m = shifted[0], torch.zeros_like(shifted[0])
    textbook, ahead = [theta], [theta]
    for t in range(1, steps + 1):
        g = landscapes.gradient(surface, theta - momentum * m)
        theta, m = RULES["sgdm"](theta, g, t, m, lr=lr, momentum=momentum)
        textbook.append(theta)
        ahead.append(theta - momentum * m)
    p = shifted[0].clone().requires_grad_()
    stored, torchs = [shifted[0]], torch.optim.SGD([p], lr=lr, momentum=momentum, nesterov=True)
    for _ in range(steps):
        p.grad = landscapes.gradient(surface, p.detach())
        torchs.step()
        stored.append(p.detach().clone())
    gap = {
        "shifted": (shifted - torch.stack(ahead)).abs().max(),
        "torch": (torch.stack(stored) - shifted).abs().max(),
        "not theta": (torch.stack(stored) - torch.stack(textbook)).abs().max(),
    }
    return Outcome(
        held={
            "shifted": bool(gap["shifted"] <= 1e-12),
            "torch": bool(gap["torch"] <= 1e-12),
            "not theta": bool(gap["not theta"] > 1e-2),
        },
        numbers={
            "shifted form against the look-ahead form": exact(gap["shifted"]),
            "torch's parameters against the shifted form": exact(gap["torch"]),
            "torch's parameters against the textbook's theta": exact(gap["not theta"]),
        },
        n=1,
        budget=f"exact: condition-25 bowl, float64, {steps} steps, lr {lr}, momentum {momentum}",
        data={"textbook": torch.stack(textbook), "shifted": shifted, "torch": torch.stack(stored)},
    )
