"""What is trained: data, model, loss and metrics. A new file here that calls ``@task`` is a new task everywhere."""

from importlib import import_module
from pkgutil import iter_modules

from .base import TASKS, Task, task
from .options import find

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["TASKS", "Task", "find", "task"]
