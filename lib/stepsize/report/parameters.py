"""What a report may be given: its cell of parameters, read and held to what stands there in brackets.

A parameter is a line ``name = default  # what it is [what is allowed]``.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..rules.base import suggestion

COMMENT = re.compile(r"(?P<words>.*?)\s*(?:\[(?P<allowed>[^\]]*)\])?")
NUMBER = r"(-?[\w.]+)"


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, its default, what it is in ``words``, and what is ``allowed`` (both may be empty)."""

    name: str
    default: Any
    words: str
    allowed: str

    def __str__(self) -> str:
        told = " ".join(filter(None, [self.words, self.allowed and f"[{self.allowed}]"]))
        return f"{self.name} = {_typed(self.default)}" + (f"  # {told}" if told else "")

    def value(self, text: str) -> Any:
        """``text`` as a value of the default's type; ``ValueError`` names the parameter and what is allowed."""
        kind = type(self.default)
        if kind is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError(f"{self.name} must be true or false, got {text!r}")
            return text.lower() == "true"
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{self.name} must be {what}, got {text!r}") from None
        if kind is float and not math.isfinite(value):
            raise ValueError(f"{self.name} must be a finite number, got {text!r}")
        return value


def read(source: str) -> dict[str, Parameter]:
    """The parameters in the source of a notebook's cell of parameters, by name."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name), "one name = value a line"
        told = COMMENT.fullmatch(comments.get(node.lineno, ""))
        assert told is not None
        name = node.targets[0].id
        allowed = told["allowed"] or ""
        if allowed and not any(re.fullmatch(pattern, allowed) for pattern in ALLOWED):
            raise ValueError(f"the report says of {name} that it must be [{allowed}], which nothing can check")
        found[name] = Parameter(name, ast.literal_eval(node.value), told["words"], allowed)
    return found


def checked(known: Mapping[str, Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    """The values of the parameters ``given`` as text, and the defaults of the others, all of them allowed.

    Raises ``ValueError``, in one sentence, for an unknown name, a wrong type, or what is out of range.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"the report has no parameter {name!r}{suggestion(name, known)}")
    values = {name: known[name].value(given[name]) if name in given else known[name].default for name in known}
    for name, parameter in known.items():
        for pattern, check in ALLOWED.items():
            if match := re.fullmatch(pattern, parameter.allowed):
                try:
                    check(name, values[name], *(_bound(part, values) for part in match.groups()))
                except KeyError as error:
                    raise ValueError(f"{name}: {error.args[0]}") from None
                break
    return values


def names(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str) -> list[float]:
    """The numbers of a list with commas, in order."""
    return sorted({float(word) for word in names(text)})


def span(text: str) -> tuple[float, float] | None:
    """``LO:HI`` as two numbers, ``auto`` as nothing."""
    if text == "auto":
        return None
    low, high = map(float, text.split(":"))
    return low, high


def _bound(text: str, values: Mapping[str, Any]) -> Any:
    """A bound is a number, or another parameter's name and value; a list stays text."""
    if text in values:
        return text, values[text]
    try:
        return text, float(text)
    except ValueError:
        return text, text


def _typed(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _between(name: str, value: float, low: Any, high: Any) -> None:
    if not low[1] <= value <= high[1]:
        raise ValueError(f"{name} must be from {low[0]} to {high[0]}, got {value:g}")


def _at_least(name: str, value: float, low: Any) -> None:
    if not value >= low[1]:
        raise ValueError(f"{name} must be {low[0]} or more, got {value:g}")


def _above(name: str, value: float, low: Any) -> None:
    if not value > low[1]:
        what = low[0] if low[0] == f"{low[1]:g}" else f"{low[0]}, {low[1]:g}"
        raise ValueError(f"{name} must be above {what}, got {value:g}")


def _one_of(name: str, value: str, words: Any) -> None:
    known = names(words[0])
    if value not in known:
        raise ValueError(f"{name} has no {value!r}{suggestion(value, known)}")


def _some_of(name: str, value: str, words: Any) -> None:
    for word in _several(name, value):
        _one_of(name, word, words)


def _several(name: str, value: str) -> list[str]:
    words = names(value)
    if not words:
        raise ValueError(f"{name} must name one or more, with commas, got {value!r}")
    if twice := [word for word in words if words.count(word) > 1]:
        raise ValueError(f"{name} has {twice[0]} twice")
    return words


def _task(name: str, value: str) -> None:
    from ..sweep import ready_task

    ready_task(value)


def _tasks(name: str, value: str) -> None:
    for word in _several(name, value):
        _task(name, word)


def _optimizers(name: str, value: str) -> None:
    from ..search import grid

    for word in _several(name, value):
        grid(word, {})


def _optimizers_or_all(name: str, value: str) -> None:
    if value != "all":
        _optimizers(name, value)


def _rates(name: str, value: str) -> None:
    try:
        ends = span(value)
    except ValueError:
        ends = (0.0, 0.0)
    if ends is not None and not 0 < ends[0] < ends[1] < math.inf:
        raise ValueError(f"{name} must be auto, or LO:HI such as 1e-3:1, got {value!r}")


def _positive(name: str, value: str) -> None:
    try:
        found = numbers(value)
    except ValueError:
        found = []
    if not found or not 0 < found[0] <= found[-1] < math.inf:
        raise ValueError(f"{name} must be numbers above 0, with commas, got {value!r}")


def _store(name: str, value: str) -> None:
    if value and not Path(value).absolute().parent.is_dir():
        raise ValueError(f"{name}: there is no folder {Path(value).parent} to hold {Path(value).name}")


def _rule_file(name: str, value: str) -> None:
    from .. import own_rule
    from .notebook import rule_file

    own_rule.ready(rule_file(value))


# What may stand in the brackets -> what holds a value to it.
ALLOWED: dict[str, Callable[..., None]] = {
    rf"{NUMBER} to {NUMBER}": _between,
    rf"{NUMBER} or more": _at_least,
    rf"above {NUMBER}": _above,
    r"one of (.+)": _one_of,
    r"some of (.+)": _some_of,
    r"numbers above 0": _positive,
    r"auto or LO:HI": _rates,
    r"a task": _task,
    r"tasks": _tasks,
    r"optimizers": _optimizers,
    r"optimizers, or all": _optimizers_or_all,
    r"a store": _store,
    r"a rule file": _rule_file,
}
