"""The claims on warm-up and RAdam: their conditions are decided, and turn when the method or the numbers do."""

import pandas as pd
import pytest
from stepsize import sweep
from stepsize.claims import find, measure
from stepsize.claims import warmup as experiments
from stepsize.rules import RULES

# A memory of 199 squares, so that it is full after few steps.
SHORT = {"beta2": 0.99, "steps": 1000, "draws": 4000}
SMALL = {"seeds": 3, "steps": 10, "still": 2, "length": 2, "chosen_seeds": 2}


def wrong_radam(monkeypatch, mistake):
    monkeypatch.setitem(RULES, "radam", RULES["radam"].deviations[mistake].rule)


def test_the_memory_is_as_derived_and_the_first_steps_of_the_rectifier_are_too_careful():
    found = measure("radam-memory", **{**SHORT, "draws": 20_000})
    assert found.outcome.held == {"grows": True, "follows": True, "first": False, "later": True}
    assert found.outcome.numbers["rho in the limit"][0] == pytest.approx(199)
    assert found.outcome.numbers["first step that is adapted"][0] == 5
    early = found.data.set_index("step").loc[5]
    assert early["rectifier"] < early["low"]


@pytest.mark.parametrize(
    ("mistake", "condition"),
    [
        ("rectifier-squared", "follows"),
        ("rectifier-squared", "later"),
        ("no-rectifier", "follows"),
        ("no-rectifier", "later"),
        ("rho-without-t", "follows"),
        ("rho-from-the-wrong-beta", "follows"),
        ("second-moment-uncorrected", "follows"),
        ("adapted-at-first", "follows"),
    ],
)
def test_the_claim_on_memory_turns_with_a_mistake_in_the_rule(mistake, condition, monkeypatch):
    wrong_radam(monkeypatch, mistake)
    assert not measure("radam-memory", **SHORT).outcome.held[condition]


def test_the_memory_does_not_grow_where_old_squares_fade_at_once(monkeypatch):
    wrong_radam(monkeypatch, "weights-swapped")
    assert not measure("radam-memory", **SHORT).outcome.held["grows"]


def test_without_warmup_adams_first_steps_move_the_gradients_farther():
    found = measure("adam-needs-warmup", **SMALL)
    assert found.outcome.held.keys() == find("adam-needs-warmup").conditions.keys()
    assert found.outcome.held["distorted"] is True
    histogram, course = found.data["histogram"], found.data["course"]
    assert histogram.groupby(["arm", "step"])["share"].sum().between(0.99, 1.0001).all()
    assert len(course) == 4 * 10 * 3 and (course[course["step"] == 1]["distance"] == 0).all()


def test_a_warmup_over_one_step_is_none_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(experiments, "WARMUP", 1)
    # Any runs will do where both sides of a comparison are the same.
    runs = sweep("digits-mlp", {"adam": {}}, seeds=2, steps=2, progress=False)
    monkeypatch.setattr(experiments, "tuned", lambda *_, **__: runs)
    found = measure("adam-needs-warmup", **SMALL)
    assert found.verdict == "fails here" and not any(found.outcome.held.values())
    few = measure("small-first-steps", steps=(1, 2), seeds=2, batches=2)
    assert few.outcome.held == {"variance": False, "relative": False}


def test_the_variance_over_batches_is_the_same_for_both_at_the_first_step():
    found = measure("small-first-steps", steps=(1, 5))
    assert found.outcome.held.keys() == find("small-first-steps").conditions.keys()
    first = found.data[found.data["step"] == 1].pivot(index="seed", columns="arm", values="variance")
    assert (first["adam"] == first["warm-up"]).all()
    assert found.outcome.numbers["… variance, at step 1"] == (0, 0, 0)


def made_up(radam):
    """What ``at_rates`` gives, made up for three seeds: the validation losses of the four arms at 0.01."""
    level = {"adam": 1.0, "warm-up": 0.1, "untuned": 0.5, "radam": radam}
    return pd.DataFrame(
        {"arm": arm, "lr": 0.01, "seed": seed, "diverged": False, "final_train_loss": loss, "final_test_bleu": 50.0,
         "final_val_loss": loss + 0.01 * seed}
        for arm, loss in level.items()
        for seed in range(3)
    )  # fmt: skip


@pytest.mark.parametrize(("radam", "held"), [(0.12, True), (0.98, False)])
def test_half_of_the_gap_decides_on_radam_at_one_rate(radam, held, monkeypatch):
    monkeypatch.setattr(experiments, "at_rates", lambda *_: made_up(radam))
    assert measure("radam-no-warmup", names=()).outcome.held["half"] is held


def test_radam_needs_no_warmup_on_digits_and_a_radam_that_climbs_fails(monkeypatch):
    # The transformer's part has tests of its own.
    monkeypatch.setattr(experiments, "at_rates", lambda *_: made_up(0.5))
    found = measure("radam-no-warmup")
    held = found.outcome.held
    assert held["digits-mlp"] is True and held["digits-resnet"] is None
    assert set(found.data["tuned"]["arm"]) == {"adam", "warm-up", "radam"}
    wrong_radam(monkeypatch, "ascent")
    assert measure("radam-no-warmup").outcome.held["digits-mlp"] is False


def test_the_arms_at_constant_rates_differ_in_rule_and_schedule_alone():
    ends = experiments.at_rates((0.01,), 1, 2, ("adam", "warm-up", "untuned", "radam")).set_index("arm")
    assert ends["optimizer"].to_dict() == {**dict.fromkeys(ends.index, "adam"), "radam": "radam"}
    assert ends["schedule"].to_dict() == {
        **dict.fromkeys(ends.index, "constant"),
        "untuned": "warmup(over=2000)",
    }
    assert ends["warmup_steps"].to_dict() == {**dict.fromkeys(ends.index, 0), "warm-up": 1}
    assert ends.loc["untuned", "final_train_loss"] > ends.loc["adam", "final_train_loss"]
