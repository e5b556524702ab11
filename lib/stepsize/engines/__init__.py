"""Ways to apply a rule to parameters. None knows a rule's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..rules.base import Rule
from . import compiled, compiled_cuda, loop

ENGINES = ("auto", "loop", "compiled")
# "auto" compiles, which takes a fraction of a second, at once for this many numbers, and else after so many steps.
LARGE, LATE = 2**20, 100


def step(
    engine: str,
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    hyper: Mapping[str, Any],
    plans: dict[Any, Any] | None = None,
) -> None:
    """``loop.step``, or what does the same, as ``engine`` says; ``plans`` is as for ``compiled.step``."""
    if engine == "compiled" or (engine == "auto" and _pays(params, states)):
        compiled.step(rule, params, grads, states, hyper, plans)
    else:
        loop.step(rule, params, grads, states, hyper)


def choice(
    engine: str, rule: Rule, params: Sequence[Tensor], states: Sequence[Mapping[str, Any]], hyper: Mapping[str, Any]
) -> str:
    """Which engine the next step takes, as far as is known before it is tried: ``"loop"`` or ``"compiled"``."""
    fast = engine == "compiled" or (engine == "auto" and _pays(params, states))
    return "compiled" if fast and any(compiled.takes(rule, p, hyper) for p in params) else "loop"


def _pays(params: Sequence[Tensor], states: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ``"auto"`` compiles: it looks at nothing but sizes, the count of steps, and whether there is a compiler.

    So a run has the same bits when it is repeated, and when it is resumed.
    """
    if sum([p.numel() for p in params]) >= LARGE:
        return True
    # Where little is to be gained, want of a compiler is worth no warning.
    compiler = compiled_cuda if params and params[0].is_cuda else compiled
    return bool(states) and bool(states[0].get("step", 0) >= LATE) and compiler.available()
