"""What a claim is, how it is measured, and how its record is kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch

from .. import stats, tasks
from ..fingerprint import function_hash, made_by
from ..rules.base import suggestion
from ..runs import Runs
from ..sweep import sweep

if TYPE_CHECKING:
    import pandas as pd

CLAIMS: dict[str, Claim] = {}

VERDICTS = ("replicates", "partly", "fails here", "needs scale")
SOURCES = ("novograd", "abstracts", "adabound", "course")

_training: ContextVar[Mapping[str, Any]] = ContextVar("training", default=MappingProxyType({"progress": False}))


@dataclass(frozen=True)
class Claim:
    """A statement, where it stands, and the conditions that decide on it, written before any run.

    ``conditions`` maps a key to a sentence. ``chapter`` is the number of the chapter that shows it. ``recorded`` are
    the arguments of the recorded run; the experiment's own defaults are the page's budget, seconds. ``recipe`` says
    what it would take to test the statement at the size it was made for.
    """

    id: str
    source: str
    says: str
    conditions: Mapping[str, str]
    experiment: Callable[..., Outcome]
    chapter: int = 0
    recorded: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""

    @property
    def code(self) -> str:
        """A hash of the experiment's code, its conditions and recorded budget, and the rules and tasks it names."""
        return function_hash(cast(FunctionType, self.experiment), dict(self.conditions), dict(self.recorded))


@dataclass(frozen=True)
class Outcome:
    """What an experiment returns: which conditions held, the numbers, how often and at which budget.

    ``held`` maps each condition's key to ``True``, ``False``, or ``None`` where the interval decides neither way.
    ``numbers`` maps a description to ``(value, low, high)``; ``low`` and ``high`` are the ends of the
    95 % interval, NaN where the value is exact or n is 1. ``data`` is what a figure is drawn from: a record keeps
    it where it is a ``pandas.DataFrame`` or a mapping of names to such.
    """

    held: Mapping[str, bool | None]
    numbers: Mapping[str, tuple[float, float, float]]
    n: int
    budget: str
    data: Any = None


@dataclass(frozen=True)
class Result:
    """A claim with its verdict; prints itself. ``data`` is what the experiment's figure is drawn from.

    ``made`` says on what it was measured, ``seconds`` how long that took, ``given`` with which arguments;
    ``is_record`` whether it comes from a record, and ``stale`` whether the claim's code or recorded budget has
    changed since.
    """

    claim: Claim
    outcome: Outcome
    seconds: float
    made: Mapping[str, str]
    given: Mapping[str, Any] = field(default_factory=dict)
    is_record: bool = False
    stale: bool = False

    @property
    def verdict(self) -> str:
        """All true: "replicates"; some: "partly"; none: "fails here", or "needs scale" if most are undecided."""
        held = [self.outcome.held[key] for key in self.claim.conditions]
        if all(held):
            return "replicates"
        if any(held):
            return "partly"
        return "needs scale" if held.count(None) > held.count(False) else "fails here"

    @property
    def data(self) -> Any:
        return self.outcome.data

    @property
    def checks(self) -> str:
        """The verdict and the conditions, without the measured numbers: the same on every machine."""
        marks = [f"  {_MARKS[self.outcome.held[key]]} {text}" for key, text in self.claim.conditions.items()]
        return "\n".join([f"{self.claim.id}: {self.verdict}", *marks])

    @property
    def caption(self) -> str:
        """Under which terms it was measured, for the foot of a figure."""
        how = f"n = {self.outcome.n}; {self.outcome.budget}; torch {self.made['torch']}, Python {self.made['python']}, "
        how += f"{self.made['device']}; {_duration(self.seconds)}"
        if not self.is_record:
            return how
        stale = " Stale: the code has changed since." if self.stale else ""
        return f"{how}; recorded {self.made['date']} by `stepsize claims {self.claim.id}`.{stale}"

    @property
    def _numbers(self) -> list[tuple[str, str]]:
        return [(what, _in_words(*number)) for what, number in self.outcome.numbers.items()]

    def __repr__(self) -> str:
        numbers = [f"  {what}: {number}" for what, number in self._numbers]
        recipe = [f"  At full size: {self.claim.recipe}"] if self.claim.recipe else []
        head = f'"{self.claim.says}" ({self.claim.source})'
        return "\n".join([head, self.checks, *numbers, *recipe, f"  {self.caption}"])

    def _repr_html_(self) -> str:
        conditions = "".join(
            f"<li>{_WORDS[self.outcome.held[key]]}: {escape(text)}</li>" for key, text in self.claim.conditions.items()
        )
        numbers = "".join(f"<tr><td>{escape(w)}</td><td>{escape(n)}</td></tr>" for w, n in self._numbers)
        recipe = f"<p>At full size: {escape(self.claim.recipe)}</p>" if self.claim.recipe else ""
        caption = "".join(
            f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(self.caption.split("`"))
        )
        return (
            f'<div class="claim"><p><strong>Claim</strong> “{escape(self.claim.says)}” ({escape(self.claim.source)}). '
            f'<strong class="verdict">Verdict: {self.verdict}.</strong></p><ul>{conditions}</ul>'
            f"<table><thead><tr><th>measured</th><th>value [95 % interval]</th></tr></thead>"
            f"<tbody>{numbers}</tbody></table>{recipe}"
            f"<p><small>{caption}</small></p></div>"
        )


_MARKS = {True: "yes", False: "NO ", None: "?  "}
_WORDS = {True: "✓ held", False: "✗ did not hold", None: "? not decided by these runs"}


# --- measuring ------------------------------------------------------------------------------------------------------


def claim(
    claim_id: str,
    *,
    source: str,
    says: str,
    conditions: Mapping[str, str],
    chapter: int,
    recorded: Mapping[str, Any] | None = None,
    recipe: str = "",
) -> Callable[[Callable[..., Outcome]], Any]:
    """Register the decorated experiment in ``CLAIMS``. For the arguments see :class:`Claim`."""

    def decorate(experiment: Callable[..., Outcome]) -> Callable[..., Outcome]:
        CLAIMS[claim_id] = Claim(claim_id, source, says, conditions, experiment, chapter, recorded or {}, recipe)
        return experiment

    return decorate


def find(claim_id: str) -> Claim:
    """The claim of that id; ``KeyError`` with the nearest one for an unknown id."""
    if claim_id not in CLAIMS:
        raise KeyError(f"no claim {claim_id!r}{suggestion(claim_id, CLAIMS)}")
    return CLAIMS[claim_id]


def measure(claim_id: str, **budget: Any) -> Result:
    """Run the experiment of a claim and return its result; ``budget`` overrides the page's own.

    Raises ``KeyError`` for an unknown claim.
    """
    found = find(claim_id)
    start = time.perf_counter()
    outcome = found.experiment(**budget)
    # A condition that no run decided, or a verdict on a word that nobody stated, would be a fault of the experiment.
    if outcome.held.keys() != found.conditions.keys():
        raise RuntimeError(
            f"the experiment of {claim_id} decides {sorted(outcome.held)}, not {sorted(found.conditions)}"
        )
    made = made_by("auto", torch.device("cpu"))
    return Result(found, outcome, time.perf_counter() - start, made, given=budget)


@contextmanager
def training(**options: Any) -> Iterator[None]:
    """Every sweep of a claim inside has these arguments of :func:`stepsize.sweep`: store, progress, workers, …"""
    token = _training.set(options)
    try:
        yield
    finally:
        _training.reset(token)


def train(task: str, optimizers: Mapping[str, Any], **options: Any) -> Runs:
    """:func:`stepsize.sweep`, with the store and the progress bar of whoever measures the claim."""
    return sweep(task, optimizers, **{**options, **_training.get()})


# What a comparison of tuned optimizers shares, so that claims on the same tasks share their runs.
SCHEDULE = "poly"
OPTIONS: dict[str, dict[str, Any]] = {"adamw": {"weight_decay": 1e-3}, "novograd": {"weight_decay": 1e-3}}
# The rate falls from the start, so that the translator needs more steps than at the constant rate of its own length.
STEPS = {"numbers-transformer": 400}


def tuned(
    task: str, optimizers: Iterable[str], *, rates: int, seeds: int, steps: int | None = None, warmup: float = 0.0
) -> Runs:
    """Each of ``optimizers`` at as many rates, found one after another (``lr="auto"``), on as many seeds.

    All fall by poly(2), after a warm-up over the share ``warmup`` of the steps; AdamW and NovoGrad decay the
    weights by 1e-3. ``steps`` is by default the task's own length. Claims on the same task share their runs.
    """
    length = steps or STEPS.get(task, tasks.find(task).steps)
    return train(
        task,
        {name: {"lr": "auto", **OPTIONS.get(name, {})} for name in optimizers},
        seeds=seeds,
        steps=length,
        budget=rates,
        schedule=SCHEDULE,
        warmup_steps=round(warmup * length),
        early_stop=True,
    )


def gain(runs: Runs, ours: str, other: str, metric: str | None = None, level: float = 0.95) -> stats.Interval:
    """How much better ``ours`` is than ``other``, each at its chosen setting, paired by seed: above 0 is better.

    ``metric`` is by default the task's own, taken at the end of the run; a diverged run counts as an untrained one.
    """
    the_task = tasks.find(str(runs.frame()["task"][0]))
    name = metric or the_task.metric
    sign = 1 if name in the_task.larger else -1
    values = runs.chosen_values(name)
    a, b = (dict(sorted(values[of][1].items())).values() for of in (ours, other))
    return stats.paired_difference([sign * x for x in a], [sign * x for x in b], level)


def decided(estimate: stats.Interval, above: float = 0.0) -> bool | None:
    """``True`` where the whole interval lies above, ``False`` where it lies below or at, else ``None``."""
    if estimate.low > above:
        return True
    return False if estimate.high <= above else None


def exact(value: Any) -> tuple[float, float, float]:
    """A number that has no spread, for ``Outcome.numbers``."""
    return float(value), math.nan, math.nan


# --- the record -----------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where the records are: ``book/results/claims`` of the nearest folder above that has one.

    Raises ``FileNotFoundError`` where there is none.
    """
    here, home = Path.cwd(), Path(__file__).resolve().parents[3]
    for above in (here, *here.parents, home):
        if (above / "book" / "results").is_dir():
            return above / "book" / "results" / "claims"
    raise FileNotFoundError(
        "there is no folder book/results here or above: run this in a clone of the project, or name a folder"
    )


def keep(result: Result, where: Path | None = None) -> Path:
    """Write the record of a result: ``ID.json``, and its frames as Parquet beside it."""
    where = where or folder()
    where.mkdir(parents=True, exist_ok=True)
    frames = _frames(result.data)
    for name, frame in frames.items():
        frame.to_parquet(where / _parquet(result.claim.id, name), index=False)
    told = {
        "id": result.claim.id,
        "says": result.claim.says,
        "source": result.claim.source,
        "verdict": result.verdict,
        "held": dict(result.outcome.held),
        "numbers": [[what, *map(_or_none, number)] for what, number in result.outcome.numbers.items()],
        "n": result.outcome.n,
        "budget": result.outcome.budget,
        "given": dict(result.given),
        "seconds": round(result.seconds, 1),
        "made": dict(result.made),
        "code": result.claim.code,
        "frames": sorted(frames),
    }
    path = where / f"{result.claim.id}.json"
    path.write_text(json.dumps(told, indent=1) + "\n")
    return path


def recorded(claim_id: str, where: Path | None = None) -> Result:
    """The recorded result of a claim.

    Raises ``KeyError`` for an unknown claim, ``FileNotFoundError`` where it has no record, and ``ValueError`` where
    the record decides on other conditions than the claim now has.
    """
    import pandas as pd

    found, where = find(claim_id), where or folder()
    path = where / f"{claim_id}.json"
    if not path.is_file():
        raise FileNotFoundError(f"the claim {claim_id} has no record: `stepsize claims {claim_id}` makes one")
    told = json.loads(path.read_text())
    if told["held"].keys() != found.conditions.keys():
        raise ValueError(f"the record of {claim_id} has other conditions: `stepsize claims {claim_id}` renews it")
    frames = {name: pd.read_parquet(where / _parquet(claim_id, name)) for name in told["frames"]}
    outcome = Outcome(
        held=told["held"],
        numbers={what: (_or_nan(value), _or_nan(low), _or_nan(high)) for what, value, low, high in told["numbers"]},
        n=told["n"],
        budget=told["budget"],
        data=frames[""] if frames.keys() == {""} else frames,
    )
    given = told.get("given")
    stale = told["code"] != found.code or given != json.loads(json.dumps(dict(found.recorded)))
    return Result(found, outcome, told["seconds"], told["made"], given or {}, is_record=True, stale=stale)


def state(claim_id: str, where: Path | None = None) -> str:
    """``"recorded"``, ``"stale"`` or ``"not recorded"``."""
    try:
        return "stale" if recorded(claim_id, where).stale else "recorded"
    except (FileNotFoundError, ValueError):
        return "stale" if ((where or folder()) / f"{claim_id}.json").is_file() else "not recorded"


def _frames(data: Any) -> dict[str, pd.DataFrame]:
    import pandas as pd

    data = data if isinstance(data, Mapping) else {"": data.frame() if isinstance(data, Runs) else data}
    return {name: frame for name, frame in data.items() if isinstance(frame, pd.DataFrame)}


def _parquet(claim_id: str, name: str) -> str:
    return f"{claim_id}.{name}.parquet" if name else f"{claim_id}.parquet"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _in_words(value: float, low: float, high: float) -> str:
    if math.isnan(low):
        return _figures(value)
    return f"{_figures(value)} [{_figures(low)}, {_figures(high)}]"


def _figures(value: float) -> str:
    """Three figures, and no power of ten where a reader would rather count: 1999 is "1,999"."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
