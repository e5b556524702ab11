"""The plain engine: one tensor after another, each through the rule. The others are held to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..rules.base import Rule

# Moments of a half-precision parameter are kept in float32: in bfloat16 a slow average stands still.
HALF = (torch.float16, torch.bfloat16)


def step(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    hyper: Mapping[str, Any],
) -> None:
    """Move each parameter and its state by one step of ``rule``, in place.

    ``states[i]["step"]`` is ``t`` and is counted here; a state that is empty is made. A hyper-parameter may be a
    tensor of one element.
    """
    # A tensor as 0-d, which leaves shapes alone, and as exact as a Python float.
    hyper = {name: x.reshape(()).double() if isinstance(x, Tensor) else x for name, x in hyper.items()}
    for p, g, state in zip(params, grads, states, strict=True):
        begin(rule, p, state)
        state["step"] += 1
        new_p, *new_state = rule(_wide(p), _wide(g), int(state["step"]), *(state[name] for name in rule.state), **hyper)
        p.copy_(new_p)
        for name, value in zip(rule.state, new_state, strict=True):
            state[name].copy_(value)


def begin(rule: Rule, p: Tensor, state: dict[str, Tensor]) -> None:
    """Make what ``state`` lacks: at the first step, or where momentum is switched on later."""
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32)
    if not rule.state.keys() <= state.keys():
        state.update(zip(rule.state, rule.init(_wide(p)), strict=True))


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALF else x
