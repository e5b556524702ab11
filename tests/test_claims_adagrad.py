"""The claims of chapter 04 decide, and their verdicts turn when a method is broken."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from stepsize import claims, landscapes
from stepsize.claims import adagrad
from stepsize.rules import RULES


def broken(monkeypatch, rule, mistake):
    deviations = RULES[rule].deviations
    monkeypatch.setattr(deviations[mistake].rule, "deviations", deviations)
    monkeypatch.setitem(RULES, rule, deviations[mistake].rule)


# --- one framework ---------------------------------------------------------------------------------------------------

# With epsilon and decay off, and a constant rate, these are no mistakes.
HIDDEN = {"epsilon-inside", "no-epsilon", "rate-outside", "dampening-ignored", "no-decay", "decay-sign", "decay-after"}
MISTAKES = [
    (rule, d.name)
    for rule in adagrad.FRAMEWORK
    for d in RULES[rule].deviations.values()
    if d.kind == "mistake" and d.name not in HIDDEN
]


def test_the_framework_gives_the_path_of_all_five_rules():
    found = claims.measure("generic-framework", steps=20)
    assert found.verdict == "replicates"
    assert found.outcome.numbers["Adam with the framework's rate constant"][0] > 0.1


@pytest.mark.parametrize(("rule", "mistake"), MISTAKES)
def test_the_framework_notices_a_mistaken_rule(rule, mistake, monkeypatch):
    broken(monkeypatch, rule, mistake)
    held = claims.measure("generic-framework", steps=6).outcome.held
    assert not held[rule]
    assert all(held[other] for other in adagrad.FRAMEWORK if other != rule)


def test_memory_has_the_weights_of_the_table():
    phi, psi = adagrad.memory("adam", 3)
    assert phi.tolist() == pytest.approx([0.1 * 0.81, 0.1 * 0.9, 0.1])
    assert psi.tolist() == pytest.approx([0.001 * 0.999**2, 0.001 * 0.999, 0.001])
    assert adagrad.memory("sgd", 3)[1] is None
    assert adagrad.memory("adagrad", 4)[1].tolist() == [0.25] * 4


# --- regret ----------------------------------------------------------------------------------------------------------


def test_regret_sees_that_a_single_step_misleads():
    found = claims.measure("regret-definition", steps=200, rates=3)
    assert found.outcome.held["one step"]
    assert found.outcome.numbers["steps at which the worst point has less loss, C = 3"][0] == pytest.approx(2 / 3, 0.02)


def test_regret_claim_turns_where_every_step_agrees(monkeypatch):
    plain = landscapes.OnlineProblem("plain", "", "", lambda steps, seed: torch.ones(steps, dtype=torch.float64), -1.0)
    monkeypatch.setattr(landscapes, "counterexample", lambda c: plain)
    assert not claims.measure("regret-definition", steps=100, rates=2).outcome.held["one step"]


def test_regret_claim_turns_when_the_order_is_turned_round(monkeypatch):
    right = claims.measure("regret-definition", steps=200, rates=3).outcome.held["order, C = 3"]
    order = adagrad._order
    monkeypatch.setattr(adagrad, "_order", lambda regret: -order(regret))
    assert right and not claims.measure("regret-definition", steps=200, rates=3).outcome.held["order, C = 3"]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_order_is_the_power_of_growth(power):
    assert adagrad._order(torch.arange(1, 1001, dtype=torch.float64) ** power) == pytest.approx(power)


# --- a rate that falls -----------------------------------------------------------------------------------------------

RATE = {"steps": 40, "rates": 3, "seeds": 2, "digits_steps": 40}


def test_adagrads_sum_never_falls_and_rmsprops_average_does():
    found = claims.measure("adagrad-rate-decays", **RATE)
    assert found.outcome.held["falls"]
    assert found.outcome.numbers["share of steps at which RMSProp's average falls"][0] > 0.1


@pytest.mark.parametrize("mistake", ["no-memory", "mean-not-sum"])
def test_a_sum_that_forgets_is_seen_to_fall(mistake, monkeypatch):
    broken(monkeypatch, "adagrad", mistake)
    assert adagrad._share_of_falls("adagrad", "rosenbrock") > 0.1


def test_an_adagrad_that_climbs_is_seen_to_stall(monkeypatch):
    broken(monkeypatch, "adagrad", "ascent")
    found = claims.measure("adagrad-rate-decays", **{**RATE, "steps": 1000})
    assert found.outcome.held["valley"]
    assert found.outcome.numbers["… decades between them"][0] > 0


# --- forgetting ------------------------------------------------------------------------------------------------------

JUMP = {"seeds": 5, "rates": 9, "half": 500}


def test_rmsprop_settles_sooner_where_it_gets_flatter_and_not_where_it_gets_steeper():
    assert claims.measure("rmsprop-recent", **JUMP).outcome.held == {
        "flatter": True,
        "unwarned": True,
        "steeper": False,
    }


def test_an_rmsprop_that_sums_as_adagrad_does_settles_no_sooner(monkeypatch):
    monkeypatch.setitem(RULES, "rmsprop", RULES["adagrad"])
    assert not any(claims.measure("rmsprop-recent", **JUMP).outcome.held.values())


SPIKE = {"seeds": 5, "rates": 7, "digits_seeds": 2, "digits_steps": 5, "digits_rates": 2}


def test_a_spike_spoils_the_sum_and_not_the_averages():
    held = claims.measure("first-steps-extreme", **SPIKE).outcome.held
    assert held["sum"] and held["averages"]


def test_a_sum_that_forgets_is_not_spoilt_by_a_spike(monkeypatch):
    broken(monkeypatch, "adagrad", "no-memory")
    held = claims.measure("first-steps-extreme", **SPIKE).outcome.held
    assert held["sum"] is False


def test_an_average_that_does_not_forget_is_spoilt_by_a_spike(monkeypatch):
    broken(monkeypatch, "rmsprop", "no-forgetting")
    assert claims.measure("first-steps-extreme", **SPIKE).outcome.held["averages"] is False


def test_follow_is_the_trajectory_when_the_gradient_is_the_landscapes():
    start = torch.tensor([-2.0, 0.8], dtype=torch.float64)
    path = adagrad.follow("adam", lambda p, t: landscapes.gradient("quadratic", p), start, 10, lr=0.1)
    assert torch.equal(path, landscapes.trajectory("adam", "quadratic", start, steps=10, lr=0.1))


def test_three_valued_and():
    assert adagrad._all([True, None, False]) is False
    assert adagrad._all([True, None]) is None
    assert adagrad._all([True, True]) is True


# --- sparse data -----------------------------------------------------------------------------------------------------

SPARSE = {"rates": 2, "seeds": 2, "steps": 60}


def test_sgd_is_slower_on_sparse_words_than_a_method_with_rates_of_its_own():
    found = claims.measure("sgd-sparse")
    assert found.outcome.numbers["decades SGD needs more than adam, sparse-logistic"][0] > 0
    assert set(found.data["task"]) == {"sparse-logistic", "digits-mlp"}


def test_sgd_is_not_slower_than_an_adagrad_that_climbs(monkeypatch):
    broken(monkeypatch, "adagrad", "ascent")
    assert not claims.measure("sgd-sparse", **SPARSE).outcome.held["adagrad"]


def test_steps_to_a_target_are_read_off_between_two_points():
    course = pd.DataFrame(
        {
            "key": np.repeat(["falls", "fails", "begins there"], 3),
            "step": [0, 10, 20] * 3,
            "value": [10.0, 1.0, 0.01, 2.0, 2.0, 1.0, 0.05, 0.2, 0.2],
        }
    )
    runs = SimpleNamespace(curves=lambda metric: course)
    assert adagrad.steps_to(runs, 0.1) == {"falls": pytest.approx(15), "fails": 21, "begins there": 0}
