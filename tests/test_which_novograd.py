"""Every NovoGrad that was run for real takes the steps of the deviation that is said to explain it."""

import pytest
from stepsize import report
from stepsize.rules import RULES

RECORD = report.outside()
# They computed in float32, and a step is the difference of two parameters.
ROUNDING = 1e-4


def departure(variant: str, moves: list[list[float]], decay: float) -> float:
    return report.departures(RECORD, variant, {decay: moves})


@pytest.mark.parametrize("told", RECORD["implementations"], ids=lambda told: f"{told['name']} {told['version']}")
def test_each_implementation_takes_the_steps_of_its_deviation_and_of_no_other_kind(told):
    for decay, moves in told["moves"].items():
        assert len(moves) == 10
        assert departure(f"novograd:{told['variant']}", moves, float(decay)) < ROUNDING
        assert departure("novograd:apex", moves, float(decay)) > 100 * ROUNDING


def test_those_that_differ_from_the_paper_are_told_apart():
    plain = {told["variant"] for told in RECORD["implementations"] if _like_paper(told)}
    assert plain == {"timm", "pytorch-optimizer"}


def _like_paper(told: dict) -> bool:
    return departure("novograd", told["moves"]["0"], 0.0) < ROUNDING


def test_what_was_not_run_is_a_deviation_too():
    run = {told["variant"] for told in RECORD["implementations"]}
    library = {d.name for d in RULES["novograd"].deviations.values() if d.kind == "library"}
    assert library - run == {"openseq2seq", "tf-addons", "apex"}
