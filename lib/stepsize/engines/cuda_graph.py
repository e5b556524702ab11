"""On a GPU: what is done at every step, recorded once and played back, so that Python launches no kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..rules.base import Rule
from ..tasks.base import Batch, Task, Tensors
from .sweep import Batched

# Calls before one is recorded: in them libraries choose their kernels and memory is found.
WARM = 3

Function = Callable[..., Sequence[Tensor]]


class Recorded:
    """A function of tensors that gives tensors, the same kernels at every call with the same shapes."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.calls: dict[Any, int] = {}
        self.records: dict[Any, tuple[list[Tensor], Sequence[Tensor], Callable[[], Any]]] = {}

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        key = tuple((x.shape, x.dtype) for x in inputs)
        self.calls[key] = self.calls.get(key, 0) + 1
        if _failed or self.calls[key] <= WARM:
            return self.function(*inputs)
        if key not in self.records:
            held = [x.clone() for x in inputs]
            try:
                self.records[key] = (held, *record(self.function, held))
            except RuntimeError as error:
                _failed.append(error)
                warnings.warn(f"a step cannot be recorded ({error}): it is launched", RuntimeWarning, stacklevel=2)
                return self.function(*inputs)
        held, outputs, play = self.records[key]
        for old, new in zip(held, inputs, strict=True):
            old.copy_(new)
        play()
        # The next time they will be overwritten.
        return [x.clone() for x in outputs]


_failed: list[RuntimeError] = []


def record(function: Function, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Callable[[], Any]]:
    """What ``function`` gives of ``inputs``, and what computes it anew, in the same places, of what they hold then."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)
    return outputs, graph.replay


class Replayed:
    """A task whose gradient is recorded."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.recorded: Recorded | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def gradient(self, params: Tensors, batch: Batch, carry: Tensors) -> tuple[Tensors, Tensor, Tensors]:
        """As that of the task."""
        first, last = len(params), len(params) + len(batch)

        def gradient(*inputs: Tensor) -> Sequence[Tensor]:
            old = dict(zip(carry, inputs[last:], strict=True))
            of = self.task.gradient(dict(zip(params, inputs[:first], strict=True)), inputs[first:last], old)
            return [*of[0].values(), of[1], *of[2].values()]

        self.recorded = self.recorded or Recorded(gradient)
        made = self.recorded(*params.values(), *batch, *carry.values())
        return (
            dict(zip(params, made[:first], strict=True)),
            made[first],
            dict(zip(carry, made[first + 1 :], strict=True)),
        )


class ReplayedMoves(Batched):
    """Many runs of one rule, mapped over them and recorded; what a step is told are tensors then, also its number."""

    def __init__(self, rule: Rule, hypers: Sequence[Mapping[str, Any]], params: Tensors) -> None:
        super().__init__(rule, hypers, params)
        self.recorded = Recorded(self._moved)

    @torch.no_grad()
    def move(self, params: Tensors, grads: Tensors, t: int, factors: Tensor | None) -> None:
        some = next(iter(params.values()))
        if factors is None:
            factors = torch.ones(len(some), dtype=torch.float64, device=some.device)
        number = torch.tensor(float(t), dtype=torch.float64, device=some.device)
        self.names = list(params)
        old = [s for name in self.names for s in self.states[name]]
        moved = iter(self.recorded(number, factors, *params.values(), *(grads[n] for n in self.names), *old))
        for name in self.names:
            params[name] = next(moved)
            self.states[name] = tuple(next(moved) for _ in self.states[name])

    def _moved(self, t: Tensor, factors: Tensor, *tensors: Tensor) -> Sequence[Tensor]:
        n = len(self.names)
        params, grads = (dict(zip(self.names, tensors[i : i + n], strict=True)) for i in (0, n))
        rest = iter(tensors[2 * n :])
        states = {name: tuple(next(rest) for _ in self.rule.state) for name in self.names}
        hyper = {**self.hyper, "lr": self.hyper["lr"] * factors}
        one: Callable[..., Any] = self._one
        moved = torch.func.vmap(one, in_dims=(None, 0, 0, 0, self.axes))(t, params, grads, states, hyper)
        return [x for name in self.names for x in moved[name]]

    def keep(self, runs: Tensor) -> None:
        super().keep(runs)
        # The hyper-parameters are others now, and were recorded with the rest.
        self.recorded = Recorded(self._moved)
