"""What a task is: data, model, loss and metrics, the same for one run and for many at once."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..rules.base import suggestion

Tensors = dict[str, Tensor]
Batch = tuple[Tensor, ...]
Data = dict[str, tuple[Tensor, ...]]

# Runs evaluated at once: a whole data set times all runs would be slow to allocate, and may not fit.
TOGETHER = 8


class Task(ABC):
    """Data, model, loss and metrics; registered under ``name`` by the decorator ``task``.

    All chance is in ``init`` and ``batches``, which draw it from the run's seed: a step's dropout
    masks or noise are part of its batch. ``loss`` and ``evaluate`` are pure functions of one run.
    With ``batched`` true, ``torch.func.vmap`` maps them over many runs; else the runs of a batch go
    one after another. A task for which neither will do (an environment, a decoder) overrides
    ``gradient`` and ``measure``, which take runs stacked along a first axis.

    Attributes: ``metrics`` names what ``evaluate`` gives; smaller is better but for those in
    ``larger``. ``metric`` is the one to report; where it is called ``test_x`` and there is a
    ``val_x``, the hyper-parameters are chosen by that. ``steps`` is the length of a run unless told
    otherwise, ``seconds`` what one costs on one core of the machine that ``book/results`` names, and
    ``target`` the value of ``metric`` that AdamW at its default reaches in it. ``schedule`` is the
    rate's course if none is asked for. ``divisible`` says that a batch is rows of examples and the loss
    their mean, so that several processes can share it. ``packages`` names what must be installed beyond
    the library's own needs: ``pip install stepsize[tasks]`` brings it.
    """

    name: str
    description: str
    metric: str
    metrics: tuple[str, ...]
    larger: tuple[str, ...] = ()
    steps: int = 500
    seconds: float = 1.0
    target: float
    batched: bool = True
    divisible: bool = False
    schedule: str = "constant"
    packages: tuple[str, ...] = ()

    @abstractmethod
    def init(self, seed: int) -> Tensors:
        """The parameters a run begins with, by name."""

    @abstractmethod
    def batches(self, seed: int) -> Iterator[Batch]:
        """The run's batches, without end; every call begins anew and gives the same ones."""

    @abstractmethod
    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        """The loss of one run on one batch, a 0-d tensor."""

    @abstractmethod
    def evaluate(self, params: Tensors) -> Tensors:
        """The metrics of one run, 0-d tensors by name; ``train_loss`` is one of them."""

    def carry(self) -> Tensors:
        """What a run hands from one batch to the next, at its start: a recurrent net's memory. Usually nothing."""
        return {}

    def advance(self, params: Tensors, batch: Batch, carry: Tensors) -> tuple[Tensor, Tensors]:
        """The loss of one run on one batch, and what it carries on. A task with a ``carry`` overrides this."""
        return self.loss(params, batch), carry

    def gradient(self, params: Tensors, batch: Batch, carry: Tensors) -> tuple[Tensors, Tensor, Tensors]:
        """Gradients, losses and new carries of many runs: every tensor has a first axis of runs, the losses only that.

        No gradient flows through the carry.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        losses, carried = self._each(self.advance, leaves, batch, carry)
        # Runs do not meet in the sum, so its gradient is each run's own, also beside a run that is NaN.
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return dict(zip(leaves, grads, strict=True)), losses.detach(), {k: v.detach() for k, v in carried.items()}

    @torch.no_grad()
    def measure(self, params: Tensors) -> Tensors:
        """The metrics of many runs, stacked as in :meth:`gradient`: one tensor of a value per run for each name."""
        runs = len(next(iter(params.values())))
        together = TOGETHER if self.batched else 1
        parts = [
            self._each(self.evaluate, {name: p[i : i + together] for name, p in params.items()})
            for i in range(0, runs, together)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _each(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """``function`` of every run: mapped over all at once, or of one after another and stacked."""
        if self.batched:
            return torch.func.vmap(function)(*stacked)
        leaves, spec = tree_flatten(stacked)
        # Taken apart at once: the gradient of one place among many would be as large as all of them.
        runs = zip(*(x.unbind() for x in leaves), strict=True)
        results = [tree_flatten(function(*tree_unflatten(list(run), spec))) for run in runs]
        columns = zip(*(values for values, _ in results), strict=True)
        return tree_unflatten([torch.stack(column) for column in columns], results[0][1])

    def missing(self) -> str | None:
        """One sentence on what to put in place before a run, such as data that must be got elsewhere; else ``None``."""
        return None

    @property
    def source(self) -> str:
        """Which data it is, where a user can choose: part of a run's key."""
        return ""

    def load(self) -> Data:
        """The data: ``"train"``, ``"val"`` and ``"test"``, each a tuple of tensors with a row per example."""
        return {}

    @cached_property
    def data(self) -> Data:
        """What :meth:`load` gives, read once and kept on the device of the last run."""
        return self.load()

    def to(self, device: torch.device) -> None:
        """Move the data to ``device``."""
        self.data = {part: tuple(x.to(device) for x in tensors) for part, tensors in self.data.items()}

    def generator(self, seed: int, purpose: str) -> torch.Generator:
        """A CPU generator of its own for every task, seed and purpose."""
        digest = hashlib.sha256(f"{self.name}/{purpose}/{seed}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


TASKS: dict[str, Task] = {}

T = TypeVar("T", bound=type[Task])


def task(cls: T) -> T:
    """Register one instance of the decorated class in ``TASKS``."""
    if cls.name in TASKS:
        raise ValueError(f"a task named {cls.name!r} exists already")
    TASKS[cls.name] = cls()
    return cls


def find(name: str) -> Task:
    """The task of that name; ``KeyError`` names the nearest known one."""
    if name not in TASKS:
        raise KeyError(f"no task named {name!r}{suggestion(name, TASKS)}")
    return TASKS[name]
