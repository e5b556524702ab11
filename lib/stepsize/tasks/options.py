"""A task with something changed, by name: ``digits-mlp:batch=512,init=4``."""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import Any

from ..rules.base import suggestion
from . import base
from .base import Task, Tensors

# What of a task cannot be changed in a name: how it is trained, or what is told of it.
FIXED = {"seconds", "target", "batched", "divisible", "steps"}


def find(name: str) -> Task:
    """The task of that name, such as ``"digits-mlp"``, or with some of its numbers changed: ``"digits-mlp:batch=512"``.

    What can be changed are the numbers among the task's attributes, such as ``batch``, and ``init``, which
    multiplies the weights (all parameters but vectors) at the start. Start and order of the data are
    otherwise the plain task's.
    Raises ``KeyError`` for an unknown task, ``ValueError`` for what cannot be changed, or not to that.
    """
    plain, _, text = name.partition(":")
    task = base.find(plain)
    if not text:
        if ":" in name:
            raise ValueError(f"{name} ends in a colon: write NAME:option=value, such as digits-mlp:batch=512")
        return task
    return _changed(task, name, text)


@cache
def _changed(task: Task, name: str, text: str) -> Task:
    known = options(task)
    changed = copy.copy(task)
    changed.name = name
    # Else the name would change what chance draws, and no run could be paired with one of the plain task.
    changed.generator = task.generator  # type: ignore[method-assign]
    for part in text.split(","):
        option, _, value = part.partition("=")
        if option not in known:
            raise ValueError(
                f"{task.name} has no option {option!r}{suggestion(option, known)}; it has {', '.join(known)}"
            )
        kind = type(known[option])
        try:
            number = kind(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            what = "a whole number of 1 or more" if kind is int else "a number above 0"
            raise ValueError(f"{option} of {task.name} must be {what}, got {value!r}")
        if option == "init":
            changed.init = partial(_scaled, task, number)  # type: ignore[method-assign]
        else:
            setattr(changed, option, number)
    return changed


def options(task: Task) -> dict[str, Any]:
    """What :func:`find` can change of a task, with its values."""
    names = {name for cls in type(task).__mro__ for name in vars(cls) if not name.startswith("_")}
    values = {name: getattr(type(task), name) for name in sorted(names - FIXED)}
    return {"init": 1.0} | {name: value for name, value in values.items() if type(value) in (int, float)}


def _scaled(task: Task, factor: float, seed: int) -> Tensors:
    return {name: factor * p if p.ndim > 1 else p for name, p in task.init(seed).items()}
