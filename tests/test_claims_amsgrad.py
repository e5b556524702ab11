"""The claims on AMSGrad: decided by small budgets, and turned by a broken rule or other numbers."""

import math

import pandas as pd
import pytest
import torch
from stepsize import claims, landscapes, stats
from stepsize.claims import amsgrad
from stepsize.rules import RULES


def rate(t: int) -> float:
    return 0.3 / math.sqrt(t)


def test_the_compiled_race_is_the_play_of_the_landscapes():
    problem = landscapes.rare_spike(random=True)
    run = amsgrad.race("adam", problem, 300, rate, (0.9, 0.99), seeds=[4, 7], keep=20)
    for seed, own in run.groupby("seed"):
        x, regret = landscapes.play("adam", problem, 300, seed=seed, lr=rate, betas=(0.9, 0.99))
        at = torch.tensor(own["step"].to_numpy())
        assert own["x"].to_numpy() == pytest.approx(x[at].numpy(), abs=1e-12)
        assert own["regret"].to_numpy() == pytest.approx((regret[at - 1] / at).numpy(), abs=1e-9)


def test_a_short_run_decides_the_two_periodic_problems_and_leaves_the_rare_ones_open():
    held = claims.measure("amsgrad-counterexample", steps=3000, long=1000, seeds=2).outcome.held
    assert held == {"adam": True, "amsgrad": True, "regret": True, "online": None, "stochastic": None}


def test_the_rare_one_is_decided_where_the_run_counts_as_long(monkeypatch):
    monkeypatch.setattr(amsgrad, "LONG", 2000)
    held = claims.measure("amsgrad-counterexample", steps=500, long=2000, seeds=2).outcome.held
    assert held["online"] is False


def test_amsgrad_without_its_maximum_goes_to_the_worst_point(monkeypatch):
    monkeypatch.setitem(RULES, "amsgrad", RULES["amsgrad"].deviations["no-maximum"].rule)
    held = claims.measure("amsgrad-counterexample", steps=3000, long=200, seeds=2).outcome.held
    assert held["amsgrad"] is False and held["regret"] is False


def test_adam_that_never_forgets_goes_to_the_best_point(monkeypatch):
    monkeypatch.setattr(amsgrad, "theorem", lambda c: 0.999)
    held = claims.measure("amsgrad-counterexample", steps=3000, long=200, seeds=2).outcome.held
    assert held["adam"] is False


SMALL = {"periods": (3, 10), "memories": 3}


def test_the_slide_is_wrong_about_the_default_and_right_about_a_short_memory():
    found = claims.measure("adam-c3-slide", **SMALL)
    assert found.outcome.held == {"default": False, "small": True, "proved": True, "sgd": True}
    assert found.verdict == "partly"


def test_the_drift_turns_where_the_derivation_says():
    for c in (3, 4, 6):
        edge = 16 ** (-1 / (c - 2))
        below, above = amsgrad.drift("adam", [c], [0.98 * edge, 1.02 * edge])[0]
        assert below > 0 > above


def test_amsgrad_and_sgd_drift_the_right_way_with_any_memory():
    assert (amsgrad.drift("amsgrad", [3, 10], [0.04, 0.5, 0.9]) < 0).all()
    assert (amsgrad.drift("sgd", [3, 10]) == -1).all()


def test_the_slides_claim_turns_with_an_adam_that_climbs(monkeypatch):
    monkeypatch.setitem(RULES, "adam", RULES["adam"].deviations["ascent"].rule)
    held = claims.measure("adam-c3-slide", **SMALL).outcome.held
    assert held["default"] is True and held["small"] is False and held["proved"] is False


def test_the_wrong_turn_needs_two_steps():
    with pytest.raises(ValueError, match="c must be 2 or more, got 1"):
        amsgrad.wrong_turn(1)


def test_adam_against_amsgrad_has_a_row_for_each_seed_and_decides():
    found = claims.measure("amsgrad-no-better", rates=2, seeds=2)
    assert found.data["task"].tolist() == ["digits-mlp"] * 2
    assert found.outcome.held["each"] is not None


def test_close_wants_a_narrow_interval_and_each_wants_zero_inside():
    near, wide, far = (stats.Interval(m, m - h, m + h, 5) for m, h in [(0.01, 0.02), (0.0, 0.5), (0.4, 0.1)])
    assert [amsgrad.inside(one, 0.1) for one in (near, wide, far)] == [True, None, False]
    assert amsgrad.holds_zero([near, wide]) is True
    assert amsgrad.holds_zero([near, far]) is False
    assert amsgrad.holds_zero([near, stats.Interval(0.1, math.nan, math.nan, 1)]) is None


def test_late_gradients_are_measured_at_two_moments_and_all_is_decided_or_open():
    found = claims.measure("final-stage-rare", seeds=3, steps=60, draws=40)
    assert sorted(found.data["step"].unique()) == [20, 60] and len(found.data) == 2 * 40
    assert found.outcome.held.keys() == claims.find("final-stage-rare").conditions.keys()
    assert found.outcome.held["small"] is False


def test_what_batches_tell_finds_the_rare_ones_and_what_v_does_to_them():
    quiet = pd.DataFrame({"length": [1.0] * 38, "cosine": [0.1] * 38, "moved": [10.0] * 38})
    loud = pd.DataFrame({"length": [20.0] * 2, "cosine": [0.9] * 2, "moved": [20.0] * 2})
    told = amsgrad._told(pd.concat([quiet, loud], ignore_index=True))
    assert told["share"] == pytest.approx(800 / 838) and told["clearer"] == pytest.approx(0.8)
    assert told["response"] == pytest.approx(0.1) and told["length"] == 1.0


def test_an_interval_must_lie_below_a_bound_to_be_below_it():
    below = [amsgrad._below(stats.Interval(m, m - 0.1, m + 0.1, 4), 1.0) for m in (0.8, 1.0, 1.2)]
    assert below == [True, None, False]
