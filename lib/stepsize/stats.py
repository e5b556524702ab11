"""How sure are we? Intervals over seeds, paired differences, and the width of the good rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# How an interval over seeds can be made.
METHODS = ("t", "bootstrap")

Values = Sequence[float] | np.ndarray | Any


class Interval(NamedTuple):
    """A mean with its interval; ``low`` and ``high`` are NaN where ``n`` is 1."""

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """``f"{interval:.2%}"`` prints each of its numbers so."""
        spec = spec or ".4g"
        if math.isnan(self.low):
            return f"{self.mean:{spec}} (n={self.n}, no interval)"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}] (n={self.n})"

    def __str__(self) -> str:
        return format(self)


def interval(values: Values, level: float = 0.95, method: str = "t", draws: int = 10_000) -> Interval:
    """The mean of ``values`` and the interval that holds the true mean with probability ``level``.

    ``method="t"`` is Student's: mean ± t(n - 1) s / sqrt(n). It is the default because five seeds are
    too few for ``method="bootstrap"`` (percentiles of the means of ``draws`` resamples, seed 0), which
    is then too narrow. With one value there is no interval: ``low`` and ``high`` are NaN.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"values must be one or more numbers in a row, got shape {x.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level!r}")
    if method not in METHODS:
        raise ValueError(f"method must be 't' or 'bootstrap', got {method!r}")
    mean, n = float(x.mean()), len(x)
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, n)
    if method == "bootstrap":
        picks = np.random.default_rng(0).integers(n, size=(draws, n))
        low, high = np.quantile(x[picks].mean(1), [(1 - level) / 2, (1 + level) / 2])
        return Interval(mean, float(low), float(high), n)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(x.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a: Values, b: Values, level: float = 0.95) -> Interval:
    """The interval of ``a - b``, pair by pair: the runs of one seed share data order and start.

    Raises ``ValueError`` for unequal lengths. An interval that holds 0 means: not distinguishable.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"a and b must have one value for each seed, got {x.shape} and {y.shape}")
    return interval(x - y, level)


def best_of(scores: Values, k: int) -> np.ndarray:
    """The chance of each setting to be the best of ``k`` tried, drawn without replacement; they sum to 1.

    ``scores`` has one number per setting, smaller is better. With ``k = len(scores)`` the best has chance 1.
    """
    x = np.asarray(scores, dtype=float)
    n = len(x)
    if not 1 <= k <= n:
        raise ValueError(f"k must be from 1 to {n}, the number of settings, got {k!r}")
    chance = np.empty(n)
    for rank, place in enumerate(np.argsort(x, kind="stable")):
        chance[place] = math.comb(n - rank - 1, k - 1) / math.comb(n, k)
    return chance


def grid_edge(values: Values, best: float) -> bool:
    """Whether ``best`` is the first or last of the values tried: the true best may lie beyond."""
    tried = sorted({float(v) for v in values})
    return best in (tried[0], tried[-1])


def basin_width(
    frame: Any,
    metric: str,
    within: float = 0.10,
    over: str = "lr",
    larger: bool = False,
    limit: float | None = None,
) -> float:
    """How many decades of ``over`` are good: their ``metric`` is at most ``(1 + within)`` times the best mean.

    With ``larger``, larger is better, and they are at least ``(1 - within)`` times the best. ``limit``, where given,
    is the value itself that counts as good; where none is, the width is 0.

    ``frame`` is a data frame with a row per run. The metric is averaged over seeds at each rate and taken
    to be a straight line in log10 of the rate between neighbours; nothing is assumed beyond the grid, so a
    basin that reaches its edge is a lower bound. Rates without a finite mean are never good. Only the
    stretch that holds the best rate counts.
    """
    means = frame.groupby(over)[metric].apply(lambda values: float(np.mean(values))).sort_index()
    x, y = np.log10(means.index.to_numpy(dtype=float)), means.to_numpy(dtype=float) * (-1 if larger else 1)
    if not np.isfinite(y).any():
        return math.nan
    best = int(np.nanargmin(y))
    limit = y[best] + within * abs(y[best]) if limit is None else limit * (-1 if larger else 1)
    if y[best] > limit:
        return 0.0

    def reach(step: int) -> float:
        i = best
        while 0 <= i + step < len(y) and y[i + step] <= limit:
            i += step
        if not 0 <= i + step < len(y) or not math.isfinite(y[i + step]):
            return float(x[i])
        return float(x[i] + (x[i + step] - x[i]) * (limit - y[i]) / (y[i + step] - y[i]))

    return reach(1) - reach(-1)
