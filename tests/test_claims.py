"""The claims: their verdicts are computed, turn when the method is changed, and are recorded with their code's hash."""

import inspect
import json
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from stepsize import claims, cli, stats
from stepsize.claims import CLAIMS, Claim, Outcome, Result, base, measure
from stepsize.fingerprint import function_hash
from stepsize.rules import RULES
from stepsize.tasks import TASKS

MADE = {"torch": "2", "python": "3", "device": "cpu", "date": "2026-01-01"}


def result(data: Any = None, **held: bool | None) -> Result:
    def experiment() -> Outcome:
        numbers = {"a < b": (1.0, 0.5, 1.5), "exact": (2.0, math.nan, math.nan)}
        return Outcome(held=held, numbers=numbers, n=3, budget="none", data=data)

    return Result(Claim("id", "course", "says", {key: f"<{key}>" for key in held}, experiment), experiment(), 0.0, MADE)


def test_all_conditions_replicate_some_are_partly_and_none_fails():
    assert result(a=True, b=True).verdict == "replicates"
    assert result(a=True, b=False).verdict == "partly"
    assert result(a=False, b=False).verdict == "fails here"


def test_what_the_runs_do_not_decide_needs_scale_unless_something_held():
    assert result(a=None, b=None).verdict == result(a=None, b=False, c=None).verdict == "needs scale"
    assert result(a=None, b=False).verdict == "fails here"
    assert result(a=None, b=True).verdict == "partly"
    assert "? not decided" in result(a=None)._repr_html_() and "  ?   <a>" in result(a=None).checks


def test_a_result_prints_its_interval_only_where_there_is_one():
    text = repr(result(a=True))
    assert "a < b: 1 [0.5, 1.5]" in text
    assert "exact: 2\n" in text


def test_a_result_is_safe_html():
    page = result(a=False)._repr_html_()
    assert "&lt;a&gt;" in page and "a &lt; b" in page and "<a>" not in page


def test_an_unknown_claim_is_met_with_the_nearest_one():
    with pytest.raises(KeyError, match="did you mean 'nag-equivalence'"):
        measure("nag-equivalance")


def test_two_forms_of_nesterov_are_one_method():
    assert measure("nag-equivalence").verdict == "replicates"


# Decay is off in that experiment, so what is wrong about decay stays hidden.
MISTAKES = [d.name for d in RULES["nag"].deviations.values() if d.kind == "mistake" and "decay" not in d.name]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_nag_equivalence_fails_for_a_mistaken_nag(mistake, monkeypatch):
    monkeypatch.setitem(RULES, "nag", RULES["nag"].deviations[mistake].rule)
    assert not measure("nag-equivalence").outcome.held["shifted"]


def test_forms_of_momentum_part_only_when_the_rate_changes():
    found = measure("sgdm-two-forms")
    assert found.outcome.held == {"constant": True, "dropped": False}
    assert found.outcome.numbers["largest distance after the drop"][0] > 0.1


def test_momentum_escapes_and_without_it_nothing_does(monkeypatch):
    few = {"starts": 40, "rates": 5}
    assert measure("momentum-escapes", **few).outcome.held["equal rate"]
    monkeypatch.setitem(RULES, "sgdm", RULES["sgdm"].deviations["no-momentum"].rule)
    assert not measure("momentum-escapes", **few).outcome.held["equal rate"]


def test_a_large_rate_is_bad_and_the_best_is_inside_with_a_small_budget():
    found = measure("sgd-lr-dilemma", rates=6, seeds=2, steps=100)
    assert found.outcome.held["bad"] and found.outcome.held["inside"]
    assert found.outcome.n == 2


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_every_claim_states_its_conditions_before_the_run(claim):
    assert claim.source in {"novograd", "abstracts", "adabound", "course"}
    assert claim.conditions and all(text and not text.endswith(".") for text in claim.conditions.values())
    assert claim.experiment.__doc__
    assert claim.recorded.keys() <= inspect.signature(claim.experiment).parameters.keys()
    assert 1 <= claim.chapter <= 23
    assert claims.CLAIMS[claim.id] is claim


class TestRecord:
    @pytest.fixture
    def kept(self, monkeypatch, tmp_path):
        """A result in the registry, and the folder of its record."""
        frames = {"rates": pd.DataFrame({"lr": [0.1, 1.0]}), "steps": pd.DataFrame({"step": [1]})}
        made = result(frames, a=True, b=None)
        monkeypatch.setitem(CLAIMS, "id", made.claim)
        claims.keep(made, tmp_path)
        return made, tmp_path

    def test_what_is_kept_is_read_back(self, kept):
        made, where = kept
        found = claims.recorded("id", where)
        assert found.outcome.held == made.outcome.held and found.verdict == made.verdict
        assert {k: [repr(x) for x in v] for k, v in found.outcome.numbers.items()} == {
            k: [repr(x) for x in v] for k, v in made.outcome.numbers.items()
        }
        pd.testing.assert_frame_equal(found.data["rates"], made.data["rates"])
        assert found.is_record and not found.stale
        assert "recorded 2026-01-01 by `stepsize claims id`" in repr(found)
        assert claims.state("id", where) == "recorded"

    def test_one_frame_is_read_back_as_itself(self, monkeypatch, tmp_path):
        made = result(pd.DataFrame({"lr": [0.1]}), a=True)
        monkeypatch.setitem(CLAIMS, "id", made.claim)
        claims.keep(made, tmp_path)
        assert claims.recorded("id", tmp_path).data["lr"].tolist() == [0.1]

    def test_a_record_whose_budget_or_conditions_text_changed_is_stale(self, kept, monkeypatch):
        made, where = kept
        monkeypatch.setitem(CLAIMS, "id", replace(made.claim, recorded={"seeds": 10}))
        assert claims.recorded("id", where).stale and "Stale" in repr(claims.recorded("id", where))
        monkeypatch.setitem(CLAIMS, "id", replace(made.claim, conditions={"a": "other", "b": "<b>"}))
        assert claims.state("id", where) == "stale"

    def test_a_record_made_with_another_budget_is_stale(self, monkeypatch, tmp_path):
        made = result(a=True)
        monkeypatch.setitem(CLAIMS, "id", made.claim)
        claims.keep(replace(made, given={"seeds": 2}), tmp_path)
        assert claims.state("id", tmp_path) == "stale"

    def test_a_record_of_other_conditions_is_refused_with_its_mend(self, kept, monkeypatch):
        made, where = kept
        monkeypatch.setitem(CLAIMS, "id", replace(made.claim, conditions={"c": "new"}))
        with pytest.raises(ValueError, match="other conditions: `stepsize claims id` renews it"):
            claims.recorded("id", where)
        assert claims.state("id", where) == "stale"

    def test_a_claim_without_a_record_says_how_to_make_one(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="`stepsize claims sgd-lr-dilemma` makes one"):
            claims.recorded("sgd-lr-dilemma", tmp_path)
        assert claims.state("sgd-lr-dilemma", tmp_path) == "not recorded"

    def test_the_hash_follows_the_rules_and_tasks_that_an_experiment_names(self, monkeypatch):
        def experiment() -> str:
            return "sgdm"

        def other() -> str:
            return "sgd"

        assert function_hash(experiment) != function_hash(other)
        before = CLAIMS["sgd-lr-dilemma"].code
        assert before == CLAIMS["sgd-lr-dilemma"].code
        monkeypatch.setitem(TASKS, "digits-mlp", TASKS["digits-resnet"])
        assert CLAIMS["sgd-lr-dilemma"].code != before

    def test_the_hash_follows_the_helpers_and_constants_of_an_experiment(self, monkeypatch):
        def experiment() -> Any:
            return base.tuned

        before = function_hash(experiment)
        monkeypatch.setattr(base, "STEPS", {"numbers-transformer": 7})
        assert function_hash(experiment) != before


class TestCommand:
    def run(self, text: str, capsys) -> tuple[int, str, str]:
        code = cli.main(["claims", *text.split()])
        return code, *capsys.readouterr()

    @pytest.fixture
    def small(self, monkeypatch):
        """Two claims alone, the first one with a sweep."""
        dilemma = replace(CLAIMS["sgd-lr-dilemma"], recorded={"rates": 3, "seeds": 2, "steps": 10})
        both = {"sgd-lr-dilemma": dilemma, "nag-equivalence": CLAIMS["nag-equivalence"]}
        monkeypatch.setattr(base, "CLAIMS", both)
        monkeypatch.setattr(claims, "CLAIMS", both)

    def test_all_are_measured_and_recorded_and_the_second_call_does_none_again(self, small, tmp_path, capsys):
        call = f"--store {tmp_path / 'c.db'} --results {tmp_path / 'r'} --workers 1"
        code, output, _ = self.run(call, capsys)
        assert code == 0 and "0 of 2 claims have a fresh record; 2 to measure" in output
        assert json.loads((tmp_path / "r" / "nag-equivalence.json").read_text())["verdict"] == "replicates"
        told = json.loads((tmp_path / "r" / "sgd-lr-dilemma.json").read_text())
        assert told["n"] == 2 and "10 steps" in told["budget"] and told["made"]["torch"]
        code, output, _ = self.run(call, capsys)
        assert code == 0 and "2 of 2 claims have a fresh record; 0 to measure" in output

    def test_runs_that_the_store_holds_are_not_done_again(self, small, tmp_path, capsys, monkeypatch):
        call = f"sgd-lr-dilemma --store {tmp_path / 'c.db'} --results {tmp_path / 'r'} --workers 1"
        assert self.run(call, capsys)[0] == 0
        monkeypatch.setattr("stepsize.sweep.train", lambda *args: pytest.fail("trained again"))
        assert self.run(call, capsys)[0] == 0

    def test_quick_writes_nothing(self, small, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, output, _ = self.run("nag-equivalence --quick", capsys)
        assert code == 0 and "replicates" in output and not list(tmp_path.iterdir())

    def test_an_unknown_claim_exits_2_with_the_nearest(self, capsys):
        code, _, error = self.run("nag-equivalance", capsys)
        assert code == 2 and "did you mean 'nag-equivalence'" in error and error.count("\n") == 1


def test_a_gain_is_positive_for_the_better_one_whichever_way_the_metric_points():
    runs = base.train("digits-mlp", {"sgd": {"lr": [1e-4]}, "sgdm": {"lr": [0.1]}}, seeds=2, steps=50)
    assert base.gain(runs, "sgdm", "sgd").mean > 0 > base.gain(runs, "sgd", "sgdm").mean


def test_what_an_interval_decides():
    assert base.decided(stats.Interval(1, 0.5, 1.5, 3)) is True
    assert base.decided(stats.Interval(-1, -1.5, -0.5, 3)) is False
    assert base.decided(stats.Interval(1, -0.5, 1.5, 3)) is None
    assert base.decided(stats.Interval(-1, -1.5, 0.5, 3), above=-2) is True


def test_an_experiment_that_forgets_a_condition_is_told(monkeypatch):
    monkeypatch.setitem(CLAIMS, "id", replace(result(a=True).claim, conditions={"a": "x", "b": "y"}))
    with pytest.raises(RuntimeError, match=r"decides \['a'\], not \['a', 'b'\]"):
        measure("id")
