"""Train many runs, each once: ``sweep(task, optimizers, seeds, steps)`` gives their ``Runs``."""

from __future__ import annotations

import inspect
import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from . import schedules, tasks
from .distributed import executors
from .engines import LATE, compiled, cuda_graph, native
from .engines import sweep as batched
from .fingerprint import digest, made_by, module_hash, optimizer_hash, task_hash
from .rules import find
from .runs import Runs
from .search import BUDGET, COURSE, WRAPPERS, Settings, defaults, grid, is_rule, log_grid, next_rates, optimizer
from .store import Store
from .tasks import Task

__all__ = ["WRAPPERS", "Run", "grid", "log_grid", "plan", "sweep"]

# The fewest runs that a process trains at once, where they are batched.
FEWEST = 8
# A run has diverged if a loss was not finite, or if its training loss ends this many times above where it began.
DIVERGED_ABOVE = 2.0
# What else moves the parameters, by engine.
CODE = {
    "native": [f"engines.{name}" for name in ("compiled", "trace", "print_c", "native", "capture", "print_tape")],
    "compiled": ["engines.compiled", "engines.trace", "engines.print_c"],
    "batched": [],
    "loop": ["engines.loop", "optim"],
}
ENGINES = ("auto", "native", "compiled", "batched", "loop")


def sweep(
    task: str,
    optimizers: Mapping[str, Settings | Sequence[Settings]],
    seeds: Iterable[int] | int = range(5),
    steps: int | None = None,
    store: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    progress: bool | str = True,
    cluster: Any = None,
    *,
    budget: int | None = None,
    schedule: str | None = None,
    warmup_steps: int = 0,
    early_stop: bool = False,
    workers: int | str = "auto",
    checkpoint: float = 10.0,
) -> Runs:
    """Train ``task`` with every optimizer, every setting and every seed; a run that the store holds is not done again.

    ``optimizers`` maps a name (``"nag"``, or ``"nag:torch"`` for a variant) to its hyper-parameters; a list
    of values is a grid, several lists are multiplied, a value with ``rvs`` (``scipy.stats.loguniform(1e-4, 1)``)
    is a range to draw from, and a list of such mappings is their union. What is not given has the rule's default.
    ``"lr": "auto"`` finds the rate: from the default by decades until the best lies inside, then ever closer.
    Beside its own, each optimizer has the hyper-parameters ``schedule`` (a name of ``stepsize.schedules``, also
    with options: ``"poly(power=1)"``) and ``warmup_steps``; the arguments of that name are their defaults.
    ``budget`` is how many settings each optimizer may try, the same for all: so many are drawn, at random but
    the same each time, from ranges and from larger grids; an automatic search takes so many (8 if not given).

    ``seeds`` is their number (5 means 0 to 4) or the seeds themselves; a seed fixes the start and the order of
    the data, the same for every optimizer, so that differences may be paired. ``steps`` is the length of each
    run (default: the task's own). ``store`` is a file, or ``None`` to keep the runs in memory. ``device`` is
    ``"auto"``, ``"cpu"`` or ``"cuda"``. ``engine`` says what moves the parameters: ``"compiled"`` (machine code made
    of the rule, for many runs at a time, on a CPU with a C compiler), ``"native"`` (the same, and the task's gradient
    is machine code too, where there is C for what it does), ``"batched"`` (the rule mapped over many runs),
    ``"loop"`` (the class in ``stepsize.optim``, one run after another) or ``"auto"``: of runs of 100 steps or more
    ``"native"``, else the first of the others that can be.
    ``progress``: ``True`` draws a bar on a terminal or in a live notebook, ``"always"`` everywhere,
    ``False`` nowhere.

    ``workers`` is the number of processes, ``"auto"`` one for each core where the work is long enough to pay for
    their start. ``cluster`` is the address of a ``dask.distributed`` scheduler, or a client or cluster of it;
    its workers train, this process keeps the store. ``checkpoint``: after so many seconds the runs in training
    are saved in ``store``, for a sweep that is killed to go on from.

    A run has diverged if one of its losses was not finite, or if its training loss ends at more than twice
    what it was at the start. That is a result, not an error. With ``early_stop`` a run ends as soon as it is
    hopeless: after a loss that was not finite, or when its training loss, at a quarter of its steps or later, is
    not below its start. Runs train on one thread, so that a run has the same bits whatever is trained beside it
    and however often it was interrupted.

    Raises ``ValueError``, ``TypeError`` or ``KeyError``, in one sentence, for what is unknown or out of range.
    """
    options: dict[str, Any] = {"device": device, "engine": engine, "early_stop": early_stop}
    options |= {"budget": budget, "schedule": schedule, "warmup_steps": warmup_steps}
    rates = {name: next_rates({}, _default_rate(name, s), budget or BUDGET) for name, s in _searched(optimizers)}
    planned = plan(task, _with_rates(optimizers, rates), seeds, steps, **options)
    with _Work(store, progress, workers, cluster, checkpoint) as work:
        while True:
            left = {name: (budget or BUDGET) - len(rates[name]) for name in rates}
            work.do(planned, ahead=sum(left.values()) / max(1, sum(map(len, rates.values()))))
            runs = Runs(work.store, list(planned), done=work.done, how=work.how)
            more = {
                name: next_rates(_scores(runs, name), _default_rate(name, optimizers[name]), left[name])
                for name in rates
            }
            if not any(more.values()):
                return runs
            rates = {name: sorted([*rates[name], *more[name]]) for name in rates}
            planned = plan(task, _with_rates(optimizers, rates), seeds, steps, **options)


def check(task: str, optimizers: Mapping[str, Any], **options: Any) -> None:
    """Raise what :func:`sweep` would raise for a mistake in its arguments, and train nothing."""
    searched = {name: [_default_rate(name, settings)] for name, settings in _searched(optimizers)}
    plan(task, _with_rates(optimizers, searched), **options)


def _searched(optimizers: Mapping[str, Any]) -> list[tuple[str, Settings]]:
    """Those whose rate is to be found."""
    found = []
    for name, settings in optimizers.items():
        spaces = [settings] if isinstance(settings, Mapping) else list(settings)
        if any(isinstance(space.get("lr"), str) for space in spaces):
            lists = [value for space in spaces for value in space.values() if isinstance(value, list)]
            if len(spaces) > 1 or lists or spaces[0]["lr"] != "auto":
                raise ValueError(
                    f"lr of {name} must be numbers, or 'auto' with one value of all else, got {settings!r}"
                )
            found.append((name, spaces[0]))
    return found


def _default_rate(name: str, settings: Settings | Sequence[Settings]) -> float:
    base = settings.get("base") if isinstance(settings, Mapping) else settings[0].get("base")
    return float(defaults(name, base)["lr"])


def _with_rates(optimizers: Mapping[str, Any], rates: Mapping[str, list[float]]) -> dict[str, Any]:
    spaces = {name: s if isinstance(s, Mapping) else s[0] for name, s in optimizers.items() if name in rates}
    return {n: {**spaces[n], "lr": rates[n]} if n in rates else s for n, s in optimizers.items()}


def _scores(runs: Runs, name: str) -> dict[float, float]:
    """What each rate of an optimizer is chosen by, smaller is better."""
    task = tasks.find(str(runs.frame()["task"][0]))
    settings = runs.settings(task.metric)
    own = settings[settings["optimizer"] == name]
    sign = -1.0 if task.metric in task.larger else 1.0
    return {row.lr: math.inf if row.diverged else sign * row.score for row in own.itertuples()}


def plan(
    task: str,
    optimizers: Mapping[str, Settings | Sequence[Settings]],
    seeds: Iterable[int] | int = range(5),
    steps: int | None = None,
    device: str = "auto",
    engine: str = "auto",
    budget: int | None = None,
    schedule: str | None = None,
    warmup_steps: int = 0,
    early_stop: bool = False,
) -> dict[str, Run]:
    """The runs that :func:`sweep` would see to, by key; all mistakes in the arguments are found here."""
    the_task, the_seeds, the_device = ready_task(task), _seeds(seeds), _device(device)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")
    length = _whole("steps", the_task.steps if steps is None else steps)
    if budget is not None:
        _whole("budget", budget)
    if not optimizers:
        raise ValueError("optimizers must name at least one, got none")
    course = {"schedule": the_task.schedule if schedule is None else schedule, "warmup_steps": warmup_steps}
    runs = [
        Run(task, name, hyper, seed, length, engine, the_device.type, early_stop)
        for name, settings in optimizers.items()
        for hyper in grid(name, settings, budget, course)
        for seed in the_seeds
    ]
    return {run.key: run for run in runs}


def ready_task(name: str) -> Task:
    """The task, if all it needs is here; ``ValueError`` says what is missing and how to get it."""
    task = tasks.find(name)
    for package in task.packages:
        if find_spec(package) is None:
            raise ValueError(f"{name} needs {package}: pip install 'stepsize[tasks]'")
    if lack := task.missing():
        raise ValueError(lack)
    return task


@dataclass(frozen=True)
class Run:
    """One run to do: what it is made of, and the key that says so."""

    task_name: str
    name: str
    hyper: dict[str, Any]
    seed: int
    steps: int
    asked: str
    device: str
    early_stop: bool

    def __post_init__(self) -> None:
        if self.asked in ("native", "compiled", "batched") and not is_rule(self.name):
            raise ValueError(
                f"engine must be 'loop' or 'auto' for {self.name}, which is not a rule, got {self.asked!r}"
            )
        if self.asked in ("native", "compiled") and (self.device != "cpu" or not compiled.available()):
            raise ValueError(f"engine must be 'batched' or 'auto' on a GPU or without a C compiler, got {self.asked!r}")
        if self.asked == "native" and not native.takes(self.task):
            raise ValueError(f"engine must be 'compiled' or 'auto' for {self.task_name}, got 'native'")
        if self.hyper["warmup_steps"] >= self.steps:
            raise ValueError(f"warmup_steps must be less than steps, {self.steps}, got {self.hyper['warmup_steps']}")

    @property
    def task(self) -> Task:
        return tasks.find(self.task_name)

    @cached_property
    def engine(self) -> str:
        """``"native"``, ``"compiled"``, ``"batched"`` or ``"loop"``: for one run always the same."""
        if self.asked != "auto":
            return self.asked
        if not is_rule(self.name):
            return "loop"
        if self.device != "cpu" or not compiled.available():
            return "batched"
        return "native" if self.steps >= LATE and native.takes(self.task) else "compiled"

    @cached_property
    def key(self) -> str:
        """A hash of all that decides how the run goes."""
        constant = self.factors is None
        return digest(
            {
                "task": [
                    self.task_name,
                    self.task.source,
                    task_hash(type(self.task)),
                    module_hash(tasks.base.__name__),
                ],
                "optimizer": [self.name, optimizer_hash(self.name)],
                "hyper": self.hyper,
                "schedule": None if constant else module_hash(schedules.__name__),
                "seed": self.seed,
                "steps": self.steps,
                "early_stop": self.early_stop,
                "engine": [self.engine, self.device, "float32", "1 thread", module_hash(batched.__name__)],
                "code": [module_hash(f"stepsize.{name}") for name in CODE[self.engine]],
            }
        )

    @property
    def group(self) -> tuple[str, ...]:
        """Runs of one group can be trained as one program."""
        fixed = {name: value for name, value in self.hyper.items() if not batched.is_number(value)}
        fixed |= {"schedule": None}
        return self.task_name, self.name, self.engine, str(self.steps), json.dumps(fixed, sort_keys=True)

    @property
    def factors(self) -> list[float] | None:
        """What multiplies the rate at each step; ``None`` for a constant rate."""
        schedule, warmup_steps = self.hyper["schedule"], self.hyper["warmup_steps"]
        if schedule == "constant" and not warmup_steps:
            return None
        course = schedules.after_warmup(schedule, warmup_steps)
        return [course(step, self.steps) for step in range(self.steps)]

    @property
    def own(self) -> dict[str, Any]:
        """The hyper-parameters of the optimizer itself."""
        return {name: value for name, value in self.hyper.items() if name not in COURSE}

    @property
    def cost(self) -> float:
        """About how many seconds it takes, alone on one core."""
        return self.task.seconds * self.steps / self.task.steps


class _Work:
    """Does the runs that a store lacks, and says how it did them."""

    def __init__(
        self, store: str | Path | None, progress: bool | str, workers: int | str, cluster: Any, checkpoint: float
    ) -> None:
        if workers != "auto":
            _whole("workers", workers)
        if not 0 <= checkpoint < math.inf:
            raise ValueError(f"checkpoint must be a number of seconds, 0 or more, got {checkpoint!r}")
        self.executor = executors.on_cluster(cluster) if cluster is not None else None
        self.store = Store(":memory:" if store is None else store)
        self.workers, self.checkpoint = workers, checkpoint
        self.done, self.most = 0, 0
        self.place: executors.Executor | None = None
        self.shown = _is_shown(progress)
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.executor is not None:
            self.executor.close()

    def do(self, planned: Mapping[str, Run], ahead: float = 0.0) -> None:
        """Train what is missing; ``ahead`` times as much as ``planned`` will follow."""
        known = self.store.known(planned)
        todo = [run for key, run in planned.items() if key not in known]
        if not todo:
            return
        self.bar = self.bar or _bar(self.shown)
        steps = sum(run.steps for run in todo) + ahead * sum(run.steps for run in planned.values())
        self.bar.total = int(self.bar.n + steps)
        paces = executors.paces(todo) if self.workers == "auto" and self.executor is None else {}
        executor = self.executor or executors.here_or_in_processes(self.workers, todo, paces)
        begun = self.store.checkpoints(run.key for run in todo)
        sizes = {kind: pace.size for kind, pace in paces.items()}
        chunks = list(_chunks(todo, begun, executor.workers * executor.pieces, sizes))
        self.most = max(self.most, *map(len, chunks))
        if self.place is None or executor.workers > self.place.workers:
            self.place = executor
        for rows in executor.train(chunks, self.store, self.checkpoint, self.bar.update):
            self.store.add(rows)
            self.done += len(rows)

    @property
    def how(self) -> str:
        """Where and how many at a time the runs were trained; nothing if none was."""
        together = f"up to {self.most} runs at a time" if self.most > 1 else "one run at a time"
        return f"{together}, {self.place}" if self.place else ""


def _chunks(
    todo: Sequence[Run], begun: Mapping[str, int], pieces: int, sizes: Mapping[tuple[str, str], int]
) -> Iterator[list[Run]]:
    """The runs in pieces, each of which is trained as one program: of one group, and at one step if begun before.

    ``sizes`` has what was measured to be best for a task and an engine.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in todo:
        groups.setdefault((*run.group, begun.get(run.key, 0)), []).append(run)
    for runs in groups.values():
        most = 1 if runs[0].engine == "loop" else batched.chunk_size(runs[0].task, find(runs[0].name))
        most = min(most, sizes.get((runs[0].task_name, runs[0].engine), most))
        if pieces > 1:
            most = min(most, max(FEWEST, math.ceil(len(todo) / pieces)))
        # Pieces of nearly one size: a small last one would be slow.
        size = math.ceil(len(runs) / math.ceil(len(runs) / most))
        for i in range(0, len(runs), size):
            yield runs[i : i + size]


def train(
    chunk: Sequence[Run], store: Store | None, checkpoint: float, tick: Callable[[int], Any]
) -> list[dict[str, Any]]:
    """Train runs of one group; give what a store keeps of each, and put it into ``store`` as soon as it is there."""
    first, device = chunk[0], torch.device(chunk[0].device)
    factors = [run.factors or [1.0] * run.steps for run in chunk] if any(run.factors for run in chunk) else None

    def make(params: dict[str, Tensor]) -> batched.Mover:
        if first.engine == "loop":
            return batched.Alone(lambda leaves: optimizer(first.name, leaves, first.own), params)
        movers: dict[str, Callable[..., batched.Mover]] = {"native": native.Moves, "compiled": batched.Compiled}
        mover = movers.get(first.engine, cuda_graph.ReplayedMoves if device.type == "cuda" else batched.Batched)
        return mover(find(first.name), [run.own for run in chunk], params)

    def save(runs: Mapping[int, batched.Checkpoint]) -> None:
        assert store is not None
        store.checkpoint({chunk[i].key: (run.step, run.to_bytes()) for i, run in runs.items()})

    try:
        states = store.resume([run.key for run in chunk]) if store is not None else []
        resume = [batched.Checkpoint.from_bytes(state) for state in states]
    except (RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError, pickle.UnpicklingError):
        # It costs time to begin anew, and nothing else.
        resume = []
    rows = []
    task = first.task
    if first.engine == "native":
        task = cast(Task, native.Native(task))
    elif device.type == "cuda" and type(task).gradient is Task.gradient:
        task = cast(Task, cuda_graph.Replayed(task))
    results = batched.train(
        task,
        [run.seed for run in chunk],
        first.steps,
        device,
        make,
        factors=None if factors is None else torch.tensor(factors, dtype=torch.float64, device=device).T,
        early_stop=first.early_stop,
        resume=resume,
        save=None if store is None else save,
        save_every=checkpoint,
        tick=tick,
    )
    for place, result in results:
        rows.append(_row(chunk[place], result))
        if store is not None:
            store.add(rows[-1:])
    return rows


def _row(run: Run, result: batched.Result) -> dict[str, Any]:
    metrics: dict[str, float | None] = {}
    for name, (_, values) in result.curves.items():
        if name != "batch_loss":
            finite = [value for value in values if math.isfinite(value)]
            metrics[f"start_{name}"] = _or_none(values[0])
            metrics[f"final_{name}"] = _or_none(values[-1])
            metrics[f"best_{name}"] = (max if name in run.task.larger else min)(finite, default=None)
    losses = result.curves["train_loss"][1]
    good = result.finite and all(map(math.isfinite, losses)) and losses[-1] <= DIVERGED_ABOVE * losses[0]
    return {
        "key": run.key,
        "task": run.task_name,
        "optimizer": run.name,
        "hyper": run.hyper,
        "seed": run.seed,
        "steps": run.steps,
        "metrics": metrics,
        "larger": list(run.task.larger),
        "diverged": int(not good),
        "stopped": result.stopped,
        "seconds": result.seconds,
        "state_bytes": result.state_bytes,
        "made": made_by(run.engine, torch.device(run.device)),
        "curves": result.curves,
    }


def _is_shown(progress: bool | str) -> bool:
    if progress not in (True, False, "always"):
        raise ValueError(f"progress must be True, False or 'always', got {progress!r}")
    return progress == "always" or (progress is True and _is_watched())


def _is_watched() -> bool:
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


def _bar(shown: bool) -> tqdm[Any]:
    # Where nobody watches, a bar is a line in a log: every ten seconds will do.
    every, width = (0.1, None) if _is_watched() else (10.0, 80)
    look = {"unit": "step", "unit_scale": True, "desc": "training", "ncols": width}
    return tqdm(total=1, disable=not shown, mininterval=every, **look)


def _device(device: str) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be 'auto' or 'cpu' on this machine, where torch finds no GPU, got 'cuda'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _seeds(seeds: Iterable[int] | int) -> list[int]:
    listed = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not listed:
        raise ValueError(f"seeds must be 1 or more, got {seeds!r}")
    return listed


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}")
    return value


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Callable(ModuleType):
    """The module called is its function, so that ``from stepsize import sweep`` gives both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Runs:
        return sweep(*args, **kwargs)


_signature = inspect.signature(sweep)
_self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
_parameters = [_self, *_signature.parameters.values()]
_Callable.__call__.__signature__ = _signature.replace(parameters=_parameters)  # type: ignore[attr-defined]
_Callable.__call__.__doc__ = sweep.__doc__
sys.modules[__name__].__class__ = _Callable
