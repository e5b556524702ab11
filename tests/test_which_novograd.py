"""Every NovoGrad that was run for real takes the steps of the deviation that is said to explain it."""

import json
from pathlib import Path

import pytest
import torch
from stepsize.rules import RULES, find

RECORD = json.loads((Path(__file__).parents[1] / "book" / "results" / "which-novograd.json").read_text())
# They computed in float32, and a step is the difference of two parameters.
ROUNDING = 1e-4


def departure(variant: str, moves: list[list[float]], decay: float) -> float:
    """The largest distance between a recorded step and the rule's, as a share of the rule's step."""
    rule = find(variant)
    p = torch.tensor(RECORD["start"], dtype=torch.float64)
    state, worst = rule.init(p), 0.0
    for t, (g, move) in enumerate(zip(RECORD["gradients"], moves, strict=True), start=1):
        new, *state = rule(p, torch.tensor(g, dtype=torch.float64), t, *state, lr=RECORD["lr"], weight_decay=decay)
        ours, theirs = new - p, torch.tensor(move, dtype=torch.float64)
        worst, p = max(worst, float((ours - theirs).norm() / ours.norm())), new
    return worst


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
