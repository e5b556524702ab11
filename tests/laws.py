"""What a rule's own equation demands, beside the laws of every rule: functions that raise ``AssertionError``, which the
tests of the rules call on each rule, and the tests of the mistakes on each mistake, which must break one."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equations import Equation
from stepsize import laws
from stepsize.laws import F64, base, displacement, known, layers, near, path, settings, walk
from stepsize.rules import RULES, SYMBOLS, Rule
from torch import Tensor

STEPS = Path(__file__).parent / "steps"

# The displacement at t = 1 without decay, by hand, of parameter p and gradient g under hyper-parameters h.
FIRST_STEP: dict[str, Callable[[Tensor, Tensor, dict[str, Any]], Tensor]] = {
    "sgd": lambda p, g, h: -h["lr"] * g,
    "sgdm": lambda p, g, h: -h["lr"] * (1 - h["dampening"]) * g,
    "nag": lambda p, g, h: -h["lr"] * (1 + h["momentum"]) * g,
    "adagrad": lambda p, g, h: -h["lr"] * g / (g.abs() + h["eps"]),
    "rmsprop": lambda p, g, h: -h["lr"] * g / ((1 - h["alpha"]) ** 0.5 * g.abs() + h["eps"]),
    "adadelta": lambda p, g, h: -h["lr"] * (h["eps"] / ((1 - h["rho"]) * g**2 + h["eps"])) ** 0.5 * g,
    "adam": lambda p, g, h: -h["lr"] * g / (g.abs() + h["eps"]),
    "adamw": lambda p, g, h: -h["lr"] * g / (g.abs() + h["eps"]),
    "amsgrad": lambda p, g, h: -h["lr"] * (1 - h["betas"][0]) * g / ((1 - h["betas"][1]) ** 0.5 * g.abs() + h["eps"]),
    "radam": lambda p, g, h: -h["lr"] * g,
    "lars": lambda p, g, h: -h["lr"] * h["trust_coefficient"] * p.norm() * g / (g.norm() + h["eps"]),
    "lamb": lambda p, g, h: -h["lr"] * p.norm() * unit(g / (g.abs() + h["eps"])),
    "block_normalized": lambda p, g, h: -h["lr"] * g / (g.norm() + h["eps"]),
    "layer_lr": lambda p, g, h: -h["lr"] * (1 + (1 + 1 / (g.norm() + h["eps"])).log()) * g,
    "novograd": lambda p, g, h: -h["lr"] * g / (g.norm() + h["eps"]),
    "rsg": lambda p, g, h: -h["lr"] * ((1 - h["mu"]) * (1 - h["beta"]) + h["mu"]) * g,
    "arsg": lambda p, g, h: (
        -h["lr"]
        * ((1 - h["mu"]) * (1 - h["betas"][0]) + h["mu"])
        * g
        / ((1 - h["betas"][1]) * g**2).clamp(min=h["eps"]).sqrt()
    ),
}

# What a thousand times the gradient does to the path, without decay and with a vanishing eps.
SCALE = dict.fromkeys(["sgd", "sgdm", "nag", "rsg"], "linear") | dict.fromkeys(
    ["adagrad", "rmsprop", "adadelta", "adam", "adamw", "nadam", "amsgrad", "lars", "lamb", "lambc", "nd_adam",
     "adafactor", "block_normalized", "novograd", "arsg"],
    "free",
)  # fmt: skip


@functools.cache
def golden(name: str) -> list[tuple[dict[str, Any], Tensor, Tensor, Tensor]]:
    """Each case of tests/steps/NAME.json: hyper-parameters, start, gradients, and the parameter after each step."""
    assert (STEPS / f"{name}.json").exists(), f"no golden steps yet: python tests/derive_steps.py {name}"
    file, found = json.loads((STEPS / f"{name}.json").read_text()), []
    for case in file["cases"]:
        hyper = {
            key: tuple(x) if isinstance(RULES[name].defaults[key], tuple) else x for key, x in case["hyper"].items()
        }
        for layer, after in zip(file["layers"], case["after"], strict=True):
            p, gs, ps = (torch.tensor(x, dtype=F64) for x in (layer["p"], layer["gradients"], after))
            found.append((hyper, p, gs, ps))
    return found


def golden_steps(rule: Rule) -> None:
    """The steps in tests/steps are what the rule takes."""
    golden = json.loads((STEPS / f"{base(rule).name}.json").read_text())
    for case in golden["cases"]:
        hyper = {
            name: tuple(x) if isinstance(base(rule).defaults[name], tuple) else x for name, x in case["hyper"].items()
        }
        for layer, after in zip(golden["layers"], case["after"], strict=True):
            p, gs = torch.tensor(layer["p"], dtype=F64), torch.tensor(layer["gradients"], dtype=F64)
            near(path(rule, p, gs, known(rule, hyper)), after)


def printed(equation: Equation, rule: Rule, hyper: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters as the equation knows them: what it does not print stays at its default."""
    return {name: x if equation.mentions(name, x) else rule.defaults[name] for name, x in hyper.items()}


def printed_equation(rule: Rule) -> None:
    """The equation that the book prints moves parameters and state as the rule does."""
    for hyper, p, gs, expected in solved(base(rule).name):
        for now, then in zip(walk(rule, p, gs, known(rule, hyper), rule.init(p)), expected, strict=True):
            assert len(now) == len(then), f"the equation keeps {len(then) - 1} states, the rule {len(now) - 1}"
            for actual, value in zip(now, then, strict=True):
                near(actual, value)


@functools.cache
def solved(name: str) -> list[tuple[dict[str, Any], Tensor, Tensor, list[list[Tensor]]]]:
    """Hyper-parameters, start, gradients, and what the printed equation makes of parameter and state at each step."""
    equation, found = Equation(RULES[name].equation, SYMBOLS), []
    for hyper in settings(RULES[name]).values():
        hyper = printed(equation, RULES[name], hyper)
        for p, gs in layers():
            steps = equation.run(p.numpy(), gs.numpy(), hyper)
            after = [[torch.from_numpy(np.asarray(x).astype(float)) for x in (new_p, *state)] for new_p, state in steps]
            found.append((hyper, p, gs, after))
    return found


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def first_step(rule: Rule) -> None:
    """The first displacement is what a reader works out by hand."""
    if base(rule).name not in FIRST_STEP:
        pytest.skip(f"no first-step law is stated for {base(rule).name}")
    hyper = settings(base(rule))["no-decay"]
    p, gs = layers()[0]
    near(displacement(rule, p, gs[0], known(rule, hyper)), FIRST_STEP[base(rule).name](p, gs[0], hyper))


def gradient_scale(rule: Rule) -> None:
    """A thousand times the gradient: the same path, or a thousand times the displacement."""
    scale = SCALE.get(base(rule).name)
    if scale is None:
        pytest.skip(f"no law of gradient scale is stated for {base(rule).name}")
    hyper = settings(base(rule))["no-decay"]
    if "eps" in hyper:
        hyper["eps"] = (1e-20, *hyper["eps"][1:]) if isinstance(hyper["eps"], tuple) else 1e-20
    for p, gs in layers()[:2]:
        moved, scaled = (path(rule, p, c * gs, known(rule, hyper)) - p for c in (1, 1000))
        near(scaled, moved if scale == "free" else 1000 * moved, 1e-6)


LAWS: dict[str, Callable[[Rule], None]] = {
    law.__name__.replace("_", " "): law for law in (golden_steps, printed_equation, first_step, gradient_scale)
} | {name: laws.LAWS[name] for name in ("zero gradient", "mirror", "rate is a factor")}
