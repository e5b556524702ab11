"""The laws that every rule must keep, whoever wrote it: functions that raise ``AssertionError`` in one sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .rules import RULES, Rule
from .rules.base import STATE_SHAPES

F64 = torch.float64

# Values at which each hyper-parameter shows: nothing vanishes against something else, nothing is 1.
VISIBLE: dict[str, Any] = {
    "lr": 0.1,
    "betas": (0.8, 0.9),
    "eps": 0.01,
    "weight_decay": 0.1,
    "momentum": 0.7,
    "dampening": 0.25,
    "alpha": 0.7,
    "rho": 0.7,
    "momentum_decay": 2.0,
    "final_lr": 0.05,
    "gamma": 0.02,
    "base_lr": 0.08,
    "trust_coefficient": 0.3,
    "trust_clip": 1.5,
    "clip_threshold": 0.8,
    "decay_rate": 0.6,
    "beta": 0.8,
    "mu": 0.3,
}
VISIBLE_IN: dict[str, dict[str, Any]] = {"adafactor": {"lr": 0.7, "eps": (0.01, 0.05)}}

# Why twice the rate is not twice the first step.
BENT_IN_RATE: dict[str, str] = {
    "adabound": "the rate is clipped between bounds of its own",
    "amsbound": "the rate is clipped between bounds of its own",
    "nd_adam": "the parameter is brought back to its norm after the step",
}


class Kept(NamedTuple):
    """Whether a rule keeps one law; ``sentence`` says what the law is or, where it is broken, how."""

    name: str
    ok: bool
    sentence: str


def laws_of(rule: Rule) -> list[Kept]:
    """Each law in turn, held to ``rule``; an exception of the rule's own counts as a broken law."""
    found = []
    for name, law in LAWS.items():
        try:
            law(rule)
        except Exception as error:
            text = str(error).strip() if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            found.append(Kept(name, False, text.splitlines()[0] if text else "it raised an error without a text"))
        else:
            found.append(Kept(name, True, str(law.__doc__).splitlines()[0]))
    return found


# --- what a law is tried on -----------------------------------------------------------------------------------------


def base(rule: Rule) -> Rule:
    """The rule of which ``rule`` is a deviation, or itself."""
    return RULES.get(rule.name.partition(":")[0], rule)


def settings(rule: Rule) -> dict[str, dict[str, Any]]:
    """Named hyper-parameter settings: visible ones, without decay, each switch turned, and the defaults."""
    defaults = rule.defaults
    shown = {**VISIBLE, **VISIBLE_IN.get(base(rule).name, {})}
    visible = {name: shown.get(name, value) for name, value in defaults.items()}
    found = {"visible": visible}
    if "weight_decay" in defaults:
        found["no-decay"] = {**visible, "weight_decay": 0.0}
    for name, value in defaults.items():
        if isinstance(value, bool):
            found[name if not value else f"not-{name}"] = {**visible, name: not value}
    return {**found, "defaults": dict(defaults)}


def known(rule: Rule, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the hyper-parameters that ``rule`` takes: a deviation may take fewer."""
    return {name: value for name, value in hyper.items() if name in rule.defaults}


def gradients(steps: int, *shape: int, seed: int = 0) -> Tensor:
    """Random gradients, ``(steps, *shape)``, with a spike at the third step and a zero gradient at the fifth."""
    g = torch.randn(steps, *shape, dtype=F64, generator=torch.Generator().manual_seed(seed))
    g[2:3] *= 30
    g[4:5] = 0
    return g


def layers(steps: int = 8, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Three tensors with gradients: a matrix, a vector whose first gradient is zero, and one that starts at zero."""
    # Copies: a rule that changes its inputs must not spoil them for the next law.
    return [(p.clone(), gs.clone()) for p, gs in _layers(steps, seed)]


@functools.cache
def _layers(steps: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    found = []
    for n, shape in enumerate([(3, 4), (5,), (2,)]):
        p = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(100 * seed + n))
        found.append((p, gradients(steps, *shape, seed=100 * seed + n)))
    found[1][1][0].zero_()
    found[2][0].zero_()
    return found


def at_step(hyper: Mapping[str, Any], t: int) -> dict[str, Any]:
    """The hyper-parameters of step ``t``: a list has one value per step."""
    return {name: value[t - 1] if isinstance(value, list) else value for name, value in hyper.items()}


def walk(
    rule: Callable[..., Any], p: Tensor, gs: Tensor, hyper: Mapping[str, Any], state: tuple[Tensor, ...]
) -> Iterator[tuple[Tensor, ...]]:
    """``p`` and the state after each gradient, under the hyper-parameters of :func:`at_step`."""
    for t, g in enumerate(gs, start=1):
        p, *state = rule(p, g, t, *state, **at_step(hyper, t))
        yield p, *state


def path(rule: Rule, p: Tensor, gs: Tensor, hyper: Mapping[str, Any]) -> Tensor:
    """The parameter after each step, stacked."""
    return torch.stack([now[0] for now in walk(rule, p, gs, hyper, rule.init(p))])


def displacement(rule: Rule, p: Tensor, g: Tensor, hyper: Mapping[str, Any]) -> Tensor:
    """The first step."""
    return rule(p, g, 1, *rule.init(p), **hyper)[0] - p


def near(actual: Any, expected: Any, tolerance: float = 1e-12, atol: float | None = None) -> None:
    """Equal to a relative tolerance; far cheaper than ``torch.testing.assert_close`` where it fails."""
    expected = torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual)
    if not torch.allclose(actual, expected, rtol=tolerance, atol=tolerance / 10 if atol is None else atol):
        raise AssertionError(f"got {actual.tolist()}, expected {expected.tolist()}")


def _visible(rule: Rule) -> dict[str, Any]:
    return known(rule, settings(base(rule))["visible"])


def _without_decay(rule: Rule) -> dict[str, Any]:
    found = settings(base(rule))
    return known(rule, found.get("no-decay", found["visible"]))


def _same(actual: Any, expected: Any, what: str, tolerance: float = 1e-12, atol: float | None = None) -> None:
    """:func:`near`, but an error says in words what differs."""
    try:
        near(actual, expected, tolerance, atol)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


# --- the laws -------------------------------------------------------------------------------------------------------


def defaults_are_allowed(rule: Rule) -> None:
    """It has an ``lr``, and every default lies in the range of its name."""
    assert "lr" in rule.defaults, "it has no keyword lr"
    try:
        rule.validate(rule.defaults)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"a default is out of its range: {error}") from None


def inputs_are_left_alone(rule: Rule) -> None:
    """It changes none of its inputs, and the same call gives the same result."""
    for p, gs in layers():
        state = list(rule.init(p))
        for t in (1, 2, 3):
            given = [x.clone() for x in (p, gs[t], *state)]
            first = rule(p, gs[t], t, *state, **_visible(rule))
            again = rule(p, gs[t], t, *state, **_visible(rule))
            assert all(map(torch.equal, (p, gs[t], *state), given)), "an input was changed"
            assert all(map(torch.equal, first, again)), "the same call gave another result"
            p, *state = first


def shapes_are_kept(rule: Rule) -> None:
    """The new parameter is shaped like the old one, and each state as the rule says."""
    for p, gs in layers():
        for now in walk(rule, p, gs, _visible(rule), rule.init(p)):
            expected = [tuple(p.shape), *(tuple(STATE_SHAPES[kind](p.shape)) for kind in rule.state.values())]
            got = [tuple(x.shape) for x in now]
            assert got == expected, f"it returned the shapes {got} for a parameter {tuple(p.shape)}, not {expected}"


def steps_are_finite(rule: Rule) -> None:
    """At its defaults, ordinary gradients give finite numbers, also a zero gradient and a start at zero."""
    for p, gs in layers():
        assert path(rule, p, gs, rule.defaults).isfinite().all(), "an ordinary gradient led to inf or NaN"


def zero_gradient(rule: Rule) -> None:
    """From zero state and without decay, a zero gradient moves nothing."""
    for p, gs in layers():
        p = torch.nn.functional.normalize(p) if p.ndim > 1 else p  # ND-Adam brings rows back to length 1.
        moved = displacement(rule, p, 0 * gs[0], _without_decay(rule))
        _same(moved, torch.zeros_like(p), "a zero gradient moved the parameter", atol=1e-15)


def mirror(rule: Rule) -> None:
    """The mirrored gradients from the mirrored start walk the mirrored path."""
    hyper = _visible(rule)
    for p, gs in layers():
        here, there = path(rule, p, gs, hyper), -path(rule, -p, -gs, hyper)
        assert torch.equal(here, there), "the mirrored gradients do not walk the mirrored path"


def rate_is_a_factor(rule: Rule) -> None:
    """Without decay, twice the rate gives twice the first step."""
    if base(rule).name in BENT_IN_RATE:
        return
    hyper = _without_decay(rule)
    p, gs = layers()[0]
    once, twice = (displacement(rule, p, gs[0], {**hyper, "lr": lr}) for lr in (0.01, 0.02))
    _same(twice, 2 * once, "twice the rate is not twice the first step")


def float32(rule: Rule) -> None:
    """In float32 it is the same to rounding, and stays in float32."""
    for p, gs in layers():
        wide, narrow = (path(rule, p.to(dtype), gs.to(dtype), _visible(rule)) for dtype in (F64, torch.float32))
        assert narrow.dtype == torch.float32, f"float32 became {narrow.dtype}"
        _same(narrow.double(), wide, "float32 and float64 part", 2e-5)


def hyper_parameters_as_tensors(rule: Rule) -> None:
    """Hyper-parameters may be tensors."""

    def tensor(x: Any) -> Any:
        return tuple(map(tensor, x)) if isinstance(x, tuple) else torch.tensor(x, dtype=F64)

    hyper = _visible(rule)
    tensors = {name: tensor(x) if isinstance(x, (float, tuple)) else x for name, x in hyper.items()}
    for p, gs in layers():
        _same(path(rule, p, gs, tensors), path(rule, p, gs, hyper), "tensors as hyper-parameters give another path")


def step_count_as_tensor(rule: Rule) -> None:
    """``t`` may be a tensor."""
    hyper = _visible(rule)
    for p, gs in layers():
        state = list(rule.init(p))
        expected = list(walk(rule, p, gs, hyper, rule.init(p)))
        for t, g in enumerate(gs, start=1):
            p, *state = rule(p, g, torch.tensor(t, dtype=F64), *state, **hyper)
            for actual, value in zip((p, *state), expected[t - 1], strict=True):
                _same(actual, value, "a tensor as t gives another path")


def runs_as_a_batch(rule: Rule) -> None:
    """Many runs at once, under ``torch.func.vmap``, are the same runs: there is no branch on a value."""
    rates, hyper = torch.tensor([0.3, 0.1, 0.003], dtype=F64), _visible(rule)
    for n in (0, 1):
        runs = [layers(seed=seed)[n] for seed in range(3)]
        alone = [
            [(p, *rule.init(p)), *walk(rule, p, gs, {**hyper, "lr": lr}, rule.init(p))]
            for (p, gs), lr in zip(runs, rates.tolist(), strict=True)
        ]
        for t in (1, 6):

            def step(lr: Tensor, g: Tensor, p: Tensor, *state: Tensor, t: int = t) -> Any:
                return rule(p, g, t, *state, **{**hyper, "lr": lr})

            before = [torch.stack(x) for x in zip(*(run[t - 1] for run in alone), strict=True)]
            together = torch.func.vmap(step)(rates, torch.stack([gs[t - 1] for _, gs in runs]), *before)
            for actual, after in zip(together, zip(*(run[t] for run in alone), strict=True), strict=True):
                _same(actual, torch.stack(after), "a batch of runs is not the same as each alone")


LAWS: dict[str, Callable[[Rule], None]] = {
    law.__name__.replace("_", " "): law
    for law in (
        defaults_are_allowed,
        inputs_are_left_alone,
        shapes_are_kept,
        steps_are_finite,
        zero_gradient,
        mirror,
        rate_is_a_factor,
        float32,
        hyper_parameters_as_tensors,
        step_count_as_tensor,
        runs_as_a_batch,
    )
}
