"""NovoGrads side by side: the steps of the library's variants, and how far recorded steps of others are from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import figures
from ..rules import RULES, Rule, find
from .answers import listed
from .notebook import FOLDER

# Two steps are the same if their distance is at most this share of their length: float32 gives less than a tenth of it.
SAME = 1e-3


def outside() -> dict[str, Any]:
    """What ``make which-novograd`` recorded of the NovoGrads that others ship."""
    record: dict[str, Any] = json.loads((FOLDER.parent / "results" / "which-novograd.json").read_text("utf-8"))
    return record


def moves(names: Sequence[str], record: Mapping[str, Any], lr: float, decay: float) -> dict[str, np.ndarray]:
    """The displacement of the record's layer at each of its gradients, ``(steps, n)``, for each of the rules."""
    given: dict[str, Any] = {"start": record["start"], "digits": 12, "lr": lr, "weight_decay": decay}
    table = figures.steps_table(names, record["gradients"], **given)
    return {name: np.array(table.loc[name].tolist()) for name in names}


def departs(steps: Mapping[float, Mapping[str, np.ndarray]], name: str) -> dict[str, str]:
    """From which step on a rule's are not those of ``"novograd"``, for each decay in ``steps``; else "same"."""
    found = {}
    for decay, moved in steps.items():
        paper, own = moved["novograd"], moved[name]
        far = np.linalg.norm(own - paper, axis=1) > SAME * np.linalg.norm(paper, axis=1)
        found[f"with decay {decay:g}" if decay else "without decay"] = (
            f"step {far.argmax() + 1}" if far.any() else "same"
        )
    return found


def told_apart(apart: Mapping[str, Mapping[str, str]]) -> str:
    """What :func:`departs` found for all of them, in words."""
    groups: dict[str, list[str]] = {}
    for name, found in apart.items():
        plain, *more = found.values()
        if plain == "step 1":
            what = "depart at the first step"
        elif plain != "same":
            what = "depart later"
        else:
            what = "take the same steps" if set(more) <= {"same"} else "depart only where there is decay"
        groups.setdefault(what, []).append(name.partition(":")[2] or name)
    order = ["take the same steps", "depart only where there is decay", "depart later", "depart at the first step"]
    told = [f"{len(groups[what])} {what} ({listed(groups[what])})" for what in order if what in groups]
    return f"Of {len(apart)} variants laid beside the paper's form at one rate, " + "; ".join(told) + "."


def defaults_apart(rule: Rule) -> str:
    """Those defaults of a variant that are not the paper's."""
    paper = RULES["novograd"].defaults
    other = {name: value for name, value in rule.defaults.items() if paper[name] != value}
    return ", ".join(f"{name}={value}" for name, value in other.items()) or "the same"


def departures(record: Mapping[str, Any], rule: str | Rule, moves: Mapping[str, Sequence[Sequence[float]]]) -> float:
    """How far recorded steps are from a rule's: the largest distance, as a share of the length of the rule's step.

    ``record`` is what ``tools/which_novograd.py`` wrote, ``moves`` those of one implementation: for each weight decay
    the displacement at each of the record's gradients.
    """
    method, worst = find(rule) if isinstance(rule, str) else rule, 0.0
    for decay, steps in moves.items():
        p = torch.tensor(record["start"], dtype=torch.float64)
        state: Sequence[Tensor] = method.init(p)
        for t, (g, move) in enumerate(zip(record["gradients"], steps, strict=True), start=1):
            given = {"lr": record["lr"], "weight_decay": float(decay)}
            new, *state = method(p, torch.tensor(g, dtype=torch.float64), t, *state, **given)
            ours, theirs = new - p, torch.tensor(move, dtype=torch.float64)
            worst, p = max(worst, float((ours - theirs).norm() / ours.norm())), new
    return worst
