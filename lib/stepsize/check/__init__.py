"""The checker: is a student's step the rule, and if not, from which step on, and by which mistake?"""

from __future__ import annotations

import base64
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .. import landscapes
from ..laws import at_step
from ..rules import RULES, Rule, find
from ..rules.base import suggestion
from .manners import MANNERS
from .naming import name_of
from .student import OptimizerClass, StepFunction, TimeUp, Wrong, borrowed_name, keywords_of, kind, within
from .walks import LANDSCAPE, Case, OnTheBowl, draw_cases, equal, few, seed_of, walk_of

# A step that differs no more than this does so by rounding, somewhere, to float32.
SINGLE = 1e-5


@dataclass(frozen=True)
class Verdict:
    """Whether a step is the rule; prints itself, and in a notebook draws both trajectories.

    ``says`` is what a student reads. Where the step departs: ``step`` is the first such t, 1, 2, 3, …, ``expected``
    and ``got`` are the parameters, or the state, after it. ``mistake`` names the deviation that walks the same path,
    two as ``"a + b"``, or is ``None``; ``hint`` is what to look at. A verdict is true where ``ok`` is.
    """

    ok: bool
    says: str
    step: int | None = None
    expected: Any = None
    got: Any = None
    mistake: str | None = None
    hint: str | None = None
    paths: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.says

    def __repr__(self) -> str:
        return self.says

    def figure(self) -> Any:
        """Both trajectories on an elongated bowl, or ``None`` where there is nothing to draw."""
        from .. import figures

        return figures.trajectories(LANDSCAPE, self.paths) if self.paths else None

    def _repr_html_(self) -> str:
        says = "<br>".join(escape(line) for line in self.says.splitlines())
        figure = self.figure()
        if figure is None:
            return f"<p>{says}</p>"
        png, size = figure._repr_png_()
        ends = ", ".join(f"{name} ends at {few(path[-1])}" for name, path in self.paths.items())
        picture = base64.b64encode(png).decode()
        alt = escape(f"Trajectories on an elongated bowl: {ends}.")
        return f'<p>{says}</p><img alt="{alt}" width="{size["width"]}" src="data:image/png;base64,{picture}">'


def check(
    step: Any,
    against: str = "adam",
    *,
    hyper: Mapping[str, Any] | None = None,
    state: Sequence[str] | None = None,
    start: Any = None,
    gradients: Any = None,
    seed: int | None = None,
    seconds: float = 20.0,
) -> Verdict:
    """Hold a student's ``step`` to the rule ``against``, on gradients drawn afresh at every call.

    ``step`` is a function written like a rule, ``step(p, g, t, *state, **hyper) -> new_p, *new_state``; keywords that
    it does not have stay at the rule's default, or at what ``hyper`` says. ``state`` names those states of the rule
    that it keeps, where these are not all. It may be written for plain numbers where the rule treats every number
    alone. A subclass of ``torch.optim.Optimizer`` goes to :func:`check_optimizer`.

    A path worked out by hand is checked as a tensor of the parameters after each step, ``(steps, *p.shape)``, with
    the ``start`` and the ``gradients``, ``(steps, *p.shape)``, that it was worked out for.

    ``seed`` repeats a draw. ``seconds`` is the time that the student's code may take. Whatever the student's code
    does, the answer is a :class:`Verdict`; a wrong argument of the caller raises ``KeyError`` for an unknown rule or
    state, ``TypeError`` for an unknown hyper-parameter, ``ValueError`` for a value out of range.
    """
    rule, fixed = find(against), dict(hyper or {})
    rule.validate(fixed)
    kept = tuple(rule.state) if state is None else tuple(state)
    for name in kept:
        if name not in rule.state:
            raise KeyError(f"{against} has no state {name!r}{suggestion(name, rule.state)}")
    if inspect.isclass(step):
        return check_optimizer(step, against, seed=seed, seconds=seconds, **fixed)
    if gradients is not None:
        return _check_path(step, rule, fixed, start, gradients)
    if isinstance(step, Rule):
        return Verdict(False, f"That is the library's own {step.name}: write the step yourself.")
    if not callable(step):
        return Verdict(False, f"A step is a function, step(p, g, t, ...); what you handed in is {kind(step)}.")
    if (borrowed := borrowed_name(step)) is not None:
        return Verdict(False, f"Your step uses {borrowed}: write the step yourself.")
    try:
        accepted = keywords_of(step, rule, kept)
    except Wrong as wrong:
        return Verdict(False, str(wrong))
    drawn = seed_of(seed)
    cases = draw_cases(rule, {name for name in rule.defaults if name in accepted}, fixed, drawn)
    student = StepFunction(step, rule, kept, accepted)
    verdict = _judge(student, rule, kept, cases, seconds)
    return verdict if not verdict.ok else _laws_of_a_step(student, cases, verdict, seconds)


def check_optimizer(
    cls: Any, against: str = "adam", *, seed: int | None = None, seconds: float = 20.0, **options: Any
) -> Verdict:
    """Hold a subclass of ``torch.optim.Optimizer`` to the rule ``against``: its path, and an optimizer's manners.

    ``options`` are given to the class and to the rule alike. For ``seed``, ``seconds`` and errors see :func:`check`.
    """
    rule = find(against)
    rule.validate(options)
    if not (inspect.isclass(cls) and issubclass(cls, Optimizer)):
        return Verdict(
            False, f"An optimizer is a subclass of torch.optim.Optimizer; what you handed in is {kind(cls)}."
        )
    for parent in cls.__mro__:
        if parent is not Optimizer and parent.__module__.startswith(("stepsize.", "torch.optim")):
            return Verdict(False, f"{cls.__name__} borrows {parent.__name__} from a library: write step yourself.")
    taken = inspect.signature(cls.__init__).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())
    accepted = {name for name in rule.defaults if name in taken or (anything and name in options)}
    cases = draw_cases(rule, accepted, options, seed_of(seed))
    student = OptimizerClass(cls, accepted)
    verdict = _judge(student, rule, (), cases, seconds)
    return verdict if not verdict.ok else _manners(student, cases[0], verdict, seconds)


def _judge(student: Any, rule: Rule, kept: Sequence[str], cases: Sequence[Case], seconds: float) -> Verdict:
    """Every case in turn; at the first departure, which mistake it is."""
    walked: list[list[tuple[Tensor, ...]]] = []
    try:
        with within(seconds):
            walked += [student.walk(case) for case in cases]
            again = student.walk(cases[0])
            drawn = _paths(student, rule)
    except Wrong as wrong:
        return Verdict(False, str(wrong) + (f"\n{wrong.hint}" if wrong.hint else ""), step=wrong.t, hint=wrong.hint)
    except TimeUp:
        return Verdict(False, f"Your code was still running after {seconds:g} s: look for a loop that never ends.")
    if not all(equal(now[0], then[0]) for now, then in zip(again, walked[0], strict=True)):
        hint = "Look for something outside p, g, t and the states that your step reads and changes."
        return Verdict(
            False, f"The same walk, twice, gave two paths: your step remembers something.\n{hint}", 1, hint=hint
        )
    for case, got in zip(cases, walked, strict=True):
        expected = walk_of(rule, case)
        for t, (now, then) in enumerate(zip(got, expected, strict=True), start=1):
            if not equal(now[0], then[0]):
                return _departed(rule, case, t, then[0], now[0], cases, walked, drawn)
    places = [list(rule.state).index(name) + 1 for name in kept]
    for case, got in zip(cases, walked, strict=True):
        for t, (now, then) in enumerate(zip(got, walk_of(rule, case), strict=True), start=1):
            for name, mine, ours in zip(kept, now[1:], (then[place] for place in places), strict=True):
                if not equal(mine, ours):
                    whole = len(kept) == len(rule.state)
                    mistake, look = name_of(rule, cases, walked, states=True) if whole else (None, None)
                    said = (
                        f"Your parameters are right, but the state {name} that you return at step {t} is not what "
                        f"{rule.name} keeps ({case.about}).\n  expected {few(ours)}\n  got      {few(mine)}"
                    )
                    said += f"\nThis is what a well-known mistake leaves there: {mistake}.\n{look}" if mistake else ""
                    return Verdict(False, said, t, ours, mine, mistake, look, drawn)
    steps = sum(len(case.gradients) for case in cases)
    return Verdict(True, f"Right: this is {rule.name}, over {steps} steps of {len(cases)} fresh draws.", paths=drawn)


def _departed(
    rule: Rule,
    case: Case,
    t: int,
    expected: Tensor,
    got: Tensor,
    cases: Sequence[Case],
    walked: Sequence[Sequence[tuple[Tensor, ...]]],
    drawn: Mapping[str, Tensor],
) -> Verdict:
    shown = {name: x for name, x in at_step(case.hyper, t).items() if x is not None and x is not False and x != 0}
    numbers = ", ".join(f"{name}={few(x)}" for name, x in shown.items())
    said = (
        f"Not yet: your parameters leave {rule.name}'s path at step {t} ({case.about}).\n"
        f"  expected {few(expected)}\n  got      {few(got)}\n  with     {numbers}"
    )
    name, hint = name_of(rule, cases, walked)
    if name is None:
        hint = _proportion(case.p if t == 1 else walk_of(rule, case)[t - 2][0], expected, got)
        return Verdict(False, said + (f"\n{hint}" if hint else ""), t, expected, got, None, hint, drawn)
    if name in RULES:
        told = f"What you wrote is {name}, not {rule.name}."
        hint = hint or f"Lay the two equations side by side: {name} and {rule.name}."
    elif " + " in name:
        told = f"This is the path of two mistakes at once: {name}."
    elif name in rule.deviations and rule.deviations[name].kind == "library":
        told = f"This is how {name} has it, not the paper."
    else:
        told = f"This is the path of a well-known mistake: {name}."
    return Verdict(False, f"{said}\n{told}\n{hint}", t, expected, got, name, hint, drawn)


def _proportion(p: Tensor, expected: Tensor, got: Tensor) -> str | None:
    """What can be said of a displacement that no named mistake makes."""
    right, made = (expected - p).flatten(), (got - p).flatten()
    if not made.isfinite().all():
        return "There is an inf or a NaN: look for a division by zero, or a root of a negative number."
    if equal(got, expected, SINGLE):
        return "It differs by rounding alone: look for a number that is kept in float32."
    moved = right != 0
    ratio = made[moved] / right[moved]
    if len(ratio) and not made[~moved].any() and torch.allclose(ratio, ratio[0], rtol=1e-6):
        return f"At that step every number moves {float(ratio[0]):.4g} times as far as it should."
    return None


def _paths(student: Any, rule: Rule) -> dict[str, Tensor]:
    """Both on the bowl, for the picture; nothing where the student's code fails there."""
    surface = landscapes.get(LANDSCAPE)
    start = torch.tensor(surface.start, dtype=torch.float64)
    hyper = {**rule.defaults, "lr": 0.05 if "lr" in student.accepted else rule.defaults["lr"]}
    case = OnTheBowl("the bowl", start, torch.zeros(40, 2), hyper)
    try:
        walks = {rule.name: walk_of(rule, case), "yours": student.walk(case)}
    except Wrong:
        return {}
    return {name: torch.stack([start, *(now[0] for now in walk)]) for name, walk in walks.items()}


def _laws_of_a_step(student: StepFunction, cases: Sequence[Case], verdict: Verdict, seconds: float) -> Verdict:
    """What a right path does not show: that float32 stays float32."""
    case = cases[0]
    narrow = replace(case, p=case.p.float(), gradients=case.gradients.float())
    try:
        with within(seconds):
            student.walk(narrow)
    except (Wrong, TimeUp) as wrong:
        return Verdict(False, f"In float64 your step is right; in float32 it is not. {wrong}", paths=verdict.paths)
    return verdict


def _manners(student: OptimizerClass, case: Case, verdict: Verdict, seconds: float) -> Verdict:
    """What a right path does not show of an optimizer: parameters without gradient, groups, ``state_dict``."""
    hyper = at_step(case.hyper, 1)
    try:
        with within(seconds):
            for law in MANNERS:
                law(student, case, hyper)
    except Wrong as wrong:
        return Verdict(False, f"The path is right, but: {wrong}", hint=wrong.hint, paths=verdict.paths)
    except TimeUp:
        return Verdict(False, f"Your code was still running after {seconds:g} s: look for a loop that never ends.")
    return verdict


def _check_path(path: Any, rule: Rule, fixed: Mapping[str, Any], start: Any, gradients: Any) -> Verdict:
    if start is None:
        raise ValueError("start must be given with gradients: the parameter before the first step")
    p, gs = (torch.as_tensor(x, dtype=torch.float64) for x in (start, gradients))
    if gs.shape[1:] != p.shape:
        raise ValueError(
            f"gradients must have the shape (steps, {', '.join(map(str, p.shape))}), got {tuple(gs.shape)}"
        )
    try:
        theirs = torch.as_tensor(path, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return Verdict(False, f"A path is a tensor, or a list, of numbers; what you handed in is {kind(path)}.")
    if theirs.shape != gs.shape:
        return Verdict(False, f"Your path has the shape {tuple(theirs.shape)}; it must have {tuple(gs.shape)}.")
    case = Case("your path", p, gs, {**rule.defaults, **fixed})
    for t, (got, then) in enumerate(zip(theirs, walk_of(rule, case), strict=True), start=1):
        # By hand, with three or four figures.
        if not torch.allclose(got, then[0], rtol=2e-3, atol=1e-3 * float(p.abs().max())):
            return _departed(rule, case, t, then[0], got, [case], [[(x,) for x in theirs]], {})
    return Verdict(True, f"Right: these are the first {len(gs)} steps of {rule.name}.")


class _Callable(ModuleType):
    """The module called is its function, so that ``from stepsize import check`` gives both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Verdict:
        return check(*args, **kwargs)


_signature = inspect.signature(check)
_self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
_Callable.__call__.__signature__ = _signature.replace(  # type: ignore[attr-defined]
    parameters=[_self, *_signature.parameters.values()]
)
_Callable.__call__.__doc__ = check.__doc__
sys.modules[__name__].__class__ = _Callable
