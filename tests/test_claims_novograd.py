"""The claims on NovoGrad: each decides all its conditions, and its verdict turns when the method is broken."""

from __future__ import annotations

import numpy as np
import pytest
from stepsize.claims import CLAIMS, measure, novograd_tasks
from stepsize.rules import RULES

OF_A_TASK = ["novograd-vision", "novograd-speech", "novograd-lm", "novograd-qa", "novograd-translation"]


def broken(monkeypatch, mistake: str) -> None:
    monkeypatch.setitem(RULES, "novograd", RULES["novograd"].deviations[mistake].rule)


def test_half_the_memory_unless_the_second_moment_is_kept_per_weight(monkeypatch):
    found = measure("novograd-half-memory", nets=("digits-mlp",))
    assert found.verdict == "replicates" and set(found.data["optimizer"]) >= {"adam", "novograd"}
    # A first moment and two seconds per weight, as a per-element NovoGrad would hold them.
    monkeypatch.setitem(RULES, "novograd", RULES["amsgrad"])
    assert measure("novograd-half-memory", nets=("digits-mlp",)).verdict == "fails here"


def test_the_first_norm_is_a_start_without_bias_and_its_step_as_long_as_the_rate(monkeypatch):
    assert measure("novograd-init-moments").verdict == "replicates"
    monkeypatch.setitem(RULES["novograd"].deviations, "zero-start", RULES["novograd"].deviations["ascent"])
    assert not measure("novograd-init-moments").outcome.held["zero start"]


def test_the_first_step_of_a_mistaken_start_is_not_as_long_as_the_rate(monkeypatch):
    mistake = RULES["novograd"].deviations["bias-correction"]
    monkeypatch.setattr(mistake.rule, "deviations", RULES["novograd"].deviations, raising=False)
    monkeypatch.setitem(RULES, "novograd", mistake.rule)
    assert not measure("novograd-init-moments").outcome.held["first"]


def test_decay_inside_the_moment_acts_twenty_times_over():
    found = measure("novograd-decay")
    assert found.outcome.held["same"] is False
    inside = found.outcome.numbers["decay inside, as a multiple of the decay after"][0]
    assert inside == pytest.approx(20, rel=0.05)
    # Over more steps the time it takes to fill the moment counts for less, and the rescaled decay is the same.
    longer = measure("novograd-decay", steps=1000, lr=1e-4)
    assert longer.outcome.held["rescaled"] is True


@pytest.mark.parametrize("mistake", ["norm-not-squared", "no-root"])
def test_the_path_depends_on_the_scale_when_the_norm_is_mistaken(mistake, monkeypatch):
    assert measure("novograd-scale", steps=20).verdict == "replicates"
    broken(monkeypatch, mistake)
    assert measure("novograd-scale", steps=20).outcome.held["scale"] is False


def test_the_maximum_mends_the_periodic_counterexample_unless_it_is_forgotten(monkeypatch):
    small = {"steps": 200, "seeds": 2, "online_steps": 1000}
    assert measure("novograd-ams", **small).outcome.held["online"] is True
    broken(monkeypatch, "forgets-the-maximum")
    assert measure("novograd-ams", **small).outcome.held["online"] is False


def test_the_clip_is_measured_with_a_small_budget():
    found = measure("novograd-clip", rates=3, seeds=2, steps=30)
    fails = found.data.groupby(["clip", "lr"])["fails"].mean()
    # At a rate of 1000 weights without a clip are thrown away at once.
    assert fails["without", 1000.0] == 1 and fails["with", 1e-3] == fails["without", 1e-3] == 0


def test_a_comparison_on_a_task_shows_every_optimizer_with_and_without_warm_up():
    found = novograd_tasks.beside("digits-mlp", 0.01, rates=2, seeds=2, steps=20, warmups=(0.0, 0.1))
    assert set(found.held) == set(CLAIMS["novograd-vision"].conditions)
    assert len(found.data) == 8 and set(found.data["warmup"]) == {0.0, 0.1}


def test_a_margin_nobody_could_miss_is_on_par_and_one_nobody_could_reach_is_not():
    wide, narrow = (novograd_tasks.beside("digits-mlp", m, rates=2, seeds=2, steps=20) for m in (10.0, -10.0))
    assert all(wide.held.values()) and not any(narrow.held.values())


@pytest.mark.parametrize("claim_id", OF_A_TASK[:1])
def test_each_task_can_be_run_at_the_pages_budget(claim_id):
    assert measure(claim_id).outcome.n == 2


def test_the_five_tasks_are_those_of_the_paper():
    for claim_id in OF_A_TASK:
        assert CLAIMS[claim_id].recipe and CLAIMS[claim_id].recorded == novograd_tasks.TUNED


def test_what_is_missed_is_read_between_the_rates_and_whole_beyond_them():
    missed = novograd_tasks.at_rates({0.01: 0.5, 0.1: 0.1}, np.array([1e-3, 0.01, 10**-1.5, 0.1, 1.0]))
    np.testing.assert_allclose(missed, [1.0, 0.5, 0.3, 0.1, 1.0])


@pytest.mark.parametrize("claim_id", ["novograd-one-policy", "novograd-lr-robust", "novograd-init-robust"])
def test_robustness_is_measured_with_the_pages_budget(claim_id):
    found = measure(claim_id)
    assert set(found.outcome.held) == set(found.claim.conditions) and found.outcome.n == 2


def test_warm_up_is_measured_with_a_small_budget():
    found = measure("novograd-no-warmup")
    assert set(found.data) == {"losses", "rates"} and set(found.data["losses"]["warmup"]) == {0.0, 0.2}


def test_the_largest_batch_decides():
    found = measure("novograd-large-batch", epochs=1, rates=1)
    assert set(found.data["batch"]) == {128, 1077}
