"""The student's side: their code called as a step or an optimizer, and every way it can fail turned into a sentence."""

from __future__ import annotations

import ctypes
import inspect
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..laws import at_step
from ..rules import Rule
from ..rules.base import STATE_SHAPES, suggestion
from .walks import Case


class Wrong(Exception):
    """What is wrong with the student's code itself, in a sentence; ``t`` is the step at which it shows."""

    def __init__(self, sentence: str, t: int | None = None, hint: str | None = None) -> None:
        super().__init__(sentence)
        self.t, self.hint = t, hint


class TimeUp(BaseException):
    """No Exception, so that a student's ``except Exception`` does not catch it."""


class StepFunction:
    """A step written like a rule."""

    def __init__(self, step: Callable[..., Any], rule: Rule, kept: Sequence[str], accepted: set[str]) -> None:
        self.step, self.kept, self.accepted = step, kept, accepted
        self.kinds = [rule.state[name] for name in kept]
        self.on_numbers = False

    def init(self, p: Tensor) -> list[Tensor]:
        return [p.new_zeros(p.shape if kind == "tensor" else STATE_SHAPES[kind](p.shape)) for kind in self.kinds]

    def walk(self, case: Case) -> list[tuple[Tensor, ...]]:
        p, state, found = case.p, self.init(case.p), []
        for t in range(1, len(case.gradients) + 1):
            p, *state = self.call(p, case.gradient(t, p), t, state, at_step(case.hyper, t))
            found.append((p, *state))
        return found

    def call(self, p: Tensor, g: Tensor, t: int, state: Sequence[Tensor], hyper: Mapping[str, Any]) -> tuple[Any, ...]:
        given = {name: value for name, value in hyper.items() if name in self.accepted}
        if not self.on_numbers:
            try:
                return self._once(p, g, t, state, given)
            except Wrong as wrong:
                plain = all(kind == "tensor" for kind in self.kinds)
                if t > 1 or not plain or not isinstance(wrong.__cause__, (TypeError, ValueError, RuntimeError)):
                    raise
                try:
                    self._each(p, g, t, state, given)
                except Wrong:
                    raise wrong from None
                self.on_numbers = True
        return self._each(p, g, t, state, given)

    def _each(self, p: Tensor, g: Tensor, t: int, state: Sequence[Tensor], hyper: Mapping[str, Any]) -> tuple[Any, ...]:
        """The step on one number after another."""
        rows = [
            self._once(one[0].item(), one[1].item(), t, [x.item() for x in one[2:]], hyper)
            for one in zip(*(x.flatten() for x in (p, g, *state)), strict=True)
        ]
        return tuple(torch.tensor(column, dtype=p.dtype).reshape(p.shape) for column in zip(*rows, strict=True))

    def _once(self, p: Any, g: Any, t: int, state: Sequence[Any], hyper: Mapping[str, Any]) -> tuple[Any, ...]:
        given = [x.clone() if isinstance(x, Tensor) else x for x in (p, g, *state)]
        with guarded(t):
            result = self.step(given[0], given[1], t, *given[2:], **hyper)
        for name, before, after in zip(("p", "g", *self.kept), (p, g, *state), given, strict=True):
            if isinstance(before, Tensor) and not torch.equal(before.nan_to_num(), after.nan_to_num()):
                raise Wrong(
                    f"Your step changes {name} itself, at step {t}: make a new tensor, and return that.",
                    t,
                    f"Look for an assignment with a sign before the =, or a method that ends in _, on {name}.",
                )
        return self._returned(result, p, state, t)

    def _returned(self, result: Any, p: Any, state: Sequence[Any], t: int) -> tuple[Any, ...]:
        values = result if isinstance(result, (tuple, list)) else (result,)
        names = ("new p", *(f"new {name}" for name in self.kept))
        if len(values) != len(names) or result is None:
            made = "nothing" if result is None else f"{len(values)} value{'s' * (len(values) != 1)}"
            raise Wrong(f"Your step must return {', '.join(names)}; it returned {made} at step {t}.", t)
        for name, value, before in zip(names, values, (p, *state), strict=True):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if isinstance(before, float) and (number or (isinstance(value, Tensor) and value.numel() == 1)):
                continue
            if not isinstance(value, Tensor):
                raise Wrong(f"{name.capitalize()} must be {kind(before)}; at step {t} it is {kind(value)}.", t)
            if isinstance(before, Tensor) and value.shape != before.shape:
                want, got = tuple(before.shape), tuple(value.shape)
                raise Wrong(f"{name.capitalize()} must have the shape {want}; at step {t} it has {got}.", t)
            if isinstance(before, Tensor) and value.dtype != before.dtype:
                raise Wrong(f"{name.capitalize()} must stay {before.dtype}; at step {t} it became {value.dtype}.", t)
        return tuple(value.detach() if isinstance(value, Tensor) else value for value in values)


class OptimizerClass:
    """A subclass of ``torch.optim.Optimizer``."""

    def __init__(self, cls: type[Optimizer], accepted: set[str]) -> None:
        self.cls, self.accepted = cls, accepted

    def make(self, params: Any, hyper: Mapping[str, Any]) -> Optimizer:
        with guarded(None):
            return self.cls(params, **{name: value for name, value in hyper.items() if name in self.accepted})

    def walk(self, case: Case) -> list[tuple[Tensor, ...]]:
        p, found = torch.nn.Parameter(case.p.clone()), list[tuple[Tensor, ...]]()
        optimizer = self.make([p], at_step(case.hyper, 1))
        for t in range(1, len(case.gradients) + 1):
            for group in optimizer.param_groups:
                group.update({"lr": at_step(case.hyper, t)["lr"]} if "lr" in group else {})
            g = case.gradient(t, p.detach())
            p.grad = g.clone()
            with guarded(t):
                optimizer.step()
            if p.shape != case.p.shape or not torch.equal(p.grad, g):
                what = "the gradient" if p.shape == case.p.shape else "the shape of the parameter"
                raise Wrong(f"Your step changes {what}, at step {t}: it may change the values of p alone.", t)
            found.append((p.detach().clone(),))
        return found


@contextmanager
def guarded(t: int | None) -> Iterator[None]:
    """The student's code: whatever it raises becomes a sentence, and it cannot call the library's own rules."""

    def refuse(self: Rule, *args: Any, **kwargs: Any) -> Any:
        raise Wrong(f"Your step calls the library's own {self.name}: write the step yourself.", t)

    when = "" if t is None else f" at step {t}"
    ours, Rule.__call__ = Rule.__call__, refuse  # type: ignore[method-assign]
    try:
        yield
    except (Wrong, TimeUp, KeyboardInterrupt):
        raise
    except NotImplementedError as error:
        raise Wrong(f"Not begun: {error or 'write your answer in place of the line that raises this'}.", t) from error
    except BaseException as error:
        raise Wrong(f"Your code stopped{when} with {_told(error)}.", t) from error
    finally:
        Rule.__call__ = ours  # type: ignore[method-assign]


def _told(error: BaseException) -> str:
    """The error, and the line of the student's that raised it."""
    text = " ".join(str(error).split()) or "no message"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and f.line]
    mine = [f for f in frames if "site-packages" not in f.filename and "/lib/stepsize/" not in f.filename]
    where = f" (line {mine[-1].lineno}: {mine[-1].line})" if mine else ""
    return f"{type(error).__name__}: {text[:200]}{where}"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeUp` in this thread when the time is over: also in a loop that never ends."""
    thread, done = threading.get_ident(), threading.Event()

    def watch() -> None:
        wait = seconds
        # Again and again, since a student's bare except may swallow it.
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeUp))
            wait = 1.0

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def keywords_of(step: Callable[..., Any], rule: Rule, kept: Sequence[str]) -> set[str]:
    """The keywords that the step takes, once it is clear that it can be called as a step."""
    try:
        parameters = inspect.signature(step).parameters
    except (TypeError, ValueError):
        return set(rule.defaults)
    kinds = inspect.Parameter
    wanted = ["p", "g", "t", *kept]
    form = f"step({', '.join(wanted)}, *, {', '.join(rule.defaults)})"
    places = [p for p in parameters.values() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    rest = any(p.kind is kinds.VAR_POSITIONAL for p in parameters.values())
    needed = [p.name for p in places if p.default is kinds.empty]
    if (len(places) < len(wanted) and not rest) or len(needed) > len(wanted):
        raise Wrong(f"Your step takes {', '.join(p.name for p in places) or 'nothing'}; it must be {form}.")
    named = [p for p in places[len(wanted) :]] + [p for p in parameters.values() if p.kind is kinds.KEYWORD_ONLY]
    for p in named:
        if p.default is kinds.empty and p.name not in rule.defaults:
            raise Wrong(
                f"Your step asks for {p.name!r}, which {rule.name} does not know{suggestion(p.name, rule.defaults)}."
            )
    if any(p.kind is kinds.VAR_KEYWORD for p in parameters.values()):
        return set(rule.defaults)
    return {p.name for p in named}


def borrowed_name(step: Callable[..., Any]) -> str | None:
    """The name by which a step reaches for a library's optimizers, if it does."""
    code = getattr(inspect.unwrap(step), "__code__", None)
    todo = [code] if code else []
    while todo:
        now = todo.pop()
        for name in now.co_names:
            if name in ("RULES", "optim"):
                return "the library's RULES" if name == "RULES" else "an optimizer of a library"
        todo += [x for x in now.co_consts if isinstance(x, CodeType)]
    return None


def kind(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"a tensor of shape {tuple(x.shape)}"
    if x is None or isinstance(x, (bool, int, float)):
        return "nothing" if x is None else f"the number {x:g}"
    return f"the class {x.__name__}" if inspect.isclass(x) else f"of type {type(x).__name__}"
