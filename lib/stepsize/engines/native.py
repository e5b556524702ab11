"""The native engine: a task's gradient and measures as machine code too, made of what torch does for one run."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..rules.base import Rule
from ..tasks.base import Batch, Task, Tensors
from . import compiled
from .capture import capture
from .print_tape import Printer, known
from .sweep import Compiled

# Seconds of a step, alone, from which on so much of it is arithmetic that torch does it as well.
LONG = 0.005
# Calls one kernel after another, each with its tables: the steps of many runs.
CALLS = """\
#include <stdint.h>
typedef int kernel(int64_t, const int64_t *, const double *, int64_t);
int step(int64_t calls, const int64_t *table, const double *unused, int64_t threads) {
  int failed = 0;
  for (; calls--; table += 4) failed |= ((kernel *)table[0])(table[1], (int64_t *)table[2], (double *)table[3], 1);
  return failed;
}
"""

Function = Callable[..., Sequence[Tensor]]


class Program:
    """A function of one run's tensors as machine code for those of many, stacked.

    Raises ``Unsupported`` where there is no C for what is done.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        tape = capture(function, inputs, known)
        printer = Printer(tape)
        self.text, self.scratch = printer.source(), printer.scratch
        self.constants = list(tape.constants.values())
        self.outputs = tape.outputs
        self.building: Future[compiled.Kernel] | None = None

    def is_as(self, other: Program) -> bool:
        """Whether both do the same with the same constants."""
        return self.text == other.text and all(map(torch.equal, self.constants, other.constants))

    def build(self) -> Future[compiled.Kernel]:
        """The kernel: the compiler works while the caller goes on."""
        self.building = self.building or begin(compiled.load, self.text)
        return self.building

    def __call__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor] = ()) -> list[Tensor]:
        """What the function gives of ``inputs``; the first of it is put into ``outputs``."""
        kernel, runs = self.build().result(), len(inputs[0])
        stacked = [x.contiguous() for x in inputs]
        made = [*outputs, *(torch.empty(runs, *x.shape, dtype=x.dtype) for x in self.outputs[len(outputs) :])]
        of_runs = [(x.data_ptr(), x.stride(0) * x.element_size()) for x in (*stacked, *made)]
        of_all = [(x.untyped_storage().data_ptr(), 0) for x in self.constants]
        bases, strides = np.array(of_runs[: len(inputs)] + of_all + of_runs[len(inputs) :]).T
        table = bases + np.arange(runs)[:, None] * strides
        scratch = torch.empty(self.scratch, dtype=torch.uint8)
        if kernel(runs, table.ctypes.data, scratch.data_ptr(), 1):
            raise IndexError("a batch of the task names a place that does not exist")
        return made


class Native:
    """A task, with gradients and measures of machine code where there is C for them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.programs: dict[Any, Program | None] = {}
        self.grads: list[Tensor] = []
        # Both begin to be compiled before either is needed.
        params, batch, carry = _example(task)
        self._program(_gradient(task, params, carry), [*params.values(), *batch, *carry.values()], False)
        self._program(_measures(task, params), list(params.values()), False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def gradient(self, params: Tensors, batch: Batch, carry: Tensors) -> tuple[Tensors, Tensor, Tensors]:
        """As that of the task; the gradients are in the same place each time."""
        stacked = [*params.values(), *batch, *carry.values()]
        program = self._program(_gradient(self.task, params, carry), [x[0] for x in stacked])
        if program is None:
            return self.task.gradient(params, batch, carry)
        if not self.grads or len(self.grads[0]) != len(stacked[0]):
            self.grads = [torch.empty_like(p) for p in params.values()]
        loss, *carried = program(stacked, self.grads)[len(params) :]
        return dict(zip(params, self.grads, strict=True)), loss, dict(zip(carry, carried, strict=True))

    def measure(self, params: Tensors) -> Tensors:
        """As that of the task."""
        program = self._program(_measures(self.task, params), [p[0] for p in params.values()])
        if program is None:
            return self.task.measure(params)
        return dict(zip(self.task.metrics, program(list(params.values())), strict=True))

    def _program(self, function: Function, inputs: Sequence[Tensor], now: bool = True) -> Program | None:
        """That for tensors of these shapes, if there can be one; if it is not wanted ``now``, it is begun."""
        key = (function.__name__, *((x.shape, x.dtype) for x in inputs))
        if key not in self.programs:
            self.programs[key] = _or_none(function, inputs)
        program = self.programs[key]
        try:
            building = program and program.build()
            if building and now:
                building.result()
        except compiled.CompilerError as error:
            compiled._warn(str(error))
            program = self.programs[key] = None
        return program


def _gradient(task: Task, params: Tensors, carry: Tensors) -> Function:
    """Of one run's parameters, batch and carry: the gradients, the loss and the new carry."""

    def gradient(*inputs: Tensor) -> Sequence[Tensor]:
        first, last = len(params), len(inputs) - len(carry)
        leaves = [p.requires_grad_() for p in inputs[:first]]
        old = dict(zip(carry, inputs[last:], strict=True))
        loss, new = task.advance(dict(zip(params, leaves, strict=True)), inputs[first:last], old)
        return [*torch.autograd.grad(loss, leaves), loss.detach(), *(new[name].detach() for name in carry)]

    return gradient


def _measures(task: Task, params: Tensors) -> Function:
    """Of one run's parameters: the metrics, in the order in which the task names them."""

    def measures(*inputs: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            metrics = task.evaluate(dict(zip(params, inputs, strict=True)))
        return [metrics[name] for name in task.metrics]

    return measures


def _example(task: Task, seed: int = 0) -> tuple[Tensors, Batch, Tensors]:
    return task.init(seed), next(task.batches(seed)), task.carry()


def _or_none(function: Function, inputs: Sequence[Tensor]) -> Program | None:
    try:
        return Program(function, inputs)
    except Exception:  # A task may do anything, and whatever it is, torch can do it.
        return None


def takes(task: Task) -> bool:
    """Whether there is C for all that a step's gradient needs, and it is short enough to gain by that."""
    own = [getattr(getattr(task, name), "__func__", None) for name in ("gradient", "measure")]
    if own != [Task.gradient, Task.measure] or task.seconds / task.steps > LONG:
        return False
    if task not in _taken:
        one, other = (
            _or_none(_gradient(task, params, carry), [*params.values(), *batch, *carry.values()])
            for params, batch, carry in (_example(task, seed) for seed in range(2))
        )
        # Two runs of which one did something else than the other would not be told apart by C.
        _taken[task] = one is not None and other is not None and one.is_as(other)
    return _taken[task]


_taken: WeakKeyDictionary[Task, bool] = WeakKeyDictionary()


class Moves(Compiled):
    """Many runs of one rule, whose compiled steps are one call, on the gradients where they are."""

    def __init__(self, rule: Rule, hypers: Sequence[Mapping[str, Any]], params: Tensors) -> None:
        super().__init__(rule, hypers, params)
        self.plain = True
        self.driver = begin(compiled.load, CALLS)
        family, _ = compiled._family(rule, self.hypers[0])
        kinds = {(p.dtype, p.ndim - 1) for p in params.values()}
        self.kernels = [begin(family.kernel, *kind) for kind in kinds if family]

    def move(self, params: Tensors, grads: Tensors, t: int, factors: Tensor | None) -> None:
        name = next(iter(params))
        if self.plain and (self.bound is not params[name] or self.grads[name] is not grads[name]):
            self._find(params, grads, t)
        if not self.plain:
            return super().move(params, grads, t, factors)
        if factors is not None:
            for numbers, hyper, rate in zip(self.numbers, self.hypers, factors.tolist(), strict=True):
                numbers[:] = array("d", compiled._family(self.rule, {**hyper, "lr": hyper["lr"] * rate})[1])
        if self.driver.result()(len(self.calls) // 4, self.calls.buffer_info()[0], 0, 1):
            raise MemoryError("no memory for the sums of the step")

    def _find(self, params: Tensors, grads: Tensors, t: int) -> None:
        """Where all lies: for each run and kind of tensor the kernel, how many there are, and its tables."""
        for building in self.kernels:
            building.result()
        self.grads, self.plans, self.numbers, self.calls = grads, [], [], array("q")
        for run, hyper in enumerate(self.hypers):
            family, numbers = compiled._family(self.rule, hyper)
            states = [
                {"step": torch.tensor(float(t - 1)), **{k: s[run] for k, s in zip(self.rule.state, state, strict=True)}}
                for state in self.states.values()
            ]
            own = [p[run] for p in params.values()], [grads[name][run] for name in params]
            plan = compiled.Plan(self.rule, family, *own, states)
            self.plain = self.plain and not (plan.overlap or plan.copies or plan.rest)
            # They are not touched again, but have to stay.
            self.plans.append(plan)
            self.numbers.append(array("d", numbers))
            for kernel, table in plan.tables.values():
                address = ctypes.cast(kernel, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
                places = [table.buffer_info()[0], self.numbers[-1].buffer_info()[0]]
                self.calls.extend([address, len(table) // plan.columns, *places])
        self.bound = next(iter(params.values())) if self.plain else None


def begin(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """The result of a call that takes long, begun in a thread of its own, unless it is on its way already."""
    key = (function, arguments)
    with _door:
        if key in _begun:
            return _begun[key]
        future = _begun[key] = Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        finally:
            with _door:
                del _begun[key]

    threading.Thread(target=work, daemon=True).start()
    return future


_begun: dict[Any, Future[Any]] = {}
_door = threading.Lock()
