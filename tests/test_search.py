"""Tests of what is tried: settings drawn at random, and the search for a rate."""

import math

import pytest
from scipy.stats import loguniform
from stepsize import sweep
from stepsize.search import COURSE, grid, next_rates

TASK = "digits-mlp"


def search(loss, default, budget):
    """The rates tried, and what :func:`next_rates` makes of a known loss."""
    tried = {}
    while more := next_rates(tried, default, budget - len(tried)):
        tried |= {rate: loss(rate) for rate in more}
    return tried


class TestRates:
    @pytest.mark.parametrize("best", [3e-6, 2e-3, 0.05, 40.0])
    def test_search_closes_in_on_the_best_from_a_default_far_off(self, best):
        tried = search(lambda rate: abs(math.log10(rate / best)), default=1e-2, budget=14)
        found = min(tried, key=tried.get)
        assert abs(math.log10(found / best)) < 0.15
        assert min(tried) < best < max(tried)
        assert len(tried) == 14

    def test_first_are_the_default_and_a_decade_on_both_sides(self):
        assert next_rates({}, 0.01, 8) == [0.01, 0.001, 0.1]
        assert next_rates({}, 0.01, 1) == [0.01]

    def test_best_at_the_edge_is_followed_outwards(self):
        assert next_rates({0.001: 3.0, 0.01: 2.0, 0.1: 1.0}, 0.01, 8)[0] == 1.0
        assert next_rates({0.001: 1.0, 0.01: 2.0, 0.1: 3.0}, 0.01, 8)[0] == 0.0001

    def test_rate_that_diverged_is_an_end_and_no_best(self):
        assert next_rates({0.01: 1.0, 0.1: 0.5, 1.0: math.inf}, 0.01, 8) == [0.03162, 0.3162]

    def test_middle_of_equals_is_the_best(self):
        tried = {0.001: 9.0, 0.01: 1.0, 0.1: 1.0, 1.0: 1.0, 10.0: 9.0}
        assert next_rates(tried, 0.01, 8) == [0.03162, 0.3162]

    def test_when_the_best_is_surrounded_the_widest_gap_is_filled(self):
        tried = {0.001: 5.0, 0.08: 2.0, 0.1: 1.0, 0.12: 2.0, 1.0: 5.0}
        assert next_rates(tried, 0.1, 8) == [0.008944]

    @pytest.mark.parametrize("budget", [1, 5, 20, 60])
    def test_every_search_uses_its_whole_budget_and_tries_no_rate_twice(self, budget):
        for best in (1e-3, 0.012, 5.0):
            assert len(search(lambda rate: abs(math.log10(rate / best)), 0.01, budget)) == budget  # noqa: B023

    def test_nothing_is_tried_beyond_the_budget(self):
        assert next_rates({0.01: 1.0, 0.1: 0.5, 1.0: 2.0}, 0.01, 1) == [0.03162]
        assert next_rates({0.01: 1.0, 0.1: 0.5, 1.0: 2.0}, 0.01, 0) == []

    def test_sweep_gives_each_optimizer_the_same_budget_and_an_inner_best(self):
        runs = sweep(TASK, {"sgd": {"lr": "auto"}, "novograd": {"lr": "auto"}}, seeds=2, steps=60, budget=9)
        summary = runs.summary("test_error")
        assert summary["settings"].tolist() == [9, 9]
        assert not summary["grid_edge"].any()
        assert runs.done == len(runs) == 36

    def test_automatic_sweep_is_resumed_and_the_same(self, tmp_path):
        def once(path):
            return sweep(TASK, {"adam": {"lr": "auto"}}, seeds=1, steps=10, budget=5, store=path)

        first, again = once(tmp_path / "runs.db"), once(tmp_path / "runs.db")
        assert (first.done, again.done) == (5, 0)
        assert again.keys == first.keys


class TestDrawn:
    def test_settings_are_drawn_from_ranges_the_same_each_time(self):
        space = {"lr": loguniform(1e-4, 1), "betas": [(0.9, 0.999), (0.5, 0.9)], "schedule": ["constant", "cosine"]}
        settings = grid("adam", space, budget=30)
        assert settings == grid("adam", space, budget=30)
        assert len(settings) == 30
        rates = [s["lr"] for s in settings]
        assert 1e-4 <= min(rates) < 1e-2 < max(rates) <= 1
        assert {s["betas"] for s in settings} == {(0.9, 0.999), (0.5, 0.9)}
        assert {s["schedule"] for s in settings} == {"constant", "cosine"}

    def test_more_settings_begin_with_the_same_ones(self):
        space = {"lr": loguniform(1e-4, 1)}
        assert grid("adam", space, budget=3) == grid("adam", space, budget=8)[:3]

    def test_of_a_grid_larger_than_the_budget_so_many_are_drawn(self):
        space = {"lr": [1e-3, 1e-2, 1e-1], "momentum": [0.5, 0.9, 0.99]}
        assert len(grid("sgdm", space)) == 9
        drawn = grid("sgdm", space, budget=4)
        assert len(drawn) == 4 and all(setting in grid("sgdm", space) for setting in drawn)
        assert len(grid("sgdm", space, budget=20)) == 9

    def test_course_of_the_rate_is_part_of_a_setting(self):
        (setting,) = grid("sgd", {"lr": 0.1}, course={"schedule": "cosine", "warmup_steps": 7})
        assert (setting["schedule"], setting["warmup_steps"]) == ("cosine", 7)
        assert {**COURSE}.items() <= grid("sgd", {"lr": 0.1})[0].items()
