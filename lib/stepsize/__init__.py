"""Stepsize: the road from SGD to NovoGrad, to run."""

from importlib import import_module
from typing import Any

# Imported when first asked for, so that `import stepsize` costs nothing.
MODULES = (
    "check",
    "claims",
    "explore",
    "figures",
    "landscapes",
    "optim",
    "own_rule",
    "playground",
    "report",
    "rules",
    "stats",
    "store",
    "sweep",
    "tasks",
)

__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"stepsize has no {name!r}; it has {', '.join(MODULES)}")
