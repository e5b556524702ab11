"""The claims on Adam and Nadam: each decides on a small budget, and its verdict turns when the method is changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from stepsize.claims import CLAIMS, adam, measure
from stepsize.rules import RULES, find


class MadeUp:
    """Runs with given courses of the training loss and of the errors: one rate, three seeds for each optimizer."""

    def __init__(self, losses, test_errors=None):
        self.courses = {"train_loss": losses, "test_error": test_errors or losses, "train_error": losses}
        self.rows = [(name, seed) for name in losses for seed in range(3)]

    def frame(self):
        return pd.DataFrame(
            {
                "task": "digits-mlp",
                "optimizer": name,
                "lr": 0.1,
                "seed": seed,
                "steps": 100,
                "final_train_loss": self.courses["train_loss"][name][-1],
                "diverged": False,
                "key": f"{name}{seed}",
            }
            for name, seed in self.rows
        )

    def curves(self, metric):
        return pd.concat(
            pd.DataFrame({"key": f"{name}{seed}", "step": np.linspace(0, 100, 11), "value": self._values(metric, name)})
            for name, seed in self.rows
        )

    def _values(self, metric, name):
        return np.asarray(self.courses[metric][name], dtype=float)

    def chosen(self, name, metric=None):
        frame = self.frame()
        return frame[frame["optimizer"] == name].reset_index(drop=True)


def falling(rate):
    return np.exp(-rate * np.linspace(0, 10, 11))


# --- the second moment ------------------------------------------------------------------------------------------


def test_memory_is_a_thousand_steps_by_weight_but_not_by_effect():
    found = measure("v-memory-1000")
    assert found.outcome.held == {"half-life": True, "mean age": True, "window": True, "effect": False}
    assert found.outcome.numbers["steps until half of a gradient's weight is gone"][0] == 693
    assert found.outcome.numbers["gradients in a plain average that is as steady"][0] == pytest.approx(1999, abs=1)


def test_memory_turns_with_beta2_and_with_a_rule_that_forgets(monkeypatch):
    assert not any(measure("v-memory-1000", steps=2000, beta2=0.9).outcome.held[key] for key in ("mean age", "window"))
    monkeypatch.setitem(RULES, "adam", RULES["adam"].deviations["weights-swapped"].rule)
    assert not measure("v-memory-1000", steps=2000).outcome.held["half-life"]


def test_divisors_are_what_the_rules_divide_by():
    gradients = torch.tensor([[3.0, 0.0], [4.0, 2.0]], dtype=torch.float64)
    divisors, averages = adam._divisors(RULES["adam"], gradients, beta2=0.5)
    assert torch.allclose(averages, torch.tensor([[4.5, 0.0], [10.25, 2.0]], dtype=torch.float64))
    assert torch.allclose(divisors[:, 0] ** 2, torch.tensor([9.0, 10.25 / 0.75], dtype=torch.float64))


def test_average_of_squares_falls_and_the_printed_maximum_does_not(monkeypatch):
    few = {"seeds": 1, "steps": 60}
    assert measure("ema-not-monotone", **few).verdict == "replicates"
    monkeypatch.setattr(adam, "find", lambda name: find("amsgrad:no-maximum" if name == "amsgrad" else name))
    assert not measure("ema-not-monotone", **few).outcome.held["printed"]


def test_average_of_squares_does_not_fall_when_gradients_grow(monkeypatch):
    growing = torch.arange(1.0, 31.0, dtype=torch.float64)[:, None] ** 2
    monkeypatch.setattr(adam, "_met_by_adam", lambda *_: growing)
    assert not measure("ema-not-monotone", seeds=1).outcome.held["falls"]


# --- Adam against SGD with momentum -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim_id", "budget"),
    [
        ("adam-fast", {"rates": 3, "seeds": 2}),
        ("adam-gap", {"rates": 3, "seeds": 2, "more": 2, "steps": 100}),
        ("adam-unstable", {"rates": 2, "seeds": 2, "more": 3}),
    ],
)
def test_comparison_runs_with_a_small_budget_and_leaves_other_tasks_open(claim_id, budget):
    found = measure(claim_id, **budget)
    assert found.outcome.held.keys() == CLAIMS[claim_id].conditions.keys()
    assert all(held is None for key, held in found.outcome.held.items() if key in (*adam.TASKS[1:], "elsewhere"))
    assert all(np.isfinite(number[0]) for number in found.outcome.numbers.values())


def test_adam_that_climbs_is_not_faster(monkeypatch):
    monkeypatch.setitem(RULES, "adam", RULES["adam"].deviations["ascent"].rule)
    found = measure("adam-fast", rates=2, seeds=2)
    assert found.outcome.numbers["digits-mlp: SGDM's steps over Adam's"][0] < 1


def test_speed_up_is_the_ratio_of_the_steps_to_one_loss():
    runs = MadeUp({"adam": falling(2.0), "sgdm": falling(1.0)})
    estimate = adam._speed_up(runs, "adam", "sgdm")
    assert adam._powers(estimate)[0] == pytest.approx(2.0, rel=1e-6) and estimate.low > 0
    assert adam._powers(adam._speed_up(runs, "sgdm", "adam"))[0] == pytest.approx(0.5, rel=1e-6)


def test_steps_to_a_loss_are_interpolated_and_may_never_come():
    course = np.array([[0.0, 10.0, 20.0], [1.0, 0.1, 0.01]])
    assert adam._steps_to(course, 0.1**1.5, never=99.0) == pytest.approx(15.0)
    assert adam._steps_to(course, 2.0, never=99.0) == 0.0
    assert adam._steps_to(course, 1e-3, never=99.0) == 99.0


def test_gap_is_taken_where_both_have_the_same_training_loss():
    # Both have a test error of twice the training loss; Adam trains twice as far in the same steps.
    losses = {"adam": falling(0.4), "sgdm": falling(0.2)}
    fair = MadeUp(losses, {name: 2 * values for name, values in losses.items()})
    ours, other, gap = adam._gap_at_equal_loss(fair, "adam", "sgdm")
    assert ours.mean == pytest.approx(other.mean) == pytest.approx(np.exp(-2.0)) and gap.mean == pytest.approx(0.0)
    worse = MadeUp(losses, {"adam": 3 * losses["adam"], "sgdm": 2 * losses["sgdm"]})
    assert adam._gap_at_equal_loss(worse, "adam", "sgdm")[2].low > 0


def test_spike_is_a_loss_three_times_the_median_before_it():
    losses = np.ones(100)
    losses[[30, 60]] = 3.0
    losses[90] = 2.9
    runs = MadeUp({"adam": falling(1.0)})
    runs.courses["batch_loss"] = {"adam": losses}
    runs.curves = lambda metric: pd.concat(
        pd.DataFrame({"key": f"adam{seed}", "step": np.arange(100), "value": losses}) for seed in range(3)
    )
    assert adam._spikes(runs, "adam") == [2.0, 2.0, 2.0]


def test_interval_of_the_ratio_of_deviations_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        estimate = adam._ratio_of_deviations(3.0 * random.standard_normal(12), random.standard_normal(12))
        inside += estimate.low < 3.0 < estimate.high
    assert 930 <= inside <= 970


# --- Nadam ------------------------------------------------------------------------------------------------------


def test_nadam_loses_on_tilted_bowls_unless_its_momentum_is_held(monkeypatch):
    few = {"tasks": (), "grid": 31, "starts": 8}
    held = measure("nadam-faster", **few).outcome.held
    assert not held["bowls"] and not held["momentum"] and held["look-ahead"]
    monkeypatch.setitem(adam.CONTESTANTS, "nadam", adam.CONTESTANTS["nadam:optax"])
    assert measure("nadam-faster", **few).outcome.held["bowls"]


def test_nadam_is_compared_on_a_task_with_a_small_budget():
    found = measure("nadam-faster", rates=2, seeds=2, grid=3, starts=1)
    assert found.outcome.held.keys() == CLAIMS["nadam-faster"].conditions.keys()
    assert "digits-mlp: how much better Nadam is, test error" in found.outcome.numbers
