"""The fast engine: a rule as machine code, all tensors of a group in one call. It is made from the rule alone."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from operator import is_
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from ..rules.base import Rule
from . import loop
from .print_c import source
from .trace import trace

# Products are rounded before they are added, as in torch, and NaN and infinity are what they are.
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fPIC", "-shared", "-w", "-fopenmp-simd"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# The dtype that a parameter is computed in, and its name in C.
REALS = {
    torch.float64: (torch.float64, "double"),
    torch.float32: (torch.float32, "float"),
    torch.bfloat16: (torch.float32, "float"),
    torch.float16: (torch.float32, "float"),
}
PLAIN = (Tensor, torch.nn.Parameter)

Kernel = Callable[[int, int, int, int], int]


class CompilerError(Exception):
    """There is no C compiler, or it does not work."""


def step(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    hyper: Mapping[str, Any],
    plans: dict[Any, Plan] | None = None,
) -> None:
    """Do what ``loop.step`` does, equal to it but for rounding, in as few passes over memory as the rule allows.

    The kernel serves all shapes of as many dimensions, and all values of numbers. Tensors of half precision, and such
    as are not contiguous, are copied for it. Empty tensors, those on other devices or of subclasses, hyper-parameters
    that are tensors within tuples, and rules that cannot be compiled are left to the loop; if that is for want of a
    compiler, or for the rule, with one ``RuntimeWarning`` a process. The number of threads is torch's and changes no
    bits. ``plans`` is the caller's to keep: it saves looking at tensors that have not moved since the last step.
    Where the first tensor is on a GPU, the step is that of ``compiled_cuda``.
    """
    if params and params[0].is_cuda:
        from . import compiled_cuda

        return compiled_cuda.step(rule, params, grads, states, hyper, plans)
    family, numbers = _family(rule, hyper)
    key = family, id(params[0]) if params else 0
    plan = plans.get(key) if plans else None
    if plan is None or not plan.fits(params, grads, states):
        plan = Plan(rule, family, params, grads, states)
        if plans is not None and not plan.copies and not plan.rest:
            plans[key] = plan
    if plan.overlap:  # One tensor in two places, which the loop moves one after the other.
        return loop.step(rule, params, grads, states, hyper)
    h = array("d", numbers)
    address, threads = h.buffer_info()[0], torch.get_num_threads()
    for kernel, table in plan.tables.values():
        if kernel(len(table) // plan.columns, table.buffer_info()[0], address, threads):
            raise MemoryError("no memory for the sums of the step")
    increment_version(params)
    for old, new in plan.copies:
        if old is not None:
            old.copy_(new)
    if plan.rest:
        left = [list(column) for column in zip(*plan.rest, strict=True)]
        loop.step(rule, left[0], left[1], left[2], hyper)


class Plan:
    """Where the tensors of a group lie, as the kernels want it: sizes and addresses, one row a tensor."""

    def __init__(
        self,
        rule: Rule,
        family: Family | None,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[dict[str, Tensor]],
    ) -> None:
        self.names = (*rule.state, "step")
        self.columns = 4 + len(self.names)
        self.tables: dict[int, tuple[Kernel, array[int]]] = {}
        # (original, copy), the original only if the result has to go back; and what is left to the loop.
        self.copies: list[tuple[Tensor | None, Tensor]] = []
        self.rest: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
        self.places: list[tuple[array[int], int]] = []
        pointers: list[int] = []
        for p, g, state in zip(params, grads, states, strict=True):
            loop.begin(rule, p, state)
            kernel = family.kernel(p.dtype, p.ndim) if family and type(p) in PLAIN and p.is_cpu else None
            row = self._row(rule, p, g, state) if kernel else []
            if not kernel or not row:
                self.rest.append((p, g, state))
                continue
            _, table = self.tables.setdefault(id(kernel), (kernel, array("q")))
            self.places.append((table, len(table) + 4))
            table.extend(row)
            pointers += row[2:]
        self.overlap = len(set(pointers)) < len(pointers)
        self.tensors = self._tensors(params, states)
        self.pointers = list(map(Tensor.data_ptr, self.tensors)) if not self.rest else []
        self.grads = list(map(Tensor.data_ptr, grads)) if not self.rest else []
        self.kinds = [(g.dtype, g.numel()) for g in grads]

    def _tensors(self, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        return [*params, *[state[name] for state in states for name in self.names]]

    def _row(self, rule: Rule, p: Tensor, g: Tensor, state: Mapping[str, Any]) -> list[int]:
        """The row of one tensor, or nothing where something is not as the rule would make it."""
        shape, dtype, t = p.shape, REALS[p.dtype][0], state["step"]
        numel = p.numel()
        rows = shape[0] if len(shape) > 1 else numel
        if numel == 0 or g.shape != shape or g.is_neg() or not isinstance(t, Tensor) or t.dtype is not torch.float32:
            return []
        sizes = {"tensor": numel, "layer": 1, "row": rows, "column": numel // rows}
        tensors = [p, g, *(state[name] for name in rule.state)]
        if any(state[name].numel() != sizes[kind] or not state[name].is_cpu for name, kind in rule.state.items()):
            return []
        row = [numel, rows, t.data_ptr()]
        for x in tensors:
            if x.dtype is not dtype or not x.is_contiguous():
                copy = x.to(dtype, memory_format=torch.contiguous_format, copy=True)
                self.copies.append((None if x is g else x, copy))
                x = copy
            row.append(x.data_ptr())
        return row

    def fits(self, params: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> bool:
        """Whether all is where it was, but for the gradients, whose addresses are put in here."""
        try:
            tensors = self._tensors(params, states)
        except KeyError:
            return False
        if (
            len(tensors) != len(self.tensors)
            or not all(map(is_, tensors, self.tensors))
            or list(map(Tensor.data_ptr, tensors)) != self.pointers
            or not all(map(Tensor.is_contiguous, tensors))
            or not all(map(Tensor.is_contiguous, grads))
            or any(map(Tensor.is_neg, grads))
            or [(g.dtype, g.numel()) for g in grads] != self.kinds
        ):
            return False
        new = list(map(Tensor.data_ptr, grads))
        if new != self.grads:
            for (table, place), address in zip(self.places, new, strict=True):
                table[place] = address
            self.grads = new
            self.overlap = len({*new, *self.pointers}) < len(new) + len(self.pointers)
        return True


def takes(rule: Rule, p: Tensor, hyper: Mapping[str, Any]) -> bool:
    """Whether ``step`` has compiled, or would try to compile, the rule for ``p``."""
    family, _ = _family(rule, hyper)
    if p.is_cuda:
        from . import compiled_cuda

        return compiled_cuda.takes(family, p) is not None
    plain = type(p) in PLAIN and p.is_cpu and p.dtype in REALS and p.numel() > 0
    return family is not None and plain and family.kernels.get((p.dtype, p.ndim), True) is not None


class Family:
    """The kernels of one rule with hyper-parameters of certain types: one for each dtype and number of dimensions."""

    def __init__(self, rule: Rule, hyper: Mapping[str, Any]) -> None:
        self.rule, self.hyper = rule, dict(hyper)
        self.kernels: dict[tuple[torch.dtype, int], Kernel | None] = {}

    def kernel(self, dtype: torch.dtype, ndim: int) -> Kernel | None:
        """The compiled step, or ``None`` where it has to be the loop."""
        key = dtype, ndim
        if key not in self.kernels:
            self.kernels[key] = self._make(dtype, ndim) if dtype in REALS else None
        return self.kernels[key]

    def _make(self, dtype: torch.dtype, ndim: int) -> Kernel | None:
        try:
            text = source(trace(self.rule, self.hyper, ndim), REALS[dtype][1])
        except Exception as error:  # A rule may do anything with what is no tensor.
            _warn(f"{self.rule.name} cannot be compiled ({error})")
            return None
        try:
            return load(text)
        except CompilerError as error:
            _warn(str(error))
            return None


_families: dict[tuple[Any, ...], Family] = {}


def _family(rule: Rule, hyper: Mapping[str, Any]) -> tuple[Family | None, list[float]]:
    """The kernels for hyper-parameters of these types, and all numbers among their values, in order."""
    numbers: list[float] = []
    try:
        key = (rule, *[_sort(value, numbers, True) for value in hyper.values()])
    except TypeError:
        return None, numbers
    if key not in _families:
        _families[key] = Family(rule, {name: float(x) if isinstance(x, Tensor) else x for name, x in hyper.items()})
    return _families[key], numbers


def _sort(value: Any, numbers: list[float], top: bool = False) -> Any:
    """What tells one kernel from another: that a value is a number, but of everything else what it is."""
    if type(value) is float or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        numbers.append(value)
        return float
    if isinstance(value, (tuple, list)):
        return tuple([_sort(part, numbers) for part in value])
    if top and isinstance(value, Tensor) and value.numel() == 1:
        numbers.append(float(value))
        return float
    if value is None or isinstance(value, (bool, str)):
        return value
    raise TypeError


def _warn(reason: str) -> None:
    global _warned
    if not _warned:
        warnings.warn(f"{reason}: the engine is 'loop' and not 'compiled'", RuntimeWarning, stacklevel=2)
    _warned = True


_warned = False


@cache
def load(text: str) -> Kernel:
    """The function ``step`` of a C source, built at most once for this user, compiler and processor."""
    command = compiler()
    if not command:
        raise CompilerError("there is no C compiler (install gcc or clang, or name one in CC)")
    key = hashlib.sha256("\0".join((text, *FLAGS, *command, _built(command[0]), _processor())).encode())
    path = _folder() / f"{key.hexdigest()[:32]}.so"
    try:
        if not path.exists():
            _compile(command, text, path)
        function: Any = ctypes.CDLL(str(path)).step
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerError(f"the C compiler {shlex.join(command)!r} does not work ({error})") from None
    function.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    return function


def _compile(command: Sequence[str], text: str, path: Path) -> None:
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        line = [*command, "-x", "c", "-", *FLAGS, "-o", temporary, "-lm"]
        done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise CompilerError(f"the C compiler fails: {' '.join(done.stderr.split())[:200]}")
        os.replace(temporary, path)  # Another process may be building the same.
    finally:
        Path(temporary).unlink(missing_ok=True)


@cache
def compiler() -> list[str]:
    """The command that compiles C: ``CC``, or the first of cc, gcc and clang; empty where there is none."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for command in map(shlex.split, names):
        if command and shutil.which(command[0]):
            return [shutil.which(command[0]) or "", *command[1:]]
    return []


def _built(program: str) -> str:
    """Which compiler this is, without the time it takes to ask for its version."""
    path = Path(program).resolve()
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return " ".join([platform.machine(), platform.processor(), *sorted(set(told))])


def _folder() -> Path:
    """Where machine code is kept: a folder that nobody else can write to."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (root if root.is_absolute() else Path.home() / ".cache") / "stepsize"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        safe = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if safe and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, or one that cannot be written to
        pass
    return Path(_own_folder().name)


@cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for this process alone."""
    return tempfile.TemporaryDirectory(prefix="stepsize-")


def available() -> bool:
    """Whether there is a C compiler."""
    return bool(compiler())


def fixed(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    hyper: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], None]:
    """``step`` for tensors that stay where they are: what is returned takes the hyper-parameters, of the same types.

    It looks at nothing again, so that many small steps cost little.
    """
    family, _ = _family(rule, hyper)
    plan = Plan(rule, family, params, grads, states)
    if plan.overlap or plan.copies or plan.rest:
        return lambda hyper: step(rule, params, grads, states, hyper)
    calls = [(kernel, len(table) // plan.columns, table.buffer_info()[0]) for kernel, table in plan.tables.values()]

    def move(hyper: Mapping[str, Any], plan: Plan = plan) -> None:
        h = array("d", _family(rule, hyper)[1])
        address, threads = h.buffer_info()[0], torch.get_num_threads()
        for kernel, count, table in calls:
            if kernel(count, table, address, threads):
                raise MemoryError("no memory for the sums of the step")

    return move


@contextmanager
def empty_cache() -> Iterator[None]:
    """Inside, nothing was ever compiled: to time what a new user meets."""
    before = os.environ.get("XDG_CACHE_HOME")

    def forget() -> None:
        _families.clear()
        load.cache_clear()

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        forget()
        try:
            yield
        finally:
            forget()
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
