"""The surfaces are what their formulas say, and trajectories on them are the rule's own steps."""

from __future__ import annotations

import math
import re

import pytest
import torch
from stepsize import landscapes
from stepsize.landscapes import LANDSCAPES
from stepsize.rules import RULES

F64 = torch.float64
each = pytest.mark.parametrize("surface", LANDSCAPES.values(), ids=LANDSCAPES.keys())


def random_points(surface, n=50):
    low, high = torch.tensor(surface.view, dtype=F64).T
    return low + (high - low) * torch.rand(n, surface.dimensions, dtype=F64, generator=torch.Generator().manual_seed(0))


def as_python(latex):
    """``f(x, y) = …`` as a Python expression; what follows a quad is about the noise."""
    text = latex.partition(r"\quad")[0].partition("=")[2].rstrip(", ")
    text = re.sub(r"\\tfrac\{(\d)\}\{(\d)\}", r"(\1/\2)", text).replace(r"\,", " ").replace("|x|", "abs(x)")
    text = re.sub(r"(?<=[\d)])\s*(?=[(xya])|(?<=x)(?=y)", "*", text)
    return text.replace("^", "**")


@each
def test_value_is_that_of_the_printed_formula(surface):
    points = random_points(surface)
    expression = as_python(surface.formula)
    said = [eval(expression, {"abs": abs}, dict(zip("xy", point, strict=False))) for point in points.tolist()]
    assert torch.allclose(surface(points), torch.tensor(said, dtype=F64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("quadratic", (-2.0, 0.8), 10.0),
        ("rosenbrock", (-1.2, 1.0), 24.2),
        ("beale", (1.0, 1.5), 41.25),
        ("saddle", (1.0, 1.0), 0.25),
        ("double_well", (0.0, 0.0), 1.0),
        ("noisy_valley", (1.0, 1.0), 5.5),
        ("parabola", (-2.0,), 2.0),
        ("absolute", (-2.0,), 2.0),
    ],
)
def test_value_worked_out_by_hand(name, point, value):
    assert landscapes.get(name)(torch.tensor(point, dtype=F64)).item() == pytest.approx(value, rel=1e-14)


@each
def test_gradient_is_the_slope_of_the_surface(surface):
    points = random_points(surface)
    gradient = landscapes.gradient(surface, points)
    for axis in range(surface.dimensions):
        h = torch.zeros(surface.dimensions, dtype=F64)
        h[axis] = 1e-5
        slope = (surface(points + h) - surface(points - h)) / 2e-5
        assert torch.allclose(gradient[:, axis], slope, rtol=1e-6, atol=1e-6)


@each
def test_listed_minima_are_minima_and_the_start_is_none(surface):
    angles = torch.arange(16, dtype=F64) * math.tau / 16
    ring = torch.stack([angles.cos(), angles.sin()], dim=1)[:, : surface.dimensions]
    for point in torch.tensor(surface.minima, dtype=F64):
        around = surface(point + 1e-3 * ring[ring.norm(dim=1) > 0.1])
        assert (around > surface(point)).all()
        assert landscapes.gradient(surface, point).norm() < 1e-12
    assert landscapes.gradient(surface, surface.start).norm() > 0.1


@each
def test_start_and_minima_are_in_view(surface):
    low, high = torch.tensor(surface.view, dtype=F64).T
    for point in (surface.start, *surface.minima):
        assert (torch.tensor(point, dtype=F64) > low).all() and (torch.tensor(point, dtype=F64) < high).all()


@each
def test_surface_maps_over_points_in_any_precision(surface):
    points = random_points(surface, 6).reshape(2, 3, -1)
    mapped = torch.func.vmap(torch.func.vmap(surface))(points)
    assert torch.equal(mapped, surface(points)) and mapped.shape == (2, 3)
    assert surface(points.float()).dtype == torch.float32


def test_condition_number_is_the_ratio_of_the_curvatures():
    hessian = torch.func.jacrev(torch.func.grad(landscapes.quadratic(70.0)))(torch.tensor([0.3, -0.2], dtype=F64))
    assert torch.equal(hessian, torch.diag(torch.tensor([1.0, 70.0], dtype=F64)))


def test_double_well_has_a_shallow_basin_beside_a_deep_one():
    surface = landscapes.double_well(0.3)
    deep, shallow = surface(torch.tensor(surface.minima, dtype=F64))
    barrier = surface(torch.tensor([[x / 1000, 0.0] for x in range(-500, 500)], dtype=F64)).max()
    assert deep < shallow < barrier
    assert surface.lowest == deep.item()


# -- Trajectories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "sgdm", "nag", "nag:torch", "sgdm:no-momentum"])
def test_trajectory_is_the_rule_applied_step_by_step(name):
    rule = landscapes.find(name)
    p = torch.tensor([1.0, 1.5], dtype=F64)
    state, hand = rule.init(p), [p]
    for t in range(1, 8):
        g = torch.func.grad(LANDSCAPES["beale"])(p)
        p, *state = rule(p, g, t, *state, lr=0.003)
        hand.append(p)
    path = landscapes.trajectory(name, "beale", start=(1.0, 1.5), steps=7, lr=0.003)
    assert path.dtype == F64 and path.shape == (8, 2)
    assert torch.equal(path, torch.stack(hand))
    assert torch.equal(path, landscapes.trajectory(rule, LANDSCAPES["beale"], start=(1.0, 1.5), steps=7, lr=0.003))


def test_sgd_on_the_parabola_multiplies_by_one_minus_the_rate():
    path = landscapes.trajectory("sgd", "parabola", start=(-2.0,), steps=3, lr=0.25)
    assert path.flatten().tolist() == [-2.0, -1.5, -1.125, -0.84375]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_many_runs_at_once_are_the_runs_one_by_one(rule):
    starts, rates = [(1.0, 1.5), (2.0, 1.0), (0.5, -0.5)], [1e-3, 2e-3, 3e-3]
    together = landscapes.trajectory(rule, "beale", start=starts, steps=12, lr=rates)
    assert together.shape == (3, 13, 2)
    for start, lr, path in zip(starts, rates, together, strict=True):
        alone = landscapes.trajectory(rule, "beale", start=start, steps=12, lr=lr)
        assert torch.allclose(path, alone, rtol=1e-11, atol=1e-13)


def test_rate_may_be_a_function_of_the_step():
    path = landscapes.trajectory("sgd", "absolute", start=(4.0,), steps=3, lr=lambda t: 1 / t)
    assert path.flatten().tolist() == pytest.approx([4, 3, 2.5, 2.5 - 1 / 3])


def test_noise_is_drawn_per_step_and_repeats_with_its_seed():
    def run(**given):
        return landscapes.trajectory("sgd", "noisy_valley", steps=20, lr=0.05, **given)

    assert torch.equal(run(seed=3), run(seed=3))
    assert not torch.equal(run(seed=3), run(seed=4))
    longer = landscapes.trajectory("sgd", "noisy_valley", steps=40, lr=0.05, seed=3)
    assert torch.equal(longer[:21], run(seed=3))
    assert torch.equal(run(seed=[4, 3])[1], run(seed=3))
    path, step = run(seed=3), 7
    g = landscapes.gradient("noisy_valley", path[step - 1], seed=3, step=step)
    assert torch.allclose(path[step], path[step - 1] - 0.05 * g, rtol=1e-14)


def test_noise_has_the_size_it_says():
    drawn = landscapes.noise(landscapes.noisy_valley(noise=0.3), 20_000, seed=1)
    assert drawn.std().item() == pytest.approx(0.3, rel=0.02)
    assert drawn.mean().item() == pytest.approx(0, abs=0.01)


def test_divergence_is_not_hidden():
    path = landscapes.trajectory("sgd", "rosenbrock", steps=30, lr=1.0)
    assert not torch.isfinite(path[-1]).any()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"rule": "sdgm"}, KeyError, "no rule named 'sdgm'; did you mean 'sgdm'?"),
        ({"landscape": "rosenbrok"}, KeyError, "no landscape named 'rosenbrok'; did you mean 'rosenbrock'?"),
        ({"momentun": 0.9}, TypeError, "sgdm has no 'momentun'; did you mean 'momentum'?"),
        ({"lr": -0.1}, ValueError, "lr must be 0 or more and finite, got -0.1"),
        ({"lr": [0.1, -0.1]}, ValueError, "lr must be 0 or more and finite, got -0.1"),
        ({"lr": []}, ValueError, "lr must have at least one value, got none"),
        ({"seed": []}, ValueError, "seed must have at least one value, got none"),
        ({"lr": [0.1, 0.2], "momentum": [0.5, 0.6, 0.7]}, ValueError, "lr and momentum must have as many values"),
        ({"start": (1.0, 2.0, 3.0)}, ValueError, "start must be 2 number"),
        ({"steps": 0}, ValueError, "steps must be 1 or more, got 0"),
    ],
)
def test_wrong_argument_gets_one_sentence(given, error, says):
    with pytest.raises(error, match=re.escape(says)):
        landscapes.trajectory(**{"rule": "sgdm", "landscape": "quadratic", **given})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: landscapes.quadratic(0.5), "condition must be 1 or more, got 0.5"),
        (lambda: landscapes.noisy_valley(-1), "noise must be 0 or more, got -1"),
        (lambda: landscapes.double_well(2), "tilt must be between 0 and 1.5, got 2"),
        (lambda: landscapes.counterexample(2), "c must be above 2, got 2"),
    ],
)
def test_wrong_shape_of_a_surface_gets_one_sentence(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


# -- Online problems ----------------------------------------------------------------------------------------------


def test_slopes_are_those_of_the_two_counterexamples():
    assert landscapes.counterexample(3.0).slopes(7, 0).tolist() == [3, -1, -1, 3, -1, -1, 3]
    spikes = landscapes.rare_spike().slopes(203, 0)
    assert spikes.nonzero().numel() == 203
    assert (spikes == 1010).nonzero().flatten().tolist() == [0, 101, 202] and set(spikes.tolist()) == {1010.0, -10.0}
    drawn = landscapes.rare_spike(random=True).slopes(100_000, 1)
    assert (drawn == 1010).double().mean().item() == pytest.approx(0.01, abs=0.001)


def test_play_keeps_to_the_interval_and_counts_regret_against_the_best_fixed_point():
    problem = landscapes.counterexample(3.0)
    x, regret = landscapes.play("sgd", problem, 4, lr=0.5)
    # 0, then -1.5 cut to -1, then two steps of +0.5, then -1.5 cut again.
    assert x.tolist() == [0.0, -1.0, -0.5, 0.0, -1.0]
    # Losses 0, 1, 0.5, 0; the best fixed point for the steps so far loses -3, -2, -1, -4.
    assert regret.tolist() == [3.0, 3.0, 2.5, 5.5]
    x, _ = landscapes.play("sgd", problem, 3, start=0.5, lr=lambda t: 0.0 if t == 1 else 0.4)
    assert x.tolist() == [0.5, 0.5, 0.9, 1.0], "cut at the upper end as well"


def test_best_fixed_point_may_be_either_end():
    downhill = landscapes.OnlineProblem("downhill", "", "", lambda steps, seed: -torch.ones(steps, dtype=F64), best=1.0)
    _, regret = landscapes.play("sgd", downhill, 3, lr=0.0)
    assert regret.tolist() == [1.0, 2.0, 3.0]


def test_sgd_finds_the_best_point_of_the_counterexample():
    x, regret = landscapes.play("sgd", landscapes.counterexample(3.0), 3000, lr=lambda t: 0.5 / t**0.5)
    assert x[-1] < -0.95
    assert regret[-1] / 3000 < 0.05


def test_adam_goes_to_the_wrong_end_of_the_counterexample_and_amsgrad_to_the_right_one():
    given = {"problem": landscapes.counterexample(3.0), "steps": 2000, "betas": (0.0, 0.1)}
    adam, lost = landscapes.play("adam", lr=lambda t: 0.5 / t**0.5, **given)
    assert adam[-1] > 0.95 and lost[-1] / 2000 > 0.6
    amsgrad, lost = landscapes.play("amsgrad", lr=lambda t: 0.5 / t**0.5, **given)
    assert amsgrad[-1] < -0.95 and lost[-1] / 2000 < 0.05


def test_play_runs_many_starts_at_once():
    starts = [-1.0, 0.25, 1.0]
    x, regret = landscapes.play("sgdm", landscapes.counterexample(), 30, start=starts, lr=0.01)
    assert x.shape == (3, 31) and regret.shape == (3, 30)
    alone, lost = landscapes.play("sgdm", landscapes.counterexample(), 30, start=0.25, lr=0.01)
    assert torch.allclose(x[1], alone) and torch.allclose(regret[1], lost)


def test_start_outside_the_interval_gets_one_sentence():
    with pytest.raises(ValueError, match=re.escape("start must be in [-1, 1], got 2")):
        landscapes.play("sgd", landscapes.counterexample(), 3, start=2.0)


def test_online_runs_of_several_seeds_are_those_of_each_seed_alone():
    problem = landscapes.rare_spike(random=True)
    x, regret = landscapes.play("adam", problem, 300, seed=[3, 5], lr=1e-2)
    for row, seed in enumerate([3, 5]):
        alone, its_regret = landscapes.play("adam", problem, 300, seed=seed, lr=1e-2)
        torch.testing.assert_close(x[row], alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(regret[row], its_regret, rtol=0, atol=1e-8)
