"""What a report concludes: differences with intervals, who leads, how wide the good rates are, in numbers and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import landscapes, stats, tasks
from ..rules import find
from ..search import log_grid

if TYPE_CHECKING:
    import pandas as pd

    from ..runs import Runs

Seeds = Mapping[int, float]
VERDICTS = ("better", "not distinguishable", "worse")


def better_or_worse(
    values: Mapping[str, Seeds], mine: str, *, larger: bool = False, comparisons: int | None = None
) -> pd.DataFrame:
    """How ``mine`` does beside each other: the differences paired by seed, with intervals that hold together.

    ``values`` maps a name to its result for each seed. Columns: ``optimizer`` (the other), ``mean``, ``low``, ``high``
    of mine minus theirs, ``n``, ``verdict``, one of ``VERDICTS``. The intervals hold together with probability 95 %
    over so many ``comparisons`` (default: as many as there are others; Bonferroni). One seed decides nothing.
    """
    import pandas as pd

    others = [name for name in values if name != mine]
    share = 1 - 0.05 / max(1, comparisons or len(others))
    rows = []
    for name in others:
        seeds = sorted(values[mine].keys() & values[name].keys())
        gap = stats.paired_difference([values[mine][s] for s in seeds], [values[name][s] for s in seeds], share)
        good = (gap.low > 0) if larger else (gap.high < 0)
        bad = (gap.high < 0) if larger else (gap.low > 0)
        rows.append({"optimizer": name, **gap._asdict(), "verdict": VERDICTS[0 if good else 2 if bad else 1]})
    return pd.DataFrame(rows, columns=["optimizer", "mean", "low", "high", "n", "verdict"])


def against(table: pd.DataFrame) -> str:
    """What :func:`better_or_worse` found, in words: ``better than sgd; not distinguishable from adam``."""
    links = {"better": "better than", "not distinguishable": "not distinguishable from", "worse": "worse than"}
    said = []
    for verdict in VERDICTS:
        own = table[table["verdict"] == verdict]["optimizer"].tolist()
        said += [f"**{verdict}** {links[verdict].removeprefix(verdict).strip()} {listed(own)}"] * bool(own)
    return "; ".join(said) or "compared with nothing"


def leader(values: Mapping[str, Seeds], *, larger: bool = False) -> tuple[str, str]:
    """The name with the best mean, and how it stands beside each other, in words."""
    sign = -1 if larger else 1
    best = min(values, key=lambda name: sign * float(np.mean([*values[name].values()])))
    if len(values) == 1:
        return best, "there is nothing to compare it with"
    return best, against(better_or_worse(values, best, larger=larger))


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def robustness(frame: pd.DataFrame, metric: str, within: float, larger: bool = False) -> pd.DataFrame:
    """How many decades of rates are good, for each ``optimizer``, ``init`` and ``seed`` of the table of runs.

    Good is a ``metric`` of at most ``within`` times the best mean that any optimizer had at any rate and any ``init``
    (where larger is better: at least that best divided by ``within``): one measure for all. Column ``decades``.
    """
    import pandas as pd

    means = frame.groupby(["optimizer", "init", "lr"])[metric].apply(lambda values: float(np.mean(values.to_numpy())))
    limit = float(np.nanmax(means)) / within if larger else float(np.nanmin(means)) * within
    rows = [
        {**dict(zip(("optimizer", "init", "seed"), key, strict=True)), "decades": width}
        for key, own in frame.groupby(["optimizer", "init", "seed"], sort=False)
        for width in [stats.basin_width(own, metric, limit=limit, larger=larger)]
    ]
    return pd.DataFrame(rows).fillna({"decades": 0.0})


def best_paths(
    landscape: str, names: Sequence[str], steps: int, count: int = 25
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """For each rule its path on a landscape at the rate that ends lowest of ``count``; that rate and the height there.

    The rates go from a hundredth of the rule's default to a thousand times it. Where the gradient has noise, each is
    judged by the mean over the path's last half.
    """
    surface = landscapes.get(landscape)
    paths, ends = {}, {}
    for name in names:
        default = float(find(name).defaults["lr"])
        tried = log_grid(default / 100, default * 1000, count)
        many = landscapes.trajectory(name, landscape, steps=steps, lr=tried)
        heights = surface(many)[:, -max(1, steps // 2) if surface.noise else -1 :].mean(-1)
        best = int(torch.nan_to_num(heights, nan=math.inf, posinf=math.inf).argmin())
        paths[name], ends[name] = many[best], (tried[best], float(heights[best]))
    return paths, ends


def rate_at(runs: Runs, name: str, metric: str) -> float:
    """The rate that was chosen for an optimizer."""
    return float(runs.chosen(name, metric)["lr"].iloc[0])


def scaled(task: str, factor: float) -> str:
    """The name of the task whose weights start ``factor`` times as large; at 1 it is the task itself."""
    if factor == 1:
        return task
    return f"{task}{',' if ':' in task else ':'}init={factor:g}"


def beside_one(ratios: Mapping[str, stats.Interval], rival: str) -> str:
    """Which intervals of a ratio lie below 1, above it, or hold it, in words."""
    words = {"quicker than": [], "not distinguishable from": [], "slower than": []}  # type: dict[str, list[str]]
    for name, ratio in ratios.items():
        way = "quicker than" if ratio.high < 1 else "slower than" if ratio.low > 1 else "not distinguishable from"
        words[way].append(name)
    found = [f"{listed(own)} {'is' if len(own) == 1 else 'are'} {way} {rival}" for way, own in words.items() if own]
    text = "; ".join(found)
    return f"{text[:1].upper()}{text[1:]}." if found else ""


def beside_others(runs: Mapping[str, Runs], mine: str) -> pd.DataFrame:
    """:func:`better_or_worse` on each task's runs, with a column ``task``; all the intervals hold together."""
    import pandas as pd

    tables = []
    for task, own in runs.items():
        found = tasks.find(task)
        values = {name: per_seed for name, (_, per_seed) in own.chosen_values(found.metric).items()}
        many = len(runs) * (len(values) - 1)
        larger = found.metric in found.larger
        tables.append(better_or_worse(values, mine, larger=larger, comparisons=many).assign(task=task))
    return pd.concat(tables, ignore_index=True)
