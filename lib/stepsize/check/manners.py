"""The manners of an optimizer that a right path does not show: gradients, groups, ``state_dict``, ``closure``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from .student import OptimizerClass, Wrong, guarded
from .walks import Case, equal


def _skips_no_gradient(student: OptimizerClass, case: Case, hyper: Mapping[str, Any]) -> None:
    moved, idle = (torch.nn.Parameter(case.p.clone()) for _ in range(2))
    optimizer = student.make([moved, idle], hyper)
    moved.grad = case.gradients[0].clone()
    with guarded(1):
        optimizer.step()
    if not torch.equal(idle, case.p):
        raise Wrong("a parameter whose grad is None was moved: leave it as it is.")


def _keeps_parameters_apart(student: OptimizerClass, case: Case, hyper: Mapping[str, Any]) -> None:
    """Two parameters, stepped together, walk as each does alone: a counter of steps is one for each."""
    mirrored = Case(case.about, -case.p, case.gradients.flip(0), case.hyper)
    alone = [student.walk(one)[-1][0] for one in (case, mirrored)]
    pair = [torch.nn.Parameter(one.p.clone()) for one in (case, mirrored)]
    optimizer = student.make(pair, hyper)
    for t in range(1, len(case.gradients) + 1):
        for p, one in zip(pair, (case, mirrored), strict=True):
            p.grad = one.gradient(t, p).clone()
        with guarded(t):
            optimizer.step()
    if not all(equal(p.detach(), end) for p, end in zip(pair, alone, strict=True)):
        raise Wrong(
            "two parameters, stepped together, do not walk as each does alone: keep state, and the count of steps, "
            "for each in self.state[p]."
        )


def _honours_groups(student: OptimizerClass, case: Case, hyper: Mapping[str, Any]) -> None:
    if "lr" not in student.accepted:
        return
    near, far = (torch.nn.Parameter(case.p.clone()) for _ in range(2))
    optimizer = student.make([{"params": [near]}, {"params": [far], "lr": 2 * hyper["lr"]}], hyper)
    near.grad, far.grad = case.gradients[0].clone(), case.gradients[0].clone()
    with guarded(1):
        optimizer.step()
    alone = torch.nn.Parameter(case.p.clone())
    alone.grad = case.gradients[0].clone()
    with guarded(1):
        student.make([alone], {**hyper, "lr": 2 * hyper["lr"]}).step()
    if not equal(far.detach(), alone.detach()):
        raise Wrong("a group with its own lr was not moved by that lr: read it from the group, not from self.")


def _goes_on_from_a_file(student: OptimizerClass, case: Case, hyper: Mapping[str, Any]) -> None:
    def take(p: torch.nn.Parameter, optimizer: Optimizer, steps: range) -> None:
        for t in steps:
            p.grad = case.gradients[t].clone()
            with guarded(t + 1):
                optimizer.step()

    whole = torch.nn.Parameter(case.p.clone())
    unbroken = student.make([whole], hyper)
    take(whole, unbroken, range(3))
    second = torch.nn.Parameter(whole.detach().clone())
    resumed = student.make([second], hyper)
    with guarded(None):
        # A state dict holds the optimizer's own tensors, and a file would not.
        resumed.load_state_dict(copy.deepcopy(unbroken.state_dict()))
    take(whole, unbroken, range(3, 6))
    take(second, resumed, range(3, 6))
    if not equal(second.detach(), whole.detach()):
        raise Wrong("saved by state_dict and loaded again it walks on another path: keep all state in self.state[p].")


def _returns_the_loss(student: OptimizerClass, case: Case, hyper: Mapping[str, Any]) -> None:
    p = torch.nn.Parameter(case.p.clone())
    optimizer = student.make([p], hyper)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    with guarded(1):
        loss: Any = optimizer.step(closure)
    if loss is None or not equal(torch.as_tensor(loss).detach(), case.p.square().sum()):
        raise Wrong("step(closure) did not return the closure's loss: call it with torch.enable_grad(), and return it.")


MANNERS = (_skips_no_gradient, _keeps_parameters_apart, _honours_groups, _goes_on_from_a_file, _returns_the_loss)
