"""What a function of tensors does, as a list of torch's own operations: run once and watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DTYPES = (torch.float32, torch.int64, torch.bool)
# What they give depends on nothing but shapes, so that the result itself can be kept.
CONSTANT = {"zeros", "ones", "full", "arange", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"}


class Unsupported(Exception):
    """The function does what cannot be replayed."""


@dataclass(frozen=True)
class View:
    """Where a tensor lies: in which buffer, from which element, with which strides."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def whole(self) -> bool:
        """Whether it is a buffer from its beginning, row by row."""
        size = 1
        for n, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if n > 1 and stride != size:
                return False
            size *= n
        return self.offset == 0


@dataclass(frozen=True)
class Operation:
    """One operation: its name in aten, its arguments with a ``View`` for each tensor, and where the result lies."""

    name: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    result: View


@dataclass
class Tape:
    """All operations, in order; ``constants`` are, by buffer, the tensors that were there before."""

    inputs: list[View] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[View] = field(default_factory=list)


class _Watch(TorchDispatchMode):
    """Writes down what is done to tensors; a view is none of it, since it moves nothing."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        super().__init__()
        self.known, self.tape = known, Tape()
        self.buffers: dict[int, int] = {}
        self.alive: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch imports its compiler, which takes a second or two, to tell it that there is nothing for it here.
        return False

    def view(self, x: Tensor, new: bool = False) -> View:
        if x.dtype not in DTYPES or x.layout is not torch.strided or not x.is_cpu or x.numel() == 0 or x.is_neg():
            raise Unsupported(f"a tensor of {x.dtype} and shape {tuple(x.shape)}")
        place = x.untyped_storage().data_ptr()
        if place not in self.buffers:
            self.buffers[place] = len(self.buffers)
            self.alive.append(x)
            if not new:
                self.tape.constants[self.buffers[place]] = x
        return View(self.buffers[place], int(x.storage_offset()), tuple(x.shape), x.stride(), x.dtype)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        returns = function._schema.returns
        moves_nothing = not function._schema.is_mutable and len(returns) == 1 and returns[0].alias_info is not None
        if not moves_nothing and name not in CONSTANT and not self.known(name):
            raise Unsupported(f"torch's {name}")
        result = function(*args, **(kwargs or {}))
        if not moves_nothing and name not in CONSTANT:
            arguments, options = (tree_map_only(Tensor, self.view, given) for given in (tuple(args), kwargs or {}))
            self.tape.operations.append(Operation(name, arguments, options, self.view(result, new=True)))
        return result


def capture(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], known: Callable[[str], bool]) -> Tape:
    """The operations by which ``function`` makes its results of ``inputs``, of which it is given copies.

    Every other tensor that it uses counts as constant. ``known`` says which operations there may be;
    ``Unsupported`` is raised for another, and for tensors that are neither float32 nor int64 nor bool.
    """
    watch = _Watch(known)
    own = [x.detach().clone(memory_format=torch.contiguous_format) for x in inputs]
    watch.tape.inputs = [watch.view(x, new=True) for x in own]
    with watch:
        results = function(*own)
    watch.tape.outputs = [watch.view(x) for x in results]
    return watch.tape
