"""Tests of the statistics against closed forms, enumeration and simulation."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from stepsize import stats, sweep
from stepsize.runs import Runs
from stepsize.store import Store


def test_interval_is_students():
    values = [0.1, 0.4, 0.2, 0.35, 0.3]
    found = stats.interval(values)
    sem = scipy_stats.sem(values)
    low, high = scipy_stats.t.interval(0.95, 4, loc=np.mean(values), scale=sem)
    assert found == pytest.approx((np.mean(values), low, high, 5))


@pytest.mark.parametrize(("method", "least", "most"), [("t", 0.93, 0.97), ("bootstrap", 0.75, 0.90)])
def test_share_of_intervals_of_five_seeds_that_hold_the_truth(method, least, most):
    draws = np.random.default_rng(1).normal(size=(600, 5))
    holds = [found.low <= 0 <= found.high for found in (stats.interval(row, method=method, draws=500) for row in draws)]
    assert least < np.mean(holds) < most


def test_one_seed_has_no_interval():
    found = stats.interval([0.25])
    assert found.mean == 0.25 and found.n == 1
    assert math.isnan(found.low) and math.isnan(found.high)
    assert str(found) == "0.25 (n=1, no interval)"


def test_bootstrap_is_the_same_every_time():
    values = np.random.default_rng(0).normal(size=20)
    assert stats.interval(values, method="bootstrap") == stats.interval(values, method="bootstrap")


def test_interval_prints_in_the_format_asked_for():
    assert f"{stats.Interval(0.031, 0.02, 0.042, 5):.1%}" == "3.1% [2.0%, 4.2%] (n=5)"


def test_pairing_removes_what_seeds_share():
    luck = np.random.default_rng(0).normal(size=10)
    found = stats.paired_difference(luck + 0.1, luck)
    assert found.mean == pytest.approx(0.1)
    assert found.high - found.low < 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.interval([]), "values must be one or more numbers in a row"),
        (lambda: stats.interval([1, 2], level=95), r"level must be in \(0, 1\), got 95"),
        (lambda: stats.interval([1, 2], method="z"), "method must be 't' or 'bootstrap', got 'z'"),
        (lambda: stats.paired_difference([1, 2], [1]), "a and b must have one value for each seed"),
        (lambda: stats.best_of([1, 2], 3), "k must be from 1 to 2, the number of settings, got 3"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_chance_to_be_the_best_of_k_is_what_enumeration_gives():
    scores = [0.5, 0.1, 0.9, 0.3, 0.2]
    for k in range(1, 6):
        draws = list(itertools.combinations(range(5), k))
        counted = [sum(min(draw, key=lambda i: scores[i]) == setting for draw in draws) for setting in range(5)]
        assert stats.best_of(scores, k) == pytest.approx(np.array(counted) / len(draws))


def test_best_at_either_end_of_the_grid_is_at_its_edge():
    assert stats.grid_edge([0.1, 1, 0.01], 0.01)
    assert stats.grid_edge([0.1, 1, 0.01], 1)
    assert not stats.grid_edge([0.1, 1, 0.01], 0.1)


def basin(values, rates=(0.001, 0.01, 0.1, 1.0)):
    return pd.DataFrame({"lr": np.repeat(rates, 2), "loss": np.repeat(values, 2)})


def test_basin_width_of_a_v_is_where_its_sides_cross_the_limit():
    # Slope 1 a decade on both sides of the lowest value 1: 10 % above it is reached after 0.1 decades.
    assert stats.basin_width(basin([2.0, 1.0, 2.0, 3.0]), "loss", within=0.10) == pytest.approx(0.2)


def test_basin_ends_at_the_edge_of_the_grid():
    assert stats.basin_width(basin([1.0, 1.0, 1.0, 1.05]), "loss") == pytest.approx(3.0)


def test_basin_ends_at_a_rate_that_diverged():
    assert stats.basin_width(basin([1.0, 1.0, np.nan, 1.0]), "loss") == pytest.approx(1.0)


def test_basin_is_the_stretch_around_the_best_rate_alone():
    assert stats.basin_width(basin([1.01, 2.01, 1.0, 2.0]), "loss", within=0.10) == pytest.approx(0.1 / 1.01 + 0.1)


def test_basin_where_everything_diverged_has_no_width():
    assert math.isnan(stats.basin_width(basin([np.nan] * 4), "loss"))


def test_basin_of_a_metric_of_which_more_is_better_counts_from_above():
    frame = pd.DataFrame({"lr": [0.01, 0.1, 1.0, 10.0], "bleu": [50.0, 100.0, 80.0, 0.0]})
    assert stats.basin_width(frame, "bleu", within=0.1, larger=True) == pytest.approx(0.2 + 0.5)


class TestRunsWhereMoreIsBetter:
    """The same runs, once by their error and once as if it were a score."""

    @pytest.fixture(scope="class")
    @classmethod
    def pair(cls):
        settings = {"sgd": {"lr": [1e-3, 0.1, 0.3]}, "adam": {"lr": [1e-2, 1.0]}}
        runs = sweep("digits-mlp", settings, seeds=3, steps=60)
        mirrored = Store()
        for row in runs.store.rows(runs.keys):
            metrics = {name: 1 - x if name.endswith("error") else x for name, x in row["metrics"].items()}
            curves = {"train_loss": ([0], [1.0])}
            mirrored.add([row | {"metrics": metrics, "larger": ["val_error", "test_error"], "curves": curves}])
        return runs, Runs(mirrored, runs.keys)

    def test_choice_and_order_are_the_same(self, pair):
        errors, scores = (runs.settings("test_error") for runs in pair)
        assert scores["chosen"].tolist() == errors["chosen"].tolist()
        assert scores["rank"].tolist() == errors["rank"].tolist()
        assert scores["mean"].tolist() == pytest.approx((1 - errors["mean"]).tolist())
        one, other = (runs.summary("test_error") for runs in pair)
        assert one["optimizer"].tolist() == other["optimizer"].tolist()

    def test_answer_speaks_of_the_highest(self, pair):
        error, score = (runs.answer("test_error") for runs in pair)
        assert "has the lowest" in error and "how much higher theirs is" in error
        assert "has the highest" in score and "how much lower theirs is" in score
        assert error.split("**")[1] == score.split("**")[1]

    def test_more_budget_is_never_worse_and_the_last_is_the_chosen(self, pair):
        runs, _ = pair
        course = runs.against_budget("val_error")
        for name, group in course.groupby("optimizer"):
            assert (group["mean"].diff().dropna() <= 1e-12).all()
            chosen = runs.summary("val_error", budget="all").set_index("optimizer")
            assert group["mean"].iloc[-1] == pytest.approx(chosen["mean"][name])
        assert course["budget"].tolist() == [1, 2, 3, 1, 2]

    def test_bootstrap_interval_is_narrower_than_students(self, pair):
        runs, _ = pair
        student, bootstrap = runs.summary("test_error"), runs.summary("test_error", interval="bootstrap")
        assert (bootstrap["mean"] == student["mean"]).all()
        assert (bootstrap["high"] - bootstrap["low"] < student["high"] - student["low"]).all()
        with pytest.raises(ValueError, match="method must be 't' or 'bootstrap', got 'z'"):
            runs.summary("test_error", interval="z")

    def test_basin_of_the_chosen_setting_is_found(self, pair):
        runs, _ = pair
        frame = runs.frame()
        ours = stats.basin_width(frame[frame["optimizer"] == "sgd"], "final_test_error")
        assert runs.basin("sgd") == pytest.approx(ours)
        assert math.isnan(runs.basin("adam")), "two rates make no basin"
