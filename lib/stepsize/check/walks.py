"""What a student's step is tried on: walks drawn afresh, the same for the student and the rule."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import landscapes
from ..laws import VISIBLE, VISIBLE_IN, at_step, base, known
from ..rules import Rule

SEED = "STEPSIZE_CHECK_SEED"
LANDSCAPE = "quadratic"
# Rounding, in another order of the same operations, stays far below; every named mistake far above.
TOLERANCE = 1e-9
# Options that are off by default, and a value at which each shows; and where bounds must be close to show.
OPTIONS = {"layer_lr_clip": 0.05, "base_lr": 0.02}
CLOSE = {"adabound": {"gamma": 0.2}, "amsbound": {"gamma": 0.2}}


@dataclass(frozen=True)
class Case:
    """One walk: where it starts, its gradients, its hyper-parameters (a list has one value a step)."""

    about: str
    p: Tensor
    gradients: Tensor
    hyper: Mapping[str, Any]

    def gradient(self, t: int, p: Tensor) -> Tensor:
        return self.gradients[t - 1]


class OnTheBowl(Case):
    """The walk of the picture, whose gradients depend on where it is."""

    def gradient(self, t: int, p: Tensor) -> Tensor:
        return landscapes.gradient(LANDSCAPE, p)


def draw_cases(rule: Rule, accepted: set[str], fixed: Mapping[str, Any], seed: int) -> list[Case]:
    """From the simplest on: a student is shown the first that fails."""
    draw = np.random.default_rng(seed)
    shown = {**VISIBLE, **VISIBLE_IN.get(base(rule).name, {}), **CLOSE.get(base(rule).name, {})}

    def hypers(**given: Any) -> dict[str, Any]:
        drawn = {name: _near(value, draw) for name, value in shown.items()}
        made = {}
        for name, default in rule.defaults.items():
            value = drawn.get(name, default)
            if name not in accepted or default is None or isinstance(default, bool):
                made[name] = default
            else:
                made[name] = 0.0 if name == "weight_decay" else value
        return {**made, **{name: x for name, x in given.items() if name in accepted}, **fixed}

    def walk(steps: int, *shape: int, spike: bool = False) -> Tensor:
        gradients = torch.from_numpy(draw.standard_normal((steps, *shape)))
        if spike:
            gradients[2] *= 30
            gradients[4] = 0
        return gradients

    def point(*shape: int) -> Tensor:
        return torch.from_numpy(draw.standard_normal(shape))

    cases = [
        Case("three numbers", point(3), walk(6, 3), hypers()),
        Case("a matrix, with a spike and a zero gradient", point(3, 4), walk(12, 3, 4, spike=True), hypers()),
        Case("small gradients", point(4), 1e-2 * walk(6, 4), hypers()),
    ]
    if "weight_decay" in accepted - fixed.keys():
        decay = float(draw.uniform(0.05, 0.2))
        cases.append(Case("with weight decay", point(3), walk(6, 3, spike=True), hypers(weight_decay=decay)))
    if "lr" in accepted - fixed.keys():
        first, *_ = lrs = [float(x) for x in draw.uniform(0.05, 0.2, 2)]
        cases.append(Case("a rate that changes half-way", point(3), walk(8, 3), hypers(lr=[first] * 4 + lrs[1:] * 4)))
    for name, default in rule.defaults.items():
        if name not in accepted or name in fixed:
            continue
        if isinstance(default, bool):
            cases.append(Case(f"with {name}={not default}", point(2, 3), walk(8, 2, 3), hypers(**{name: not default})))
        elif name in OPTIONS:
            value = OPTIONS[name] * float(draw.uniform(0.5, 2))
            cases.append(Case(f"with {name}={value:.2g}", point(2, 3), walk(8, 2, 3), hypers(**{name: value})))
    late = walk(6, 3)
    late[0] = 0
    cases.append(Case("a start at zero, and a first gradient of zero", 0 * late[0], late, hypers()))
    return [case for case in cases if _finite(rule, case)]


def _finite(rule: Rule, case: Case) -> bool:
    return all(bool(now[0].isfinite().all()) for now in walk_of(rule, case))


def _near(value: Any, draw: np.random.Generator) -> Any:
    """A number within a tenth of ``value``; a tuple, each of its numbers."""
    if isinstance(value, tuple):
        return tuple(_near(x, draw) for x in value)
    return float(value * draw.uniform(0.9, 1.1)) if isinstance(value, float) else value


def seed_of(seed: int | None) -> int:
    if seed is not None:
        return seed
    return int(os.environ[SEED]) if SEED in os.environ else int.from_bytes(os.urandom(4), "big")


def walk_of(rule: Rule, case: Case) -> list[tuple[Tensor, ...]]:
    p, state, found = case.p, list(rule.init(case.p)), []
    for t in range(1, len(case.gradients) + 1):
        p, *state = rule(p, case.gradient(t, p), t, *state, **known(rule, at_step(case.hyper, t)))
        found.append((p, *state))
    return found


def equal(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    a = torch.as_tensor(a, dtype=b.dtype)
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance / 10, equal_nan=True)


def few(x: Any) -> str:
    """Up to four numbers, short."""
    if isinstance(x, Tensor):
        numbers = [f"{float(v):.4g}" for v in x.flatten()[:4]]
        text = ", ".join(numbers) + (", …" if x.numel() > 4 else "")
        return text if x.ndim == 0 else f"[{text}]"
    if isinstance(x, tuple):
        return f"({', '.join(map(few, x))})"
    return f"{x:.4g}" if isinstance(x, float) and math.isfinite(x) else str(x)
