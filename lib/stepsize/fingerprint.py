"""What code made a run: hashes of it, and the versions, for a run's key and its record."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import platform
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from .rules import RULES, Rule, find
from .search import WRAPPERS, is_rule


def made_by(engine: str, device: torch.device) -> dict[str, str]:
    """What makes a run: engine, device, versions, date. For the record; not part of the run's key."""
    return {
        "engine": engine,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stepsize": _version("stepsize"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


_version = cache(version)


@cache
def optimizer_hash(name: str) -> str:
    """A hash of the rule's code as used and of the helpers it calls; comments and layout do not count.

    A wrapper may call any rule: for it, the code of all wrappers and all rules counts.
    """
    if is_rule(name):
        return rule_hash(find(name))
    modules = sorted({face.__module__ for wrapper in WRAPPERS.values() for face in wrapper.__mro__})
    ours = [module_hash(module) for module in modules if module.startswith("stepsize.")]
    return digest([*ours, *map(rule_hash, RULES.values())])


def rule_hash(rule: Rule) -> str:
    """As :func:`optimizer_hash`, for a rule in hand."""
    seen = {"": _bare(rule.source)}
    queue = [rule.function]
    while queue:
        function = queue.pop()
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if name in seen or value is None:
                continue
            if isinstance(value, FunctionType) and value.__module__.startswith("stepsize."):
                seen[name] = _bare(textwrap.dedent(inspect.getsource(value)))
                queue.append(value)
            elif isinstance(value, (int, float, str, tuple)):
                seen[name] = repr(value)
    return digest(seen)


def function_hash(function: FunctionType, *more: Any) -> str:
    """A hash of an experiment: its code and that of our helpers it calls, and the rules and tasks it names.

    The sweep and the engines do not count: tests hold them to the loop. ``more`` is anything else, as JSON.
    """
    from .tasks import TASKS

    seen: dict[str, Any] = {"": more}
    queue, words = [function], set(_words(more))
    while queue:
        function = queue.pop()
        if function.__qualname__ in seen:
            continue
        seen[function.__qualname__] = _undecorated(function)
        codes = list(_codes(function.__code__))
        words |= set(_words([[*code.co_consts] for code in codes]))
        words |= set(_words([function.__defaults__, function.__kwdefaults__]))
        names = {name for code in codes for name in code.co_names}
        for name in sorted(names):
            value = function.__globals__.get(name)
            if name.isupper() and _is_plain(value):
                seen[name] = value
                words |= set(_words(value))
            inside = vars(value).values() if isinstance(value, ModuleType) else [value]
            queue += [x for x in inside if isinstance(x, FunctionType) and x.__name__ in names and _counts(x)]
    for word in words:
        plain = word.partition(":")[0]
        if plain in TASKS:
            seen[f"task {word}"] = task_hash(type(TASKS[plain]))
        elif plain in RULES or word in WRAPPERS:
            # A word with a colon may be no variant but a format.
            with suppress(KeyError):
                seen[f"rule {word}"] = optimizer_hash(word)
    return digest(seen)


# Modules whose functions are part of an experiment that calls them.
EXPERIMENTS = ("stepsize.claims.", "stepsize.landscapes", "stepsize.schedules")


def _counts(function: FunctionType) -> bool:
    return function.__module__.startswith(EXPERIMENTS)


def _undecorated(function: FunctionType) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    return _bare(ast.unparse(tree))


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _words(what: Any) -> Iterator[str]:
    """The strings anywhere in nested tuples, lists and mappings."""
    if isinstance(what, str):
        yield what
    elif isinstance(what, Mapping):
        yield from _words([*what.keys(), *what.values()])
    elif isinstance(what, (tuple, list, frozenset, set)):
        for part in what:
            yield from _words(part)


@cache
def task_hash(kind: type) -> str:
    """A hash of the modules of a task's class and of those it inherits from, and of what these import beside them."""
    names = {cls.__module__ for cls in kind.__mro__ if cls.__module__.startswith("stepsize.") or cls is kind}
    queue = list(names)
    while queue:
        for module in map(sys.modules.get, _imported(queue.pop())):
            if module is not None and module.__name__.startswith("stepsize.tasks.") and module.__name__ not in names:
                names.add(module.__name__)
                queue.append(module.__name__)
    return digest([module_hash(name) for name in sorted(names)])


def _imported(name: str) -> list[str]:
    """The modules of its own package that a module imports by ``from .x import y``."""
    package = name.rpartition(".")[0]
    nodes = [node for node in ast.walk(ast.parse(_source(name))) if isinstance(node, ast.ImportFrom)]
    return [f"{package}.{node.module}" for node in nodes if node.level == 1 and node.module]


@cache
def module_hash(name: str) -> str:
    """A hash of a module's code."""
    return digest(_bare(_source(name)))


def _source(name: str) -> str:
    try:
        return inspect.getsource(sys.modules[name])
    except (OSError, TypeError):
        # A module without a file, such as a notebook's: its name is all there is.
        return repr(name)


def digest(what: Any) -> str:
    """The SHA-256 of something as JSON."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _bare(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
