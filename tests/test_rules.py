"""What holds for every rule: a new file in lib/stepsize/rules is under these tests the moment it exists."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
import torch
from equations import Equation
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from laws import LAWS, STEPS
from stepsize import laws
from stepsize.engines import loop
from stepsize.laws import F64, layers, near, path, settings
from stepsize.rules import RULES, SYMBOLS, Rule
from stepsize.rules.base import STATE_SHAPES

EVERY = list(RULES.values())
VARIANTS = [*EVERY, *(d.rule for rule in EVERY for d in rule.deviations.values() if d.kind == "library")]
each_rule = pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.name)
each_variant = pytest.mark.parametrize("rule", VARIANTS, ids=lambda rule: rule.name)


def visible(rule: Rule) -> dict[str, Any]:
    return settings(rule)["visible"]


# -- The printed equation, hand-derived steps, laws ---------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@each_rule
def test_rule_keeps_the_law_of(rule, law):
    LAWS[law](rule)


@each_rule
def test_equation_prints_every_number(rule):
    """What it leaves out can only be a switch, or an option that is off."""
    equation = Equation(rule.equation, SYMBOLS)
    unprinted = {name: value for name, value in rule.defaults.items() if not equation.mentions(name, value)}
    assert all(value is None or isinstance(value, bool) for value in unprinted.values()), unprinted


@each_rule
def test_golden_steps_hold_the_defaults(rule):
    golden = json.loads((STEPS / f"{rule.name}.json").read_text())
    assert {name: list(x) if isinstance(x, tuple) else x for name, x in rule.defaults.items()} == golden["defaults"]
    assert all(len(layer["gradients"]) >= 5 for layer in golden["layers"])


def test_golden_steps_have_a_rule_each():
    assert {file.stem for file in STEPS.glob("*.json")} == set(RULES)


def by_hand(name: str, hyper: dict[str, Any], p: list[float], gs: Any, expected: list[list[float]]) -> None:
    near(path(RULES[name], torch.tensor(p, dtype=F64), torch.tensor(gs, dtype=F64), hyper), expected)


def test_sgd_by_hand():
    # p = (10, -20), lr = 1/2, decay 0: each step takes half the gradient.
    #   10 - 4/2 =  8,    8 - (-2)/2 =  9,    9 - 6/2 =  6,    6 - 0 =  6,    6 - 1/2 = 5.5
    #  -20 - 2/2 = -21, -21 - 8/2    = -25, -25 - 0   = -25, -25 + 4/2 = -23, -23 + 3/2 = -21.5
    gs = [[4, 2], [-2, 8], [6, 0], [0, -4], [1, -3]]
    by_hand("sgd", {"lr": 0.5}, [10, -20], gs, [[8, -21], [9, -25], [6, -25], [6, -23], [5.5, -21.5]])
    # lr = 1/2, decay 1/2: p - (g + p/2)/2 = 3/4 p - g/2.
    #   16: 12 - 2 = 10,  7.5 + 1 = 8.5,  6.375 - 3 = 3.375,  2.53125 - 0,  1.8984375 - 0.5 = 1.3984375
    by_hand(
        "sgd",
        {"lr": 0.5, "weight_decay": 0.5},
        [16],
        [[4], [-2], [6], [0], [1]],
        [[10], [8.5], [3.375], [2.53125], [1.3984375]],
    )


def test_sgdm_by_hand():
    # lr = 1/2, momentum = 1/2; velocity m = m/2 + g/2, then p - m.
    #   g =  4: m = 2             p = 10 - 2     = 8
    #   g = -2: m = 1 - 1 = 0     p = 8
    #   g =  6: m = 0 + 3 = 3     p = 5
    #   g =  0: m = 1.5           p = 3.5
    #   g =  1: m = 0.75 + 0.5    p = 3.5 - 1.25 = 2.25
    gs = [[4], [-2], [6], [0], [1]]
    by_hand("sgdm", {"lr": 0.5, "momentum": 0.5}, [10], gs, [[8], [8], [5], [3.5], [2.25]])
    # With dampening = 1/2 the gradient enters with 1/4: m = 1, 0.5-0.5 = 0, 1.5, 0.75, 0.375+0.25 = 0.625.
    hyper = {"lr": 0.5, "momentum": 0.5, "dampening": 0.5}
    by_hand("sgdm", hyper, [10], gs, [[9], [9], [7.5], [6.75], [6.125]])
    # The rate stands inside the velocity: lr = 1, then 0 at the second step, and the old velocity goes on.
    #   g = 4: m = 4, p = 6;  g = 4 with lr = 0: m = 2, p = 4;  then m = 1, p = 3
    by_hand("sgdm", {"lr": [1.0, 0.0, 0.0], "momentum": 0.5}, [10], [[4], [4], [4]], [[6], [4], [3]])
    # decay 1/2, lr = 1, momentum = 1/2: g + p/2.
    #   p = 8, g = 2: m = 6, p = 2;  g = 1: m = 3 + 2 = 5, p = -3;  g = 0: m = 2.5 - 1.5 = 1, p = -4
    #   g = 4: m = 0.5 + 2 = 2.5, p = -6.5;  g = 1.25: m = 1.25 + 1.25 - 3.25 = -0.75, p = -5.75
    hyper = {"lr": 1.0, "momentum": 0.5, "weight_decay": 0.5}
    by_hand("sgdm", hyper, [8], [[2], [1], [0], [4], [1.25]], [[2], [-3], [-4], [-6.5], [-5.75]])


def test_nag_by_hand():
    # lr = 1/2, momentum = 1/2; m = m/2 + g/2, then p - m/2 - g/2.
    #   g =  4: m = 2      p = 10 - 1 - 2          = 7
    #   g = -2: m = 0      p = 7 - 0 + 1           = 8
    #   g =  6: m = 3      p = 8 - 1.5 - 3         = 3.5
    #   g =  0: m = 1.5    p = 3.5 - 0.75          = 2.75
    #   g =  1: m = 1.25   p = 2.75 - 0.625 - 0.5  = 1.625
    gs = [[4], [-2], [6], [0], [1]]
    by_hand("nag", {"lr": 0.5, "momentum": 0.5}, [10], gs, [[7], [8], [3.5], [2.75], [1.625]])
    # decay 1/2, lr = 1; g + p/2.
    #   p =  8, g = 2:    2 + 4 = 6,      m = 6,  p = 8 - 3 - 6 = -1
    #   p = -1, g = 2.5:  2.5 - 0.5 = 2,  m = 5,  p = -1 - 2.5 - 2 = -5.5
    hyper = {"lr": 1.0, "momentum": 0.5, "weight_decay": 0.5}
    by_hand("nag", hyper, [8], [[2], [2.5]], [[-1], [-5.5]])


# -- One rule, one signature --------------------------------------------------------------------------------------


@each_rule
def test_rule_says_what_it_is(rule):
    assert rule.__doc__ and rule.paper and rule.equation
    assert 1900 < rule.year < 2100 and str(rule.year) in rule.paper
    assert "lr" in rule.defaults


@each_rule
def test_printed_source_has_at_most_15_lines(rule):
    assert len(rule.source.strip().splitlines()) <= 15, rule.source


# What is left of the laws of every rule: a library may well move without a gradient, or bend the rate.
@pytest.mark.parametrize("law", [name for name in laws.LAWS if name not in LAWS])
@each_variant
def test_rule_and_variant_keep_the_law_that(rule, law):
    laws.LAWS[law](rule)


# -- Layers do not see each other ---------------------------------------------------------------------------------


def engine_steps(rule: Rule, calls: list[list[int]], spoiled: float | None = None) -> list[torch.Tensor]:
    """Seven steps of the plain engine, in calls of these layers; ``spoiled`` enters one gradient of layer 0."""
    params = [p.clone() for p, _ in layers()]
    states: list[dict[str, Any]] = [{} for _ in params]
    grads = [gs.clone() for _, gs in layers()]
    if spoiled is not None:
        grads[0][1, 0, 0] = spoiled
    for t in range(7):
        for call in calls:
            loop.step(rule, *([x[n] for n in call] for x in (params, [g[t] for g in grads], states)), visible(rule))
    return params


@each_variant
def test_order_of_the_parameters_is_irrelevant(rule):
    assert all(map(torch.equal, engine_steps(rule, [[0, 1, 2]]), engine_steps(rule, [[2, 0, 1]])))


@each_variant
def test_all_at_once_equals_one_after_another(rule):
    assert all(map(torch.equal, engine_steps(rule, [[0, 1, 2]]), engine_steps(rule, [[0], [1], [2]])))


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
@each_rule
def test_spoiled_gradient_reaches_no_other_layer(rule, spoiled):
    clean, reached = engine_steps(rule, [[0, 1, 2]]), engine_steps(rule, [[0, 1, 2]], spoiled)
    assert all(map(torch.equal, clean[1:], reached[1:]))


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
@each_variant
def test_spoiled_gradient_reaches_what_an_ordinary_change_of_it_reaches(rule, spoiled):
    clean, changed, reached = (engine_steps(rule, [[0]], value)[0] for value in (None, 0.5, spoiled))
    touched = changed != clean
    assert torch.equal(reached[~touched], clean[~touched])
    if math.isnan(spoiled):
        assert reached[0, 0].isnan(), "a NaN must not be hidden"


@each_rule
def test_docstring_says_how_far_a_spoiled_gradient_reaches(rule):
    clean, changed = (engine_steps(rule, [[0]], value)[0] for value in (None, 0.5))
    alone = int((changed != clean).sum()) == 1
    sentence = next((s for s in re.split(r"(?<=\.)\s", rule.__doc__) if "NaN" in s), "")
    assert ("element" if alone else "layer") in sentence, f"a NaN reaches {'its element' if alone else 'its layer'}"


# -- Any shape, any dtype, any size of number ---------------------------------------------------------------------

SHAPES = st.sampled_from([(), (0,), (1,), (3,), (2, 3), (3, 1), (2, 0, 3), (2, 3, 2, 2)])
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def sized(seed: int, shape: tuple[int, ...], exponent: float, dtype: torch.dtype) -> torch.Tensor:
    """Random numbers of the size ``10**exponent``, as far as ``dtype`` can hold them."""
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    return x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)


@each_rule
@hypothesis_settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(shape=SHAPES, dtype=DTYPES, exponents=st.tuples(*[st.sampled_from([-30, -8, -3, 0, 3, 8, 30])] * 2))
def test_any_shape_dtype_and_size_goes_through(rule, shape, dtype, exponents):
    p = sized(0, shape, exponents[0], dtype)
    state = rule.init(p)
    kept: dict[str, torch.Tensor] = {}
    q = p.clone()
    for t in (1, 2, 3):
        g = sized(t, shape, exponents[1], dtype)
        p, *state = rule(p, g, t, *state, **rule.defaults)
        assert (p.shape, p.dtype) == (torch.Size(shape), dtype)
        assert [(x.shape, x.dtype) for x in state] == [
            (STATE_SHAPES[kind](torch.Size(shape)), dtype) for kind in rule.state.values()
        ]
        loop.step(rule, [q], [g], [kept], rule.defaults)
        assert (q.shape, q.dtype) == (torch.Size(shape), dtype)
    wide = torch.float32 if dtype in loop.HALF else dtype
    assert {x.dtype for name, x in kept.items() if name != "step"} <= {wide}
    if max(map(abs, exponents)) <= 3:
        assert q.isfinite().all()
