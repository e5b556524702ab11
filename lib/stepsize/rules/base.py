"""What a rule is: one pure function per method, with its named deviations beside it."""

from __future__ import annotations

import ast
import difflib
import inspect
import linecache
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

# How many numbers a state holds for a parameter of a given shape, and the shape they are kept in.
STATE_SHAPES: dict[str, Callable[[torch.Size], tuple[int, ...]]] = {
    "tensor": lambda shape: tuple(shape),
    "layer": lambda shape: (),
    "row": lambda shape: (*shape[:1], *(1 for _ in shape[1:])),
    "column": lambda shape: (*(1 for _ in shape[:1]), *shape[1:]),
}

# The book's symbol for each name; the notation page and the test of the printed equations read it.
SYMBOLS: dict[str, str] = {
    "p": r"\theta",
    "g": "g",
    "t": "t",
    "lr": r"\eta",
    "betas": r"(\beta_1, \beta_2)",
    "eps": r"\epsilon",
    "weight_decay": r"\lambda",
    "momentum": r"\mu",
    "dampening": r"\delta",
    "trust_coefficient": r"\kappa",
    "trust_clip": r"\tau",
    "layer_lr_clip": r"\zeta",
    "clip_threshold": "d",
    "decay_rate": "c",
    "beta": r"\beta",
    "mu": r"\mu",
    "alpha": r"\alpha",
    "rho": r"\rho",
    "momentum_decay": r"\psi",
    "final_lr": r"\eta_\infty",
    "gamma": r"\gamma",
    "base_lr": r"\eta_0",
}

# hyper-parameter -> (test, what is allowed). A name that is not here takes any value.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda x: 0 <= x < math.inf, "0 or more and finite"),
    "betas": (lambda x: 0 <= x < 1, "two numbers in [0, 1)"),
    "eps": (lambda x: 0 <= x < math.inf, "0 or more"),
    "weight_decay": (lambda x: 0 <= x < math.inf, "0 or more"),
    "momentum": (lambda x: 0 <= x < 1, "in [0, 1)"),
    "dampening": (lambda x: 0 <= x <= 1, "in [0, 1]"),
    "trust_coefficient": (lambda x: 0 < x < math.inf, "positive and finite"),
    "trust_clip": (lambda x: x > 0, "positive"),
    "layer_lr_clip": (lambda x: x > 0, "positive, or None"),
    "clip_threshold": (lambda x: x > 0, "positive"),
    "decay_rate": (lambda x: 0 <= x < math.inf, "0 or more"),
    "beta": (lambda x: 0 <= x < 1, "in [0, 1)"),
    "mu": (lambda x: 0 <= x < 1, "in [0, 1)"),
    "alpha": (lambda x: 0 <= x < 1, "in [0, 1)"),
    "rho": (lambda x: 0 <= x < 1, "in [0, 1)"),
    "momentum_decay": (lambda x: 0 <= x < math.inf, "0 or more"),
    "final_lr": (lambda x: 0 <= x < math.inf, "0 or more and finite"),
    "gamma": (lambda x: 0 < x < 1, "in (0, 1)"),
    "base_lr": (lambda x: 0 < x < math.inf, "positive and finite"),
}

RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Deviation:
    """A named change to a rule.

    ``kind`` is ``"library"`` (how a library or the authors' code differs from the paper) or
    ``"mistake"`` (what people get wrong). ``hint`` says in one sentence where to look, never the
    answer. ``rule`` is the changed rule, itself a :class:`Rule`; ``changes`` are the edits of the
    source that make it, empty where the deviation is written out as a function of its own.
    """

    name: str
    kind: str
    hint: str
    rule: Rule
    changes: Mapping[str, str] = field(default_factory=dict)


class Rule:
    """One method, as the paper writes it: ``new_p, *new_state = rule(p, g, t, *state, **hyper)``.

    ``p`` and ``g`` are the parameter and its gradient, of one shape; ``t`` is 1, 2, 3, …; each
    state is as ``rule.state`` says: ``"tensor"`` (like ``p``), ``"layer"`` (one number), ``"row"``
    or ``"column"`` (one number per slice of the first dimension, or per place in the others).
    Hyper-parameters are keyword-only, with the paper's defaults, and may be tensors. A rule
    changes nothing in place and has no branch on a value.

    Attributes: ``name``, ``defaults``, ``state``, ``paper``, ``year``, ``equation`` (LaTeX, one
    ``left &= right`` a line, in the order of computation), ``deviations``, ``source``, ``memory``.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        state: Mapping[str, str],
        paper: str,
        year: int,
        equation: str,
        optimizer: str | None = None,
    ) -> None:
        unknown = sorted(set(state.values()) - set(STATE_SHAPES))
        if unknown:
            raise ValueError(f"state of {name} must be one of {sorted(STATE_SHAPES)}, got {unknown}")
        self.name = name
        self._original = function
        self._changes: Mapping[str, str] = {}
        self.state = dict(state)
        self.paper = paper
        self.year = year
        self.equation = textwrap.dedent(equation).strip()
        self.optimizer = optimizer
        self.deviations: dict[str, Deviation] = {}
        self.__doc__ = inspect.getdoc(function)

    def __call__(self, p: Tensor, g: Tensor, t: int | Tensor, *state: Tensor, **hyper: Any) -> tuple[Tensor, ...]:
        return self.function(p, g, t, *state, **hyper)

    def __repr__(self) -> str:
        return f"<rule {self.name}: {self.paper}>"

    def _repr_latex_(self) -> str:
        return f"$$\\begin{{aligned}}\n{self.equation}\n\\end{{aligned}}$$"

    def __reduce__(self) -> tuple[Callable[[str], Rule], tuple[str]]:
        return find, (self.name,)

    def init(self, p: Tensor) -> tuple[Tensor, ...]:
        """Zeros for each state of parameter ``p``, in ``p``'s dtype and on its device."""
        return tuple(
            torch.zeros_like(p) if kind == "tensor" else p.new_zeros(STATE_SHAPES[kind](p.shape))
            for kind in self.state.values()
        )

    @cached_property
    def function(self) -> Callable[..., tuple[Tensor, ...]]:
        """The plain function behind the rule."""
        if not self._changes:
            return self._original
        # Tracebacks and inspect.getsource read the edited text from here.
        filename = f"<stepsize.rules {self.name}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(True), filename)
        namespace = dict(self._original.__globals__)
        exec(compile(self.source, filename, "exec"), namespace)
        return namespace[self._original.__name__]

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The hyper-parameters and their defaults, in the order of the signature."""
        function = self.function if self._changes else self._original
        return {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @cached_property
    def source(self) -> str:
        """The rule as text, without decorator and docstring: what a chapter prints."""
        source = _without_docstring(textwrap.dedent(inspect.getsource(self._original)))
        for old, new in self._changes.items():
            if source.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} occurs {source.count(old)} times in the rule, not once")
            source = source.replace(old, new)
        return source

    @property
    def memory(self) -> str:
        """Numbers of state per tensor of n parameters, such as ``2n`` or ``n + 1``."""
        kinds = list(self.state.values())
        words = {"layer": "1", "row": "rows", "column": "columns"}
        tensors = kinds.count("tensor")
        parts = [f"{tensors if tensors > 1 else ''}n"] if tensors else []
        layers = kinds.count("layer")
        parts += [str(layers)] if layers else []
        parts += [words[kind] for kind in kinds if kind in ("row", "column")]
        return " + ".join(parts) or "0"

    def changed(self, name: str, changes: Mapping[str, str], *, state: Mapping[str, str] | None = None) -> Rule:
        """The same rule under another name, with edits ``{old text: new text}`` of its source.

        Each old text must occur exactly once, else ``source`` raises ``ValueError``.
        """
        rule = Rule(
            name,
            self._original,
            state=self.state if state is None else state,
            paper=self.paper,
            year=self.year,
            equation=self.equation,
            optimizer=self.optimizer,
        )
        rule._changes = {**self._changes, **changes}
        return rule

    def mistake(self, name: str, hint: str, changes: Mapping[str, str]) -> None:
        """Register what people get wrong, as edits of the source, with a hint that is not the answer."""
        self._deviate(name, "mistake", hint, self.changed(f"{self.name}:{name}", changes), changes)

    def library(
        self, name: str, hint: str, changes: Mapping[str, str] | None = None, *, state: Mapping[str, str] | None = None
    ) -> Any:
        """Register how a library differs: as edits, or (without ``changes``) as a decorator of a whole function."""
        full_name = f"{self.name}:{name}"
        if changes is not None:
            return self._deviate(name, "library", hint, self.changed(full_name, changes, state=state), changes)

        def decorate(function: Callable[..., Any]) -> Rule:
            rule = Rule(
                full_name,
                function,
                state=self.state if state is None else state,
                paper=self.paper,
                year=self.year,
                equation=self.equation,
                optimizer=self.optimizer,
            )
            self._deviate(name, "library", hint, rule, {})
            return rule

        return decorate

    def _deviate(self, name: str, kind: str, hint: str, rule: Rule, changes: Mapping[str, str]) -> None:
        if name in self.deviations:
            raise ValueError(f"{self.name} has a deviation {name!r} already")
        self.deviations[name] = Deviation(name, kind, hint, rule, dict(changes))

    def validate(self, hyper: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` (or ``TypeError`` for an unknown name) in one sentence if a value is out of range."""
        for name, value in hyper.items():
            if name not in self.defaults:
                raise TypeError(f"{self.name} has no {name!r}{suggestion(name, self.defaults)}")
            default = self.defaults[name]
            if name not in RANGES or (value is None and default is None):
                continue
            allowed, words = RANGES[name]
            several = len(default) if isinstance(default, tuple) else 0
            values = list(value) if several and isinstance(value, (tuple, list)) else [value]
            if len(values) != (several or 1) or not all(_is_number(x) and allowed(float(x)) for x in values):
                words = f"{several} numbers, each {words}" if several and name != "betas" else words
                raise ValueError(f"{name} must be {words}, got {value!r}")


def rule(
    *, state: Mapping[str, str], paper: str, year: int, equation: str, optimizer: str | None = None
) -> Callable[[Callable[..., Any]], Rule]:
    """Register the decorated function in ``RULES`` under its own name.

    ``optimizer`` names the class that ``stepsize.optim`` makes of it. ``ValueError`` if the name is taken.
    """

    def decorate(function: Callable[..., Any]) -> Rule:
        name = function.__name__
        if name in RULES:
            raise ValueError(f"a rule named {name!r} exists already")
        made = Rule(name, function, state=state, paper=paper, year=year, equation=equation, optimizer=optimizer)
        RULES[name] = made
        return made

    return decorate


def find(name: str) -> Rule:
    """The rule ``"adam"``, or its deviation ``"adam:torch"``; ``KeyError`` names the nearest known one."""
    base, _, deviation = name.partition(":")
    if base not in RULES:
        raise KeyError(f"no rule named {base!r}{suggestion(base, RULES)}")
    if not deviation:
        return RULES[base]
    deviations = RULES[base].deviations
    if deviation not in deviations:
        raise KeyError(f"{base} has no deviation {deviation!r}{suggestion(deviation, deviations)}")
    return deviations[deviation].rule


def suggestion(name: str, known: Iterable[str]) -> str:
    """How an error about a wrong name ends: ``; did you mean 'adam'?`` or the list of what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of one layer's tensor, a 0-d tensor: every layer norm in a rule is taken here."""
    return torch.linalg.vector_norm(x)


def row_sum(x: Tensor) -> Tensor:
    """The sums over all dimensions of a layer's tensor but the first, kept as ones; an element is a vector's row."""
    return x.sum(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x


def column_sum(x: Tensor) -> Tensor:
    """The sums over the first dimension of a layer's tensor, kept as one."""
    return x.sum(0, keepdim=True) if x.ndim > 0 else x


def where(condition: bool | Tensor, yes: Any, no: Any) -> Any:
    """``yes`` if ``condition`` else ``no``, for a condition on ``t`` or a hyper-parameter, number or tensor."""
    if hasattr(condition, "__torch_function__"):  # a tensor, or what stands for one
        return torch.where(condition, yes, no)  # type: ignore[arg-type]
    return yes if condition else no


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) or (isinstance(x, Tensor) and x.numel() == 1)


def _without_docstring(source: str) -> str:
    """The function alone: decorator lines and docstring removed, comments kept."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    lines = source.splitlines(keepends=True)
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "".join(lines[function.lineno - 1 :])
