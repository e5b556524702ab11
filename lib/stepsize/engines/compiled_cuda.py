"""The fast engine on a GPU: the rule as Triton kernels, all tensors of a group in one launch for each pass.

Held to the loop in Triton's interpreter, and compiled to the machine code of GPUs; not run on a GPU by us yet.
Triton comes with the CUDA builds of torch, and is imported when the first tensor on a GPU is to be moved.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import linecache
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from ..rules.base import Rule
from . import compiled, loop
from .print_triton import BLOCK, HEAD, PIECES, Printer
from .trace import trace

# The type of device that is served: Triton's interpreter serves the CPU.
DEVICE = "cuda"
KIND = attrgetter("dtype", "device")
FORMATS = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)


def step(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    hyper: Mapping[str, Any],
    plans: dict[Any, Any] | None = None,
) -> None:
    """As ``compiled.step``, for tensors on a GPU, without waiting for it.

    Numbers such as 1 - beta^t are computed on the host, and sums in an order that no run changes. Left to the loop are,
    beside what ``compiled.step`` leaves to it: rules with numbers per row or column, state that is not on the
    parameter's device, tensors that do not lie in memory without gaps, in the parameter's order, and a step with
    hyper-parameters that Python cannot compute with, such as a division by zero.
    """
    family, numbers = compiled._family(rule, hyper)
    key = DEVICE, family, id(params[0]) if params else 0
    plan = plans.get(key) if plans else None
    if plan is None or not plan.fits(params, grads, states):
        plan = Plan(rule, family, params, grads, states)
        if plans is not None and not plan.rest:
            plans[key] = plan
    left = range(len(params)) if plan.overlap else plan.launch(numbers)
    if left:
        loop.step(rule, *([column[i] for i in left] for column in (params, grads, states)), hyper)  # type: ignore


class Kernel:
    """The passes of one rule for tensors of one dtype; none once they have failed."""

    def __init__(self, printer: Printer, text: str) -> None:
        module = load(text)
        self.passes: list[Any] = [module[name] for name in printer.passes]
        self.numbers: Callable[..., tuple[float, ...]] = module["numbers"]
        self.sums, self.olds, self.columns = len(printer.sums), len(printer.olds), printer.columns
        self.sized = printer.sized
        self.real = getattr(torch, printer.real)


# By their text: tensors of all ranks of one form go together.
_kernels: dict[str, Kernel] = {}


def load(text: str) -> dict[str, Any]:
    """The functions of a printed module; Triton reads their source, so it is kept where Python looks for it."""
    name = f"<stepsize kernel {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    module: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, name, "exec"), module)
    return module


@cache
def kernel(family: compiled.Family, dtype: torch.dtype, ndim: int) -> Kernel | None:
    """The kernels of a family for parameters such as these, or ``None`` where it has to be the loop."""
    if not available():
        compiled._warn("there is no Triton")
        return None
    try:
        real, stored = (str(x).removeprefix("torch.") for x in (compiled.REALS[dtype][0], dtype))
        printer = Printer(trace(family.rule, family.hyper, ndim), real, stored)
        text = printer.source()
        if text not in _kernels:
            _kernels[text] = Kernel(printer, text)
        return _kernels[text]
    except Exception as error:  # A rule may do anything with what is no tensor.
        compiled._warn(f"{family.rule.name} cannot be compiled for {DEVICE} ({error})")
        return None


@cache
def available() -> bool:
    """Whether there is Triton."""
    return importlib.util.find_spec("triton") is not None


def takes(family: compiled.Family | None, p: Tensor) -> Kernel | None:
    """The kernels for ``p``, if it and the rule are such as can be compiled."""
    plain = type(p) in compiled.PLAIN and p.device.type == DEVICE and p.dtype in compiled.REALS and p.numel() > 0
    made = kernel(family, p.dtype, p.ndim) if family and plain else None
    return made if made and made.passes else None


class Work:
    """The tensors of one kernel on one device: a row of ``table`` each, and which row each program works on."""

    def __init__(self, kernel: Kernel, device: torch.device) -> None:
        self.kernel, self.device = kernel, device
        self.table = array("q")
        self.members: list[int] = []
        self.pieces: list[int] = []
        self.total = 0
        self.sizes: list[tuple[int, int]] = []
        self.counters: list[ctypes.c_float] = []
        self.numbers = array("q")
        self.where: list[int] = []
        self.owners: Tensor | None = None

    def add(self, p: Tensor, tensors: Sequence[Tensor], t: Tensor) -> int:
        """Take in a parameter with what its kernel reads; return where in the table its addresses begin."""
        numel, blocks = p.numel(), -(-p.numel() // (BLOCK * PIECES))
        self.sizes.append((numel, p.shape[0] if p.ndim > 1 else numel))
        self.counters.append(ctypes.c_float.from_address(t.data_ptr()))
        first, pieces = self.total, -(-numel // (BLOCK * blocks))
        self.pieces.append(pieces)
        self.total += pieces
        place = len(self.table) + len(HEAD)
        self.table.extend([numel, first, pieces, blocks, 0, *map(Tensor.data_ptr, tensors)])
        return place

    def count(self, h: Sequence[float]) -> None:
        """Compute the numbers of the next step: once, or for each t and, where that matters, size."""
        counts = [counter.value for counter in self.counters]
        keys = list(zip(counts, self.sizes, strict=True)) if self.kernel.sized else counts
        known: dict[Any, int] = {}
        numbers = array("d")
        for key, t, size in zip(keys, counts, self.sizes, strict=True):
            if key not in known:
                known[key] = len(self.table) + len(numbers)
                numbers.extend(self.kernel.numbers(h, int(t) + 1, *size))
        self.numbers = array("q", numbers.tobytes())
        where = [known[key] for key in keys]
        if where != self.where:
            for k, at in enumerate(where):
                self.table[k * self.kernel.columns + HEAD.index("at")] = at
            self.where = where

    def launch(self, aligned: bool) -> bool:
        """All passes, one after the other, on the device's current stream; ``False`` where the first cannot run."""
        if not self.kernel.passes:
            return False
        cuda = self.device.type == "cuda"
        if self.owners is None:
            counts = torch.tensor(self.pieces)
            self.owners = torch.arange(len(counts)).repeat_interleave(counts).int().to(self.device)
        table = torch.frombuffer(self.table + self.numbers, dtype=torch.int64)
        with torch.cuda.device(self.device) if cuda else nullcontext():
            # From pinned memory, which torch keeps until it is copied, the copy waits for nothing.
            table = table.pin_memory().to(self.device, non_blocking=True) if cuda else table
            sums = torch.empty(max(1, self.total * self.kernel.sums), dtype=torch.float64, device=self.device)
            olds = torch.empty(max(1, len(self.pieces) * self.kernel.olds), dtype=self.kernel.real, device=self.device)
            for number, run in enumerate(self.kernel.passes):
                try:
                    run[(self.total,)](
                        table, self.owners, sums, olds, aligned=aligned, num_warps=8, enable_fp_fusion=False
                    )
                except Exception as error:  # Triton has many ways to say that it cannot compile here.
                    if number > 0:
                        raise
                    compiled._warn(f"Triton does not work here ({' '.join(str(error).split())[:200]})")
                    self.kernel.passes = []
                    return False
        for counter in self.counters:
            counter.value += 1
        return True


class Plan:
    """Where the tensors of a group lie, and by which kernels they are moved."""

    def __init__(
        self,
        rule: Rule,
        family: compiled.Family | None,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[dict[str, Tensor]],
    ) -> None:
        self.names = (*rule.state, "step")
        self.works: dict[Any, Work] = {}
        # What is left to the loop.
        self.rest: list[int] = []
        self.places: list[tuple[array[int], int]] = []
        self.moved: list[Tensor] = []
        pointers: list[int] = []
        for i, (p, g, state) in enumerate(zip(params, grads, states, strict=True)):
            loop.begin(rule, p, state)
            made = takes(family, p)
            tensors = [p, g, *(state[name] for name in rule.state)]
            if made is None or not _regular(rule, tensors, state["step"]):
                self.rest.append(i)
                continue
            work = self.works.setdefault((made, p.device), Work(made, p.device))
            self.places.append((work.table, work.add(p, tensors, state["step"]) + 1))
            work.members.append(i)
            self.moved.append(p)
            pointers += map(Tensor.data_ptr, tensors)
        self.aligned = not any(address % 16 for address in pointers)
        pointers += [state["step"].data_ptr() for state in states]
        self.overlap = len(set(pointers)) < len(pointers)
        self.tensors = self._tensors(params, states)
        self.seen, self.grads = self._look(self.tensors, grads), list(map(Tensor.data_ptr, grads))

    def _tensors(self, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        return [*params, *[state[name] for state in states for name in self.names]]

    def _look(self, tensors: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[list[Any], ...]:
        """What may not change while the plan is used."""
        params = tensors[: len(grads)]
        kinds = [list(map(ask, both)) for both in (params, grads) for ask in (KIND, Tensor.size, Tensor.stride)]
        return list(map(Tensor.data_ptr, tensors)), *kinds, list(map(Tensor.is_neg, grads))

    def fits(self, params: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> bool:
        """Whether all is where it was, but for the gradients, whose addresses are put in here."""
        try:
            tensors = self._tensors(params, states)
        except KeyError:
            return False
        if len(tensors) != len(self.tensors) or not all(map(is_, tensors, self.tensors)):
            return False
        if self._look(tensors, grads) != self.seen:
            return False
        new = list(map(Tensor.data_ptr, grads))
        if new != self.grads:
            for (table, place), address in zip(self.places, new, strict=True):
                table[place] = address
            self.grads = new
            self.aligned = self.aligned and not any(address % 16 for address in new)
            self.overlap = len({*new, *self.seen[0]}) < len(new) + len(self.seen[0])
        return True

    def launch(self, h: Sequence[float]) -> list[int]:
        """Move what the kernels can move, and return the places of what is left, which is as it was."""
        try:
            for work in self.works.values():
                work.count(h)
        except (ArithmeticError, ValueError, TypeError):
            return sorted([*self.rest, *(i for work in self.works.values() for i in work.members)])
        rest = list(self.rest)
        for work in self.works.values():
            if not work.launch(self.aligned):
                rest += work.members
        increment_version(self.moved)
        return sorted(rest)


def _regular(rule: Rule, tensors: Sequence[Tensor], t: Any) -> bool:
    """Whether all is as the rule would make it, and lies in memory as the parameter does."""
    p, real = tensors[0], compiled.REALS[tensors[0].dtype][0]
    kinds = ("tensor", "tensor", *rule.state.values())
    # Kernels are for vectors where a rule has rows: of those each element is one.
    full = [x for x, kind in zip(tensors, kinds, strict=True) if kind in ("tensor", "row")]
    small = [x for x, kind in zip(tensors, kinds, strict=True) if kind in ("layer", "column")]
    layouts = {next((f for f in FORMATS if x.is_contiguous(memory_format=f)), None) for x in full}
    return (
        isinstance(t, Tensor)
        and (t.dtype, t.is_cpu) == (torch.float32, True)
        and [x.dtype for x in tensors] == [p.dtype, p.dtype, *[real] * len(rule.state)]
        and all(x.device == p.device and not x.is_neg() for x in tensors)
        and all(x.shape == p.shape for x in full)
        and all(x.numel() == 1 for x in small)
        and len(layouts) == 1
        and None not in layouts
    )
