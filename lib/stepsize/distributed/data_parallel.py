"""One run on several processes, each with its share of every batch: torch's DistributedDataParallel under torchrun.

    torchrun --standalone --nproc_per_node=2 -m stepsize.distributed.data_parallel digits-mlp -o adam --steps 100

The gradients are averaged over the processes, so that all take the step that one would take with the whole batch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..cli import Refusal, _settings
from ..search import COURSE, grid, optimizer
from ..sweep import ready_task
from ..tasks import Task


class Model(torch.nn.Module):
    """A task's parameters as a module; called with a batch, it gives the loss."""

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__()
        self.task, start = task, task.init(seed)
        self.names = list(start)
        self.values = torch.nn.ParameterList(start.values())

    def forward(self, *batch: Tensor) -> Tensor:
        return self.task.loss(self.named(), batch)

    def named(self) -> dict[str, Tensor]:
        """The parameters by the task's names."""
        return dict(zip(self.names, self.values, strict=True))


def train(task: Task, name: str, hyper: Mapping[str, Any], seed: int, steps: int) -> dict[str, Tensor]:
    """Train one run for ``steps`` steps on all processes of the group, on the CPU; give its parameters.

    Without a group, or in a group of one, it is plain training on whole batches. Raises ``ValueError`` for a task
    whose batches cannot be shared, or not evenly among so many processes.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if not task.divisible:
        raise ValueError(f"the batches of {task.name} cannot be shared: its loss is not a mean over their rows")
    rows = len(next(task.batches(seed))[0])
    if rows % world:
        raise ValueError(f"a batch of {rows} cannot be shared evenly among {world} processes")
    model = Model(task, seed)
    wrapped = DistributedDataParallel(model) if world > 1 else model
    opt = optimizer(name, list(model.values), {key: value for key, value in hyper.items() if key not in COURSE})
    batches = itertools.islice(task.batches(seed), steps)
    for batch in tqdm(
        batches, total=steps, desc=f"{world} processes", unit="step", disable=None if rank == 0 else True
    ):
        opt.zero_grad()
        wrapped(*(x.chunk(world)[rank] for x in batch)).backward()
        opt.step()
    return {key: value.detach() for key, value in model.named().items()}


@contextmanager
def group() -> Any:
    """The processes that torchrun started, over gloo; nothing without torchrun."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def main() -> int:
    """Train, and print the metrics as JSON: 0 when all was done, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", metavar="TASK", help="one whose batches can be shared, such as digits-mlp")
    parser.add_argument("-o", "--optimizer", metavar="NAME[:VARIANT]", default="adamw", help="default: adamw")
    parser.add_argument("--set", metavar="K=V,…", default="", help="its hyper-parameters, such as lr=0.01")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    parser.add_argument("--steps", metavar="N", type=int, help="default: the task's own")
    parser.add_argument("--save", metavar="FILE", help="write the parameters there, for torch.load")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        task = ready_task(given.task)
        (hyper,) = grid(given.optimizer, _settings(given.set, given.set))
        with group():
            params = train(task, given.optimizer, hyper, given.seed, given.steps or task.steps)
            first = not dist.is_initialized() or dist.get_rank() == 0
    except (ValueError, TypeError, KeyError, Refusal) as error:
        print(f"stepsize: {error.args[0]}", file=sys.stderr)
        return 2
    if first:
        metrics = task.measure({name: p[None] for name, p in params.items()})
        print(json.dumps({name: value.item() for name, value in metrics.items()}))
        if given.save:
            torch.save(params, given.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
