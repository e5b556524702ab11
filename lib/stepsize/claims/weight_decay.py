"""The claim on weight decay, through the gradient or beside it: chapter 06."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from .. import landscapes, stats
from .base import Outcome, claim, decided, exact, gain, train

TASK = "digits-mlp"
# Rates whose best decay leaves more than this above the lowest validation loss of all lie outside the basin.
NEAR = 0.25


def cancelling(size: float) -> landscapes.OnlineProblem:
    """Slopes of ``size``, up and down in turn: on the whole there is no slope, and only decay moves a weight of 1."""
    return landscapes.OnlineProblem(
        name="cancelling",
        title=f"Slopes of {size:g} and -{size:g} in turn",
        formula=rf"f_t(x) = (-1)^{{t+1}}\,{size:g}\,x",
        slopes=lambda steps, seed: size * (-1.0) ** torch.arange(steps, dtype=torch.float64),
        best=0.0,
        start=1.0,
        interval=(-2.0, 2.0),
    )


def left(rule: str, size: float, decay: float, steps: int = 1000, lr: float = 0.01) -> torch.Tensor:
    """The share of a weight that ``decay`` leaves, ``(steps + 1,)``: its course less what the slopes alone do."""
    decayed, plain = (
        landscapes.play(rule, cancelling(size), steps, lr=lr, weight_decay=one)[0] for one in (decay, 0.0)
    )
    return 1 + decayed - plain


@claim(
    "adamw-decoupled",
    source="novograd",
    says="Adaptive rates weaken L2; decoupled decay restores it",
    conditions={
        "unequal": "under Adam's L2 a weight whose gradients are a hundred times larger loses less than a tenth "
        "of the share that the other loses (exact)",
        "equal": "under AdamW both lose the same share, to one part in a thousand (exact)",
        "tilted": "the best L2 depends on the rate: best decay against rate, log-log, has a slope whose 95 % interval "
        "lies outside [-0.5, 0.5]",
        "upright": "the best decoupled decay, as the paper counts it, does not: that interval lies inside (-0.5, 0.5)",
        "better": "tuned over one grid of rates and decays, AdamW has the lower test error: the paired 95 % interval "
        "lies above 0",
    },
    chapter=6,
    recorded={"rates": 7, "decays": 8, "seeds": 8, "steps": 600},
    recipe="a residual network on CIFAR-10 with flips and shifts, batch 128, Adam and AdamW with cosine annealing over "
    "100 epochs, 8 rates x 8 decays by powers of two, 3 seeds: 384 runs, on GPUs",
)
def adamw_decoupled(rates: int = 3, decays: int = 4, seeds: int = 2, steps: int = 100) -> Outcome:
    """Two weights under slopes that cancel; then digits-mlp over rates x decays, cosine, L2 against decoupled."""
    lost = {(rule, size): 1 - float(left(rule, size, 1e-3)[-1]) for rule in ("adam", "adamw") for size in (0.01, 1.0)}
    grid = {"lr": _log_grid(3e-3, 0.1, rates), "weight_decay": [0.0, *_log_grid(1e-5, 10**-1.5, decays)]}
    runs = train(TASK, {"adam": grid, "adamw": grid}, seeds=seeds, steps=steps, schedule="cosine", early_stop=True)
    columns = ["optimizer", "lr", "weight_decay", "seed", "final_val_loss", "final_test_error"]
    table = runs.frame()[columns].rename(columns=lambda name: name.removeprefix("final_"))
    slopes = {rule: axis(table[table["optimizer"] == rule]) for rule in ("adam", "adamw")}
    better = gain(runs, "adamw", "adam")
    return Outcome(
        held={
            "unequal": lost["adam", 1.0] < 0.1 * lost["adam", 0.01],
            "equal": abs(lost["adamw", 1.0] / lost["adamw", 0.01] - 1) < 1e-3,
            "tilted": outside(slopes["adam"]),
            "upright": _not(outside(slopes["adamw"])),
            "better": decided(better),
        },
        numbers={
            **{f"share lost to decay, {rule}, gradients of {size:g}": exact(x) for (rule, size), x in lost.items()},
            "slope of the basin's axis, L2": slopes["adam"][:3],
            "… its angle in degrees": _each(_degrees, slopes["adam"]),
            "slope of the basin's axis, decoupled": slopes["adamw"][:3],
            "… its angle in degrees, decoupled": _each(_degrees, slopes["adamw"]),
            # The same runs: lr * decay_torch = decay, so the slope is one less.
            "slope of the basin's axis, decoupled, decay counted as torch counts it": _each(
                lambda x: x - 1, slopes["adamw"]
            ),
            **{
                f"test error, tuned, {name}": stats.interval(runs.chosen(name)["final_test_error"])[:3]
                for name in slopes
            },
            "… AdamW's lower by, paired": better[:3],
        },
        n=seeds,
        budget=f"{TASK}, {steps} steps, cosine, {rates} rates x {decays + 1} decays",
        data=table,
    )


def best_decays(table: pd.DataFrame) -> pd.Series:
    """The decay with the lowest validation loss at each rate of the basin, between the decays tried (a parabola).

    ``table`` has the columns ``lr``, ``weight_decay`` and ``val_loss``. Rates at which no decay comes within 25 % of
    the lowest loss are left out, as are those at which the first or last decay is the best: it may lie beyond.
    """
    losses = table[table["weight_decay"] > 0].pivot_table(index="lr", columns="weight_decay", values="val_loss")
    x, found = np.log10(losses.columns.to_numpy(dtype=float)), {}
    for lr, row in losses.iterrows():
        y = row.to_numpy(dtype=float)
        i = int(np.nanargmin(y))
        if y[i] <= (1 + NEAR) * losses.min().min() and 0 < i < len(y) - 1:
            a, b, _ = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
            found[lr] = 10 ** (-b / (2 * a)) if a > 0 else 10 ** x[i]
    return pd.Series(found, dtype=float)


def axis(table: pd.DataFrame) -> stats.Interval:
    """The slope of the best decay against the rate, log-log, of the mean loss over seeds; its interval by jackknife.

    0: the best decay is the same at every rate; 1: it grows with the rate; -1: it falls as the rate grows.
    """

    def slope(part: pd.DataFrame) -> float:
        best = best_decays(part)
        if len(best) < 2:
            return math.nan
        return float(np.polyfit(np.log10(best.index.to_numpy(dtype=float)), np.log10(best.to_numpy()), 1)[0])

    seeds, whole = table["seed"].unique(), slope(table)
    if len(seeds) < 2:
        return stats.Interval(whole, math.nan, math.nan, len(seeds))
    without = np.array([slope(table[table["seed"] != seed]) for seed in seeds])
    return stats.interval(len(seeds) * whole - (len(seeds) - 1) * without)


def outside(slope: stats.Interval) -> bool | None:
    """Whether the interval lies outside [-0.5, 0.5]: ``None`` where it is on both sides, or there is none."""
    if slope.low > 0.5 or slope.high < -0.5:
        return True
    return False if slope.low > -0.5 and slope.high < 0.5 else None


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _each(function: Callable[[float], float], estimate: stats.Interval) -> tuple[float, float, float]:
    return function(estimate.mean), function(estimate.low), function(estimate.high)


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _log_grid(low: float, high: float, count: int) -> list[float]:
    return [float(f"{x:.3g}") for x in np.geomspace(low, high, count)]
