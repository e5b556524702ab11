"""A rule from a file of the reader's own: loaded, held to the laws, and known here and in the processes of a sweep."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from . import fingerprint
from .laws import laws_of
from .rules import RULES, Rule

# Where the modules of such files stand: what their rules call counts in the key of a run, as for our own rules.
PACKAGE = "stepsize.own"
# What training cannot do without. A method may break the other laws on purpose; a report says so.
NEEDED = (
    "defaults are allowed",
    "inputs are left alone",
    "shapes are kept",
    "steps are finite",
    "float32",
    "hyper parameters as tensors",
    "step count as tensor",
    "runs as a batch",
)

# The files loaded in this process: the text that was run, and the name of the rule in it.
_loaded: dict[str, tuple[str, str]] = {}


def load(path: str | Path) -> Rule:
    """Run the Python file at ``path``, and register the one rule in it; the file runs with all your rights.

    Loaded again, the file is read anew. Raises ``ValueError``, in one sentence, where it is missing, does not run,
    holds no rule or several, or its rule has the name of one that there is.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no rule file {path}")
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a Python file: it is no text in UTF-8") from None
    return _load(Path(path).resolve(), text, str(path))


def _load(file: Path, text: str, shown: str) -> Rule:
    if str(file) in _loaded:
        RULES.pop(_loaded.pop(str(file))[1], None)
    before = set(RULES)
    try:
        _run(file, text)
        found = [name for name in RULES if name not in before]
        if len(found) != 1:
            holds = f"{len(found)} rules ({', '.join(found)})" if found else "no rule"
            raise LookupError(
                f"{shown} holds {holds}: it must hold one function under the decorator stepsize.rules.rule"
            )
    except BaseException as error:
        for name in set(RULES) - before:
            del RULES[name]
        if isinstance(error, LookupError) and str(error.args[0]).startswith(shown):
            raise ValueError(error.args[0]) from None
        if isinstance(error, SyntaxError):
            raise ValueError(f"{shown}, line {error.lineno}: {error.msg}") from None
        if isinstance(error, Exception):
            raise ValueError(f"{shown} does not run ({type(error).__name__}: {error})") from error
        raise
    _loaded[str(file)] = text, found[0]
    fingerprint.optimizer_hash.cache_clear()
    return RULES[found[0]]


def _run(file: Path, text: str) -> None:
    module = ModuleType(f"{PACKAGE}.{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    # The rule's source is what was run, whatever becomes of the file.
    linecache.cache[str(file)] = (len(text), None, text.splitlines(True), str(file))
    exec(compile(text, str(file), "exec"), vars(module))


def ready(path: str | Path) -> Rule:
    """:func:`load`, and ``ValueError`` if the rule breaks a law that training needs."""
    rule = load(path)
    broken = [f"{name} ({sentence})" for name, ok, sentence in laws_of(rule) if not ok and name in NEEDED]
    if broken:
        many = "laws" if len(broken) > 1 else "a law"
        raise ValueError(f"{path}: {rule.name} breaks {many} that training needs: {'; '.join(broken)}")
    return rule


def files() -> tuple[tuple[str, str], ...]:
    """The files loaded in this process with their text, for another one to load."""
    return tuple((file, text) for file, (text, _) in _loaded.items())


def forget() -> None:
    """Take all rules from files out of this process."""
    for _, name in _loaded.values():
        RULES.pop(name, None)
    _loaded.clear()
    fingerprint.optimizer_hash.cache_clear()


def load_all(loaded: Sequence[tuple[str, str]]) -> None:
    """Load what :func:`files` gave in the process that this one works for."""
    for file, text in loaded:
        _load(Path(file), text, file)
