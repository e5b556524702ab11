"""How fast a gradient goes here, measured: how many runs to train at once, and how long all will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from ..tasks.base import Task, Tensors
from .native import Native
from .sweep import one_thread

# The least time of so many counts, each after the first call of all, which may compile.
TIMES = 3
# Runs at once, to begin with; then twice as many, unless each costs so many times as much then.
FIRST, LOSS = 4, 1.05


@dataclass(frozen=True)
class Pace:
    """The best number of runs at once, and the seconds of a processor that a step of one run takes then."""

    size: int
    seconds: float


def run_steps(most: int) -> int:
    """How many steps of a run :func:`measure` takes at most."""
    return (TIMES + 1) * 2 * most


def measure(task: Task, native: bool, most: int) -> Pace:
    """Time the gradients of up to ``most`` runs at once, where they are not made one after another in any case."""
    with one_thread():
        size = 1 if not task.batched and not native else min(FIRST, most)
        seconds = _seconds(_work(task, native, size)) / size
        best = Pace(most if size == 1 else size, seconds)
        while 1 < size < most:
            size = min(2 * size, most)
            seconds = _seconds(_work(task, native, size)) / size
            if seconds > LOSS * best.seconds:
                break
            best = Pace(size, seconds)
    return best


def _work(task: Task, native: bool, runs: int) -> Callable[[], Any]:
    """The gradient of so many runs."""
    watched = cast(Task, Native(task)) if native else task
    params, carry = _repeated(task.init(0), runs), _repeated(task.carry(), runs)
    batch = tuple(x.expand(runs, *x.shape).contiguous() for x in next(task.batches(0)))
    return lambda: watched.gradient(params, batch, carry)


def _repeated(tensors: Tensors, runs: int) -> Tensors:
    return {name: x.expand(runs, *x.shape).contiguous() for name, x in tensors.items()}


def _seconds(work: Callable[[], Any]) -> float:
    """Of this thread alone: what else the machine has to do does not count."""
    times = [time.thread_time()]
    for _ in range(TIMES + 1):
        work()
        times.append(time.thread_time())
    return min(later - before for before, later in pairwise(times[1:]))
