"""The claims on schedules: decided by a small budget, and decided otherwise when a schedule is changed."""

import math

import pandas as pd
import pytest
from stepsize import schedules, stats
from stepsize.claims import measure
from stepsize.claims import schedules as experiments
from stepsize.schedules import SCHEDULES, RangeTest


def idle(step, total_steps, **options):
    """A plan that hardly moves."""
    return 1e-3


CYCLES = {"starts": 30, "rates": 3, "seeds": 2, "net_rates": 1, "steps": 40}
RESTARTS = {"rates": 2, "seeds": 2, "draws": 50, "steps": 50}
ONE_CYCLE = {"lengths": 2, "rates": 3, "seeds": 2, "shortest": 100, "longest": 150}
RANGE = {"optimizers": ("adam",), "rates": 2, "seeds": 2}


def test_cycles_that_are_constant_escape_no_better(monkeypatch):
    for name in experiments.CYCLES:
        monkeypatch.setitem(SCHEDULES, name, schedules.constant)
    found = measure("cyclical", **CYCLES)
    assert found.outcome.held["mean"] is False and found.outcome.held["best"] is False
    for name in experiments.CYCLES:
        assert found.outcome.numbers[f"double well, {name}: more than a constant"][0] == 0


def test_cycles_escape_better_than_what_hardly_moves(monkeypatch):
    for name in ("constant", "cosine"):
        monkeypatch.setitem(SCHEDULES, name, idle)
    found = measure("cyclical", **{**CYCLES, "rates": 4, "seeds": 4, "steps": 200})
    assert found.outcome.held["best"] and found.outcome.held["fall"]
    assert found.data["share"].between(0, 1).all()


def test_restarts_lose_in_the_noisy_valley_to_a_cosine_and_win_against_what_hardly_moves(monkeypatch):
    small = measure("sgdr", **{**RESTARTS, "steps": 100})
    assert small.outcome.held["valley"] is False
    assert small.outcome.held["language"] is None
    last = small.data[small.data["step"] == 100].pivot(index="seed", columns="plan", values="train_loss")
    assert (last["cosine, long"] == last["cosine, planned"]).all()
    monkeypatch.setitem(SCHEDULES, "cosine", idle)
    held = measure("sgdr", **RESTARTS).outcome.held
    assert held["valley"] and held["digits"] and held["planned"] and held["anytime"]


def test_one_cycle_is_not_fast_where_it_hardly_moves_and_fast_beside_what_does_not(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(SCHEDULES, "one_cycle", idle)
        held = measure("one-cycle", **ONE_CYCLE).outcome.held
        assert held["constant"] is False and held["cosine"] is False
    monkeypatch.setitem(SCHEDULES, "cosine", idle)
    assert measure("one-cycle", **ONE_CYCLE).outcome.held["cosine"]


def test_a_seed_counts_the_shortest_run_that_reaches_the_target_or_one_beyond():
    frame = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "steps": [10, 20, 40] * 2})
    frame["test_error"] = [0.5, 0.08, 0.1, 0.5, 0.4, 0.3]
    assert experiments._needed(frame, 0.08, 80) == [20, 80]


def test_a_range_test_finds_a_rate_for_the_digits_and_a_useless_one_is_told(monkeypatch):
    held = measure("lr-range-test", **RANGE).outcome.held
    assert held["digits-mlp"] is not False and held["docs-lstm"] is None
    monkeypatch.setattr(RangeTest, "steepest", property(lambda self: 1e-9))
    monkeypatch.setattr(RangeTest, "decade_below", property(lambda self: None))
    found = measure("lr-range-test", **RANGE)
    assert found.outcome.held["digits-mlp"] is False
    assert found.outcome.held["near"] is False and found.outcome.held["decade"] is False


def test_a_range_test_of_a_task_that_carries_its_memory():
    test = experiments.range_test("docs-lstm", "adam", steps=6, low=1e-4, high=1e-2)
    assert len(test.losses) == 6 and all(map(math.isfinite, test.losses))
    assert test.losses[-1] < test.losses[0]


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [([True, True], True), ([True, None], None), ([None, False], False), ([], None)],
)
def test_one_failure_decides_and_one_doubt_leaves_it_open(verdicts, together):
    assert experiments._all(verdicts) is together


@pytest.mark.parametrize(
    ("low", "high", "near"),
    [(-0.5, 0.5, True), (0.5, 1.5, None), (1.2, 1.5, False), (-2.0, -1.2, False), (math.nan, math.nan, False)],
)
def test_near_is_the_whole_interval_within_a_factor_of_three(low, high, near):
    assert experiments._within(stats.Interval((low + high) / 2, low, high, 4)) is near
