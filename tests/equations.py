"""Evaluates a rule's printed equation, a small subset of LaTeX, in 40 digits: by mpmath and numpy, without torch.

An equation is read line by line into closures of an environment ``{symbol: value}``; a value is a number or a numpy
array of numbers. ``\\hat{m}_t`` and ``\\hat m_t`` are one symbol. What a line sets as ``x_t`` is ``x_{t-1}`` at the
next step. **State** is every left side ``x_t`` that some right side reads as ``x_{t-1}``, in the order of the lines; it
starts at zero and stands for the rule's states in their order. A choice (``cases``) works out only the branch it takes.
``n`` is how many numbers the parameter has, ``\\dim`` how many dimensions; ``rowsum`` runs over all of them but the
first, ``colsum`` over the first.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from mpmath import MPContext
from stepsize.laws import at_step

mp = MPContext()
mp.dps = 40

Env = dict[str, Any]
Term = Callable[[Env], Any]

TOKEN = re.compile(r"\\\\|\\[A-Za-z]+|\d+(?:\.\d+)?|[A-Za-z]|[^\s\\]")
SPACING = re.compile(r"\\(?:left|right|big|Big|quad|qquad)(?![A-Za-z])|(?<!\\)\\[,;:! ]")
ACCENTS = (r"\hat", r"\bar", r"\tilde", r"\mathrm", r"\mathbf")
PRODUCTS = (r"\odot", r"\cdot", r"\times")
RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<": operator.lt, ">": operator.gt, r"\le": operator.le, r"\leq": operator.le,
    r"\ge": operator.ge, r"\geq": operator.ge, r"\ne": operator.ne, r"\neq": operator.ne,
}  # fmt: skip
ENDS = ("", "+", "-", ",", ")", "]", "}", "&", "|", r"\\", r"\end", r"\rVert", r"\rvert", r"\leftarrow", *RELATIONS)


def exact(x: Any) -> Any:
    """A number or array of floats as the same numbers in 40 digits."""
    return np.frompyfunc(lambda value: mp.mpf(float(value)), 1, 1)(np.asarray(x, dtype=object))


def norm(x: Any) -> Any:
    return mp.sqrt(np.sum(np.asarray(x * x)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    r"\max": np.frompyfunc(max, 2, 1),
    r"\min": np.frompyfunc(min, 2, 1),
    r"\log": np.frompyfunc(mp.log, 1, 1),
    r"\sqrt": np.frompyfunc(mp.sqrt, 1, 1),
    "rowsum": lambda x: x.sum(axis=tuple(range(1, x.ndim)), keepdims=True) if x.ndim > 1 else x,
    "colsum": lambda x: x.sum(axis=0, keepdims=True),
}


class Reader:
    """Recursive descent over the tokens of one equation."""

    def __init__(self, latex: str) -> None:
        self.tokens = TOKEN.findall(SPACING.sub(" ", latex))
        self.at = 0
        self.names: set[str] = set()

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = r".+") -> str:
        """The next token, which must match the regular expression ``expected``."""
        token = self.next()
        if not re.fullmatch(expected, token):
            rest = " ".join(self.tokens[self.at : self.at + 8])
            raise ValueError(f"expected {expected!r} in the equation, found {rest!r}")
        self.at += 1
        return token

    def accept(self, *tokens: str) -> str:
        return self.take() if self.next() in tokens and self.next() else ""

    def lines(self) -> Iterator[tuple[str, Term]]:
        while self.next():
            left = self.symbol()
            self.take("&")
            if not self.accept(r"\leftarrow"):
                self.take("=")
            yield left, self.sum()
            if self.next():
                self.take(re.escape(r"\\"))

    def group(self) -> str:
        """The text of ``{...}`` or of a single token."""
        if not self.accept("{"):
            return self.take()
        text = ""
        while not self.accept("}"):
            text += self.take()
        return text

    def symbol(self) -> str:
        name = self.take(r"\\?[A-Za-z]+")
        if name in ACCENTS:
            name = f"{name} {self.group()}"
        name = f"{name}_{self.group()}" if self.accept("_") else name
        self.names.add(name)
        return name

    def sum(self) -> Term:
        value = apply(operator.neg, self.product()) if self.accept("-") else self.product()
        while sign := self.accept("+", "-"):
            value = apply(operator.add if sign == "+" else operator.sub, value, self.product())
        return value

    def product(self) -> Term:
        value = self.power()
        while self.next() not in ENDS:
            over = self.accept("/", *PRODUCTS) == "/"
            value = apply(operator.truediv if over else operator.mul, value, self.power())
        return value

    def power(self) -> Term:
        value = self.atom()
        return apply(operator.pow, value, self.atom()) if self.accept("^") else value

    def between(self, close: str) -> Term:
        value = self.sum()
        self.take(re.escape(close))
        return value

    def arguments(self) -> list[Term]:
        close = {"(": ")", "{": "}", "[": "]"}[self.take()]
        values = [self.sum()]
        while self.accept(","):
            values.append(self.sum())
        self.take(re.escape(close))
        return values

    def atom(self) -> Term:
        token = self.next()
        if token == r"\begin":
            return self.cases()
        if token in ("(", "{", "["):
            return self.arguments()[0]
        if token == r"\frac":
            self.take()
            return apply(operator.truediv, *self.arguments(), *self.arguments())
        if token in FUNCTIONS:
            return apply(FUNCTIONS[self.take()], *self.arguments())
        if token == r"\operatorname":
            self.take()
            return apply(FUNCTIONS[self.group()], *self.arguments())
        if token == r"\lVert":
            self.take()
            return apply(norm, self.between(r"\rVert"))
        if token[:1].isdigit():
            return constant(mp.mpf(self.take()))
        return look_up(self.symbol())

    def cases(self) -> Term:
        """``\\begin{cases} value & condition \\\\ ... \\end{cases}``: the first whose condition holds."""
        self.take(), self.group()
        branches: list[tuple[Term, Term]] = []
        while not self.accept(r"\end"):
            value = self.sum()
            self.take("&")
            branches.append((value, self.condition()))
            self.accept(r"\\")
        self.group()
        return lambda env: next(value(env) for value, holds in branches if holds(env))

    def condition(self) -> Term:
        if self.accept(r"\text"):
            name = self.group()
            self.names.add(name)
            return constant(True) if name == "otherwise" else look_up(name)
        left = self.sum()
        return apply(RELATIONS[self.take()], left, self.sum())


def apply(function: Callable[..., Any], *terms: Term) -> Term:
    return lambda env: function(*(term(env) for term in terms))


def constant(value: Any) -> Term:
    return lambda env: value


def look_up(name: str) -> Term:
    return lambda env: env[name]


class Equation:
    """The printed equation of a rule; ``symbols`` gives the LaTeX of each of its hyper-parameters."""

    def __init__(self, latex: str, symbols: Mapping[str, str]) -> None:
        self.symbols = symbols
        reader = Reader(latex)
        self.steps, self.names = list(reader.lines()), reader.names
        left = dict.fromkeys(name for name, _ in self.steps if name != r"\theta_t")
        self.state = [name for name in left if name.endswith("_t") and f"{name}-1" in self.names]

    def mentions(self, hyper: str, value: Any) -> bool:
        """Whether the hyper-parameter stands in the equation."""
        return bool(self._values(hyper, value).keys() & self.names)

    def _values(self, hyper: str, value: Any) -> Env:
        """What a hyper-parameter puts into the environment: ``betas`` puts two numbers, ``amsgrad`` its own name."""
        latex = self.symbols.get(hyper, hyper)
        if hyper not in self.symbols:
            return {hyper: value}
        values = value if isinstance(value, tuple) else (value,)
        if len(values) > 1 and "," not in latex:
            latex = ",".join(f"{latex}_{i}" for i in range(1, len(values) + 1))
        names = [Reader(part).symbol() for part in latex.strip("()").split(",")]
        return {
            name: x if x is None or isinstance(x, bool) else mp.mpf(x) for name, x in zip(names, values, strict=True)
        }

    def run(self, p: Any, gradients: Iterable[Any], hyper: Mapping[str, Any]) -> Iterator[tuple[Any, list[Any]]]:
        """The parameter and its states after each gradient, under the hyper-parameters of ``at_step``."""
        env: Env = {r"\theta_t": exact(p)} | dict.fromkeys(self.state, mp.mpf(0))
        for t, g in enumerate(gradients, start=1):
            env = {f"{name}-1": value for name, value in env.items() if name.endswith("_t")}
            env |= {"t": mp.mpf(t), "g_t": exact(g), "n": mp.mpf(np.size(p)), r"\dim": mp.mpf(np.ndim(p))}
            now = at_step(hyper, t)
            for name, value in now.items():
                # The rate that a run began with, where nobody says which: that of this step.
                env |= self._values(name, now["lr"] if name == "base_lr" and value is None else value)
            for name, term in self.steps:
                env[name] = term(env)
            yield env[r"\theta_t"], [env[name] for name in self.state]
