"""The claims on AdaBound, AMSBound and SWATS: every condition is decided, and the verdicts turn with the method."""

import math

import numpy as np
import pytest
import torch
from stepsize import stats, tasks
from stepsize.claims import CLAIMS, adabound, measure
from stepsize.optim import SWATS
from stepsize.rules import RULES
from stepsize.wrappers import swats as swats_module

# A training that leaves the ground at once, so that any other beats it.
BROKEN = "ascent"
BUDGETS = {
    "extreme-rates": {"seeds": 2, "steps": 2},
    "adabound-adam-to-sgd": {"seeds": 2, "gamma": 0.1},
    "adabound-ffn": {"rates": 1, "seeds": 2, "steps": 20},
    "adabound-cnn": {"steps": 1},
    "adabound-lstm": {"steps": 1, "layers": (1,)},
    "adabound-robust": {"steps": 20},
    "adabound-final-lr": {"budgets": {"digits-mlp": {"seeds": 2, "steps": 20}}},
    "adabound-seeds": {"rates": 1, "seeds": 2, "episodes": 1, "steps": 20},
    "adabound-rl": {"steps": 1},
    "adabound-small-data": {"rates": 1, "steps": 20},
    "amsbound": {"rates": 1, "seeds": 2, "steps": 20},
    "swats": {"steps": 20},
}


def held(claim_id, **budget):
    return measure(claim_id, **{**BUDGETS[claim_id], **budget}).outcome.held


def test_there_is_a_budget_for_every_claim_of_the_chapter():
    assert BUDGETS.keys() == {claim.id for claim in CLAIMS.values() if claim.chapter == 12}


@pytest.mark.parametrize("claim_id", BUDGETS)
def test_a_claim_decides_every_condition_and_gives_its_numbers(claim_id):
    found = measure(claim_id, **BUDGETS[claim_id])
    assert found.outcome.held.keys() == found.claim.conditions.keys()
    assert set(found.outcome.held.values()) <= {True, False, None}
    assert found.outcome.numbers and found.data is not None
    for value, low, high in found.outcome.numbers.values():
        assert math.isnan(low) or low <= value <= high


def test_effective_rate_is_what_the_rule_multiplies_the_average_gradient_by():
    # 0.01 / 2, where no bound holds it; 0.1 (1 + 1 / 0.1) and 0.1 (1 - 1 / 1.1) at step 100 where one does.
    late = 10**9
    assert adabound.effective_rate("adam", late, [4.0], lr=0.01, eps=0.0).item() == pytest.approx(0.005, rel=1e-9)
    assert adabound.effective_rate("adabound", 100, [0.0]).item() == pytest.approx(1.1, rel=1e-9)
    assert adabound.effective_rate("adabound", 100, [1e30]).item() == pytest.approx(0.1 / 11, rel=1e-9)


def test_a_run_that_is_watched_is_the_run_of_a_sweep():
    (*_, (_, params, _, _)) = adabound.walk("digits-mlp", "adam", 0, 20, lr=1e-3)
    ends = tasks.find("digits-mlp").evaluate({name: p.detach() for name, p in params.items()})
    runs = adabound.train("digits-mlp", {"adam": {"lr": [1e-3]}}, seeds=1, steps=20)
    assert float(ends["train_loss"]) == pytest.approx(runs.frame()["final_train_loss"][0], rel=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "mark"),
    [(-0.5, 0.5, True), (1.5, 2, False), (-2, -1.5, False), (0.5, 1.5, None), (-2, 2, None)],
)
def test_within_decides_only_where_the_whole_interval_does(low, high, mark):
    assert adabound.within(stats.Interval((low + high) / 2, low, high, 3), 1.0) is mark


def test_below_is_decided_for_the_other_side():
    marks = [adabound.below(stats.Interval(0, *ends, 3), 1.0) for ends in ((-1, 0.5), (0.5, 2), (1, 2))]
    assert marks == [True, None, False]


def test_rates_are_tiny_with_a_tiny_lr_and_huge_with_a_huge_one():
    assert held("extreme-rates", steps=1, lr=1e-15) == {
        "sampled tiny": True, "all tiny": True, "sampled huge": False, "all huge": False,
    }  # fmt: skip
    huge = held("extreme-rates", steps=1, lr=1e15)
    assert huge["sampled huge"] and huge["all huge"] and not huge["all tiny"]


def test_without_bounds_it_is_adam_for_ever(monkeypatch):
    monkeypatch.setitem(RULES, "adabound", RULES["adabound"].deviations["no-bounds"].rule)
    assert held("adabound-adam-to-sgd", seeds=3) == {"begins": True, "free": True, "ends": False, "continuous": True}


def test_with_bounds_that_stand_still_it_does_not_end_as_momentum(monkeypatch):
    assert held("adabound-adam-to-sgd", gamma=0.1)["ends"]
    monkeypatch.setitem(RULES, "adabound", RULES["adabound"].deviations["bounds-stand-still"].rule)
    assert not held("adabound-adam-to-sgd", gamma=0.1)["ends"]


@pytest.mark.parametrize(("broken", "mark"), [("adabound", False), ("adam", True)])
def test_adabound_beats_a_broken_adam_and_broken_it_beats_none(broken, mark, monkeypatch):
    monkeypatch.setitem(RULES, broken, RULES[broken].deviations[BROKEN].rule)
    assert held("adabound-ffn", seeds=3, steps=60) == {"test": mark, "train": mark}


@pytest.mark.parametrize("broken", ["adabound", "adam", "sgdm"])
def test_fast_early_turns_with_adam_and_best_late_with_momentum(broken, monkeypatch):
    real = adabound.tuned

    def on_digits(task, names, **budget):
        return real("digits-mlp", names, rates=3, seeds=3, steps=60)

    monkeypatch.setattr(adabound, "tuned", on_digits)
    monkeypatch.setitem(RULES, broken, RULES[broken].deviations[BROKEN].rule)
    marks = held("adabound-cnn")
    assert marks["digits-resnet early"] == marks["digits-densenet early"]
    if broken != "sgdm":
        assert marks["digits-resnet early"] is (broken == "adam")
    if broken != "adam":
        assert marks["digits-resnet late"] is (broken == "sgdm")


def test_language_models_turn_with_adam(monkeypatch):
    monkeypatch.setitem(RULES, "adam", RULES["adam"].deviations[BROKEN].rule)
    marks = held("adabound-lstm", layers=(1,), seeds=3, steps=4)
    assert marks == {"1 layer": True, "2 layers": None, "3 layers": None, "grows": False}


def test_a_method_that_ignores_lr_is_robust_to_it(monkeypatch):
    lrs = (1e-5, 1e-4, 1e-3, 1e-2)
    assert not held("adabound-robust", lrs=lrs)["lr"]
    # Its rate is the lower bound, always.
    monkeypatch.setitem(RULES, "adabound", RULES["adabound"].deviations["bounds-swapped"].rule)
    marks = held("adabound-robust", lrs=lrs)
    assert marks["lr"] and marks["wider"]


def test_final_lr_needs_tuning_where_it_is_all_there_is_and_not_where_it_is_ignored(monkeypatch):
    budgets = {"digits-mlp": {"seeds": 4, "steps": 60}}
    mistakes = RULES["adabound"].deviations
    monkeypatch.setitem(RULES, "adabound", mistakes["bounds-swapped"].rule)
    assert held("adabound-final-lr", budgets=budgets, finals=(0.001, 0.1, 10.0))["digits-mlp"] is True
    monkeypatch.setitem(RULES, "adabound", mistakes["bounds-around-lr"].rule)
    assert held("adabound-final-lr", budgets=budgets)["digits-mlp"] is False


def test_best_final_lr_moves_only_if_two_tasks_want_two_values():
    small = {"seeds": 2, "steps": 10}
    both = {"digits-mlp": small, "sparse-logistic": small}
    assert held("adabound-final-lr", budgets=both, finals=(0.1,))["moves"] is False


def test_wide_samples_spread_more_than_narrow_ones():
    narrow = np.random.default_rng(0).normal(size=20)
    assert adabound.decided(adabound._spread(10 * narrow, narrow)) is True
    assert adabound.decided(adabound._spread(narrow, 10 * narrow)) is False
    # Where the middle lies does not matter.
    assert adabound._spread(narrow + 5, narrow).mean == pytest.approx(0, abs=1e-12)


def test_seeds_matter_more_to_a_method_that_diverges_on_some(monkeypatch):
    real = adabound.values

    def shaken(runs, optimizer, metric):
        return real(runs, optimizer, metric) + (np.array([0, 1, -1, 0, 1, -1]) if optimizer == "adabound" else 0)

    assert held("adabound-seeds", seeds=6)["Adam"] is not True
    monkeypatch.setattr(adabound, "values", shaken)
    assert held("adabound-seeds", seeds=6)["Adam"] is True


def test_users_disagree_if_it_is_better_at_one_rate_and_worse_at_another(monkeypatch):
    assert adabound._somewhere([None, True, False]) is True
    assert adabound._somewhere([None, False]) is None
    assert adabound._somewhere([False, False]) is False
    monkeypatch.setitem(RULES, "adabound", RULES["adabound"].deviations[BROKEN].rule)
    assert held("adabound-rl", lrs=(0.1,), seeds=4, steps=6) == {"good": False, "not good": True}


def test_it_is_weak_on_little_data_when_it_climbs(monkeypatch):
    monkeypatch.setitem(RULES, "adabound", RULES["adabound"].deviations[BROKEN].rule)
    marks = held("adabound-small-data", sizes=(32, 128), seeds=3, steps=60)
    assert marks["Adam"] is True
    assert not [name for name in tasks.TASKS if name.startswith("digits-mlp-")]


def test_few_images_are_the_seeds_own_and_no_others():
    few = adabound.DigitsFew(48)
    drawn = [
        {int(i) for _, (places,) in zip(range(9), few.batches(seed), strict=False) for i in places} for seed in (0, 1)
    ]
    assert len(drawn[0]) == len(drawn[1]) == 48 and drawn[0] != drawn[1]
    whole = adabound.DigitsFew(1077)
    assert len(next(whole.batches(0))[0]) == whole.batch


def test_amsbound_does_not_perform_as_adabound_when_it_climbs(monkeypatch):
    monkeypatch.setitem(RULES, "amsbound", RULES["amsbound"].deviations[BROKEN].rule)
    assert held("amsbound", seeds=3, steps=60)["digits-mlp"] is False


def test_swats_switches_if_every_rate_will_do_and_not_if_none_will(monkeypatch):
    assert held("swats")["switches"] is False
    monkeypatch.setattr(swats_module, "_tolerance", lambda group, rate: math.inf)
    marks = held("swats")
    assert marks["switches"] is True and marks["once"] is True
    monkeypatch.setattr(swats_module, "_tolerance", lambda group, rate: 0.0)
    marks = held("swats")
    assert marks["switches"] is False and marks["once"] is None and marks["pays"] is None


def test_a_swats_that_goes_back_is_noticed(monkeypatch):
    asked = []
    monkeypatch.setattr(SWATS, "switched_at", property(lambda self: asked.append(1) or (len(asked) % 2 or None)))
    assert held("swats", steps=5)["once"] is False


def test_watched_rates_do_not_move_what_is_watched():
    v = torch.ones(3, dtype=torch.float64)
    adabound.effective_rate("adabound", 5, v)
    assert (v == 1).all()
