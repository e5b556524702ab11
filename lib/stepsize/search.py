"""What to try: grids of hyper-parameters, settings drawn at random, and rates found step by step."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from . import optim, schedules
from .rules import RULES, find
from .rules.base import suggestion

Settings = Mapping[str, Any]

# Optimizers that are not rules, but wrap one: trained one after another, by their class.
WRAPPERS: dict[str, Any] = {name: face for name, face in optim.OPTIMIZERS.items() if name not in RULES}
# What an optimizer's class takes that is no hyper-parameter.
OPTIONS = ("maximize", "variant", "engine")
# What every run has beside its optimizer's hyper-parameters.
COURSE = {"schedule": "constant", "warmup_steps": 0}
# Settings that an optimizer may try where its rate is "auto" and nobody said how many.
BUDGET = 8
# Rates nearer to each other than this are not worth trying, in decades.
NEAR = 0.15


def grid(
    name: str, settings: Settings | Sequence[Settings], budget: int | None = None, course: Settings = COURSE
) -> list[dict[str, Any]]:
    """Every combination of the listed values, with the defaults filled in and all of them checked.

    A value with a method ``rvs``, such as ``scipy.stats.loguniform(1e-4, 1)``, is a range to draw from: then
    ``budget`` settings are drawn, the same at every call. Of a grid larger than ``budget``, so many are drawn too.
    ``course`` holds the defaults of ``schedule`` and ``warmup_steps``.

    Raises ``KeyError`` for an unknown optimizer, ``TypeError`` for an unknown hyper-parameter, ``ValueError``
    for one out of range; each names the nearest known or what is allowed.
    """
    spaces = [settings] if isinstance(settings, Mapping) else list(settings)
    return [_filled(name, given, course) for given in _drawn(name, spaces, budget)]


def _drawn(name: str, spaces: Sequence[Settings], budget: int | None) -> list[dict[str, Any]]:
    listed = [{key: _listed(value) for key, value in space.items()} for space in spaces]
    ranges = [key for space in listed for key, value in space.items() if not isinstance(value, list)]
    if ranges and budget is None:
        raise ValueError(f"budget must say how many settings to draw, since {ranges[0]} of {name} is a range")
    whole = [] if ranges else [dict(zip(s, v, strict=True)) for s in listed for v in itertools.product(*s.values())]
    if budget is None or (not ranges and len(whole) <= budget):
        return whole
    if not ranges:
        picks = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:budget]
        return [whole[i] for i in sorted(picks.tolist())]
    from sklearn.model_selection import ParameterSampler

    draws = ParameterSampler(listed, budget, random_state=0)
    # Four figures, so that a setting can be typed.
    return [{key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in draw.items()} for draw in draws]


def _filled(name: str, given: Settings, course: Settings) -> dict[str, Any]:
    hyper = {**defaults(name, given.get("base")), **course, **given}
    known = [*defaults(name, hyper.get("base")), *COURSE]
    for key in given:
        if key not in known:
            raise TypeError(f"{name} has no {key!r}{suggestion(key, known)}")
    if "base_lr" in hyper and hyper["base_lr"] is None:
        hyper["base_lr"] = hyper["lr"]
    schedules.after_warmup(hyper["schedule"], hyper["warmup_steps"])
    own = {key: value for key, value in hyper.items() if key not in COURSE}
    if is_rule(name):
        find(name).validate(own)
    else:
        # A wrapper checks its settings when it is made.
        optimizer(name, [torch.zeros(2, 2, requires_grad=True)], own)
    return hyper


def defaults(name: str, base: str | None = None) -> dict[str, Any]:
    """The hyper-parameters of an optimizer with their defaults; of a wrapper also those of the optimizer it wraps.

    ``base`` names that one, where a wrapper lets it be chosen. ``KeyError`` names the nearest known optimizer.
    """
    if is_rule(name):
        return find(name).defaults
    own = list(inspect.signature(WRAPPERS[name.partition(":")[0]]).parameters.values())[1:]
    options = {p.name: p.default for p in own if p.kind is not p.VAR_KEYWORD and p.name not in OPTIONS}
    if "base" in options:
        inner = base or WRAPPERS[name.partition(":")[0]].base
        options = {**defaults(inner), **options, "base": inner}
    return options


def is_rule(name: str) -> bool:
    """Whether the optimizer is a rule, not a wrapper; ``KeyError`` if it is neither."""
    base = name.partition(":")[0]
    if base not in RULES and base not in WRAPPERS:
        raise KeyError(f"no optimizer named {base!r}{suggestion(base, [*RULES, *WRAPPERS])}")
    return base in RULES


def optimizer(name: str, leaves: list[torch.Tensor], hyper: Settings, engine: str = "loop") -> Optimizer:
    """The optimizer of that name; a rule's is run by ``engine``."""
    base, _, variant = name.partition(":")
    options = {"variant": variant} if variant else {}
    if base in RULES:
        options["engine"] = engine
    make: Callable[..., Optimizer] = optim.OPTIMIZERS[base]
    return make(leaves, **hyper, **options)


def log_grid(low: float, high: float, count: int) -> list[float]:
    """``count`` rates from ``low`` to ``high``, evenly spaced in log10, rounded to 4 figures so that they can be typed.

    Raises ``ValueError`` unless both ends are positive and ``count`` is 1 or more.
    """
    for value in (low, high):
        if not 0 < value < math.inf:
            raise ValueError(f"lr must be positive on a log grid, got {value:g}")
    if count < 1:
        raise ValueError(f"a grid must have 1 or more rates, got {count}")
    return [float(f"{low * (high / low) ** (i / max(1, count - 1)):.4g}") for i in range(count)]


def next_rates(tried: Mapping[float, float], default: float, left: int) -> list[float]:
    """The rates to try next, at most ``left``: ``tried`` maps those behind us to their scores, smaller is better.

    It begins with the default and a decade on both sides. While the best lies at an edge, it goes a decade
    further there; then it halves, in log10, the gaps on both sides of the best; when these are small, the
    widest gap anywhere, to draw the whole basin, and at last a decade further out. Of equal scores the middle
    one counts as the best.
    """
    if not tried:
        return [_typed(default * factor) for factor in (1, 0.1, 10)][:left]
    rates = sorted(tried)
    lowest = min(tried.values())
    ties = [rate for rate in rates if tried[rate] == lowest]
    at = rates.index(ties[len(ties) // 2])
    gaps = [math.log10(b / a) for a, b in itertools.pairwise(rates)]
    found = []
    if at == 0 or ties[0] == rates[0]:
        found.append(rates[0] / 10)
    if at == len(rates) - 1 or ties[-1] == rates[-1]:
        found.append(rates[-1] * 10)
    sides = [i for i in (at - 1, at) if 0 <= i < len(gaps) and gaps[i] > NEAR]
    if not found and not sides and gaps and max(gaps) > NEAR:
        sides = [gaps.index(max(gaps))]
    found += [math.sqrt(rates[i] * rates[i + 1]) for i in sides]
    if not found:
        # All near is known, and every optimizer tries as many: a decade beyond the edge that is nearer to the best.
        below = rates[at] / rates[0] < rates[-1] / rates[at]
        found.append(rates[0] / 10 if below else rates[-1] * 10)
    return [rate for rate in map(_typed, found) if rate not in tried][:left]


def _typed(rate: float) -> float:
    return float(f"{rate:.4g}")


def _listed(value: Any) -> Any:
    """The values of one hyper-parameter, numpy's numbers as Python's; a range as it is."""
    if hasattr(value, "rvs"):
        return value
    many = isinstance(value, (list, range)) or getattr(value, "ndim", 0) == 1
    return [x.item() if hasattr(x, "item") else x for x in (value if many else [value])]
