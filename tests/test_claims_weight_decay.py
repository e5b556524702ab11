"""The claim on weight decay: decided by its page's budget, and turned by a broken rule or another map."""

import math

import numpy as np
import pandas as pd
import pytest
from stepsize import claims, stats
from stepsize.claims import weight_decay
from stepsize.rules import RULES

RATES, DECAYS = np.geomspace(0.003, 0.1, 4), np.geomspace(1e-5, 1e-1, 9)


def bowl(slope: float, seeds: int = 3) -> pd.DataFrame:
    """Losses lowest where the decay is 1e-3 * (rate / 0.02) ** slope, a little to the left for later seeds."""
    rows = [
        (lr, decay, seed, 1 + 0.01 * (math.log10(decay / 1e-3) - slope * math.log10(lr / 0.02) + 0.01 * seed) ** 2)
        for lr in RATES
        for decay in DECAYS
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["lr", "weight_decay", "seed", "val_loss"])


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.7])
def test_the_axis_of_a_bowl_has_the_slope_it_was_made_with(slope):
    found = weight_decay.axis(bowl(slope))
    assert found.mean == pytest.approx(slope, abs=1e-6) and found.low <= found.mean <= found.high


def test_a_diagonal_map_is_tilted_and_an_upright_one_is_not():
    assert weight_decay.outside(weight_decay.axis(bowl(-1.0))) is True
    assert weight_decay.outside(weight_decay.axis(bowl(0.0))) is False


def test_an_interval_on_both_sides_of_the_bound_or_none_at_all_decides_nothing():
    assert weight_decay.outside(stats.Interval(0.5, 0.2, 0.8, 5)) is None
    assert weight_decay.outside(weight_decay.axis(bowl(-1.0, seeds=1))) is None


def test_rates_whose_best_decay_may_lie_beyond_the_grid_are_left_out():
    table = bowl(0.0)
    table.loc[table["lr"] == RATES[0], "val_loss"] = 1 + table["weight_decay"]
    table.loc[table["lr"] == RATES[1], "val_loss"] += 1
    assert weight_decay.best_decays(table).index.tolist() == RATES[2:].tolist()


def test_the_page_budget_decides_what_is_exact():
    found = claims.measure("adamw-decoupled", rates=2, decays=3, seeds=2, steps=20)
    assert found.outcome.held["unequal"] is True and found.outcome.held["equal"] is True
    assert len(found.data) == 2 * 2 * 4 * 2
    share = found.outcome.numbers["share lost to decay, adam, gradients of 1"][0]
    assert share == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("mistake", ["decay-through-the-averages", "decay-divided"])
def test_decay_is_not_equal_where_it_is_not_decoupled(mistake, monkeypatch):
    monkeypatch.setitem(RULES, "adamw", RULES["adamw"].deviations[mistake].rule)
    large, small = (1 - float(weight_decay.left("adamw", size, 1e-5, steps=200)[-1]) for size in (1.0, 0.01))
    assert large < 0.1 * small


def test_adam_with_decay_beside_the_step_is_no_longer_unequal(monkeypatch):
    monkeypatch.setitem(RULES, "adam", RULES["adam"].deviations["decay-after"].rule)
    large, small = (1 - float(weight_decay.left("adam", size, 1e-3, steps=200)[-1]) for size in (1.0, 0.01))
    assert large == pytest.approx(small, rel=1e-3)
