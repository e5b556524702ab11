"""The batched engine: many runs of one rule on one task, trained as one program."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from ..rules.base import Rule
from ..tasks.base import Task, Tensors
from . import compiled

# Bytes that the parameters, gradients and states of the runs trained at once may take.
MEMORY = 256 * 2**20
# More runs at once are hardly faster, and a killed sweep would lose more of them.
RUNS = 32
# How often the metrics are measured after step 0, and about how many batch losses are kept.
EVALUATIONS = 10
LOSSES = 200
# From this part of a run on, one that is no better than at its start is hopeless.
PATIENCE = 0.25
# A checkpoint may take this share of the time.
CHECKPOINT_SHARE = 0.05


@dataclass
class Result:
    """What one run left: a curve maps a metric to its steps and values; ``seconds`` is the run's share of the batch's.

    ``finite`` says whether the loss of every batch was; the curve ``batch_loss`` keeps only some of them.
    ``stopped`` is the step at which a hopeless run was ended, ``None`` for one that went its whole way.
    """

    curves: dict[str, tuple[list[int], list[float]]]
    finite: bool
    seconds: float
    state_bytes: int
    stopped: int | None = None


class Mover(Protocol):
    """What changes the parameters: it holds the state between the steps."""

    @property
    def state_bytes(self) -> int:
        """Bytes of state of one run."""

    def move(self, params: Tensors, grads: Tensors, t: int, factors: Tensor | None) -> None:
        """Take step ``t`` = 1, 2, …: put the new values, stacked over runs as the old, into ``params``.

        ``factors`` is what the schedule multiplies the rate of each run by.
        """

    def state(self, run: int) -> Any:
        """What a checkpoint keeps of one run."""

    def load(self, states: Sequence[Any]) -> None:
        """Go on from the states of all runs."""

    def keep(self, runs: Tensor) -> None:
        """Go on with some of the runs only: their places."""


class Stacked:
    """The state of many runs of one rule: for each parameter the rule's states, each stacked along a first axis."""

    def __init__(self, rule: Rule, params: Tensors) -> None:
        self.rule = rule
        self.states = {name: _repeat(rule.init(p[0]), len(p)) for name, p in params.items()}

    @property
    def state_bytes(self) -> int:
        return sum(s[0].numel() * s.element_size() for state in self.states.values() for s in state)

    def state(self, run: int) -> dict[str, list[Tensor]]:
        return {name: [s[run].clone() for s in state] for name, state in self.states.items()}

    def load(self, states: Sequence[dict[str, list[Tensor]]]) -> None:
        for name, old in self.states.items():
            columns = zip(*(state[name] for state in states), strict=True)
            self.states[name] = tuple(torch.stack(c).to(o) for c, o in zip(columns, old, strict=True))

    def keep(self, runs: Tensor) -> None:
        self.states = {name: tuple(s[runs] for s in state) for name, state in self.states.items()}


class Batched(Stacked):
    """Many runs of one rule. Numbers among the hyper-parameters may differ between runs, all else must be the same.

    Each number becomes a float64 tensor mapped over the runs, so that inside the rule it is 0-d, and
    expressions such as ``1 - beta2**t`` are as exact as with Python's floats.
    """

    def __init__(self, rule: Rule, hypers: Sequence[Mapping[str, Any]], params: Tensors) -> None:
        super().__init__(rule, params)
        some = next(iter(params.values()))
        self.hyper, self.axes = _stack_hyper(hypers, some.device)

    @torch.no_grad()
    def move(self, params: Tensors, grads: Tensors, t: int, factors: Tensor | None) -> None:
        hyper = self.hyper if factors is None else {**self.hyper, "lr": self.hyper["lr"] * factors}
        axes = (None, 0, 0, 0, self.axes)
        moved = torch.func.vmap(self._one, in_dims=axes)(t, params, grads, self.states, hyper)
        for name, (p, *state) in moved.items():
            params[name], self.states[name] = p, tuple(state)

    def keep(self, runs: Tensor) -> None:
        super().keep(runs)
        self.hyper = tree_map_only(Tensor, lambda x: x[runs], self.hyper)

    def _one(self, t: int, params: Tensors, grads: Tensors, states: Any, hyper: dict[str, Any]) -> dict[str, Any]:
        moved = {}
        for name, p in params.items():
            old = (p, *states[name])
            new = self.rule(p, grads[name], t, *states[name], **hyper)
            # What is 0-d in a run is promoted by a float64 hyper-parameter.
            moved[name] = tuple(n.to(o.dtype) for n, o in zip(new, old, strict=True))
        return moved


class Compiled(Stacked):
    """Many runs of one rule, each moved by the compiled step; the hyper-parameters may differ in any way.

    Parameters and state stay where they are from step to step, so that the step's tables of addresses do too.
    """

    def __init__(self, rule: Rule, hypers: Sequence[Mapping[str, Any]], params: Tensors) -> None:
        super().__init__(rule, params)
        self.hypers = [dict(hyper) for hyper in hypers]
        self.bound: Tensor | None = None

    def _bind(self, params: Tensors, t: int) -> None:
        """Make the views of each run's tensors once."""
        self.bound = next(iter(params.values()))
        self.grads = {name: torch.empty_like(p) for name, p in params.items()}
        self.moves = []
        for run, hyper in enumerate(self.hypers):
            states = [
                {"step": torch.tensor(float(t - 1)), **{k: s[run] for k, s in zip(self.rule.state, state, strict=True)}}
                for state in self.states.values()
            ]
            own = [p[run] for p in params.values()], [g[run] for g in self.grads.values()]
            self.moves.append(compiled.fixed(self.rule, *own, states, hyper))

    @torch.no_grad()
    def move(self, params: Tensors, grads: Tensors, t: int, factors: Tensor | None) -> None:
        if self.bound is not next(iter(params.values())):
            self._bind(params, t)
        for name, g in grads.items():
            self.grads[name].copy_(g)
        rates = [1.0] * len(self.moves) if factors is None else factors.tolist()
        for move, hyper, rate in zip(self.moves, self.hypers, rates, strict=True):
            move(hyper if factors is None else {**hyper, "lr": hyper["lr"] * rate})

    def load(self, states: Sequence[dict[str, list[Tensor]]]) -> None:
        super().load(states)
        self.bound = None

    def keep(self, runs: Tensor) -> None:
        super().keep(runs)
        self.hypers = [self.hypers[run] for run in runs]
        self.bound = None


class Alone:
    """One run, moved by a ``torch.optim.Optimizer``: for methods that are not rules, and to hold the batch to."""

    def __init__(self, make: Callable[[list[Tensor]], Optimizer], params: Tensors) -> None:
        self.leaves = {name: p[0].clone().requires_grad_() for name, p in params.items()}
        self.optimizer = make(list(self.leaves.values()))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def move(self, params: Tensors, grads: Tensors, t: int, factors: Tensor | None) -> None:
        for name, leaf in self.leaves.items():
            leaf.grad = grads[name][0]
        if factors is not None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * float(factors[0])
        self.optimizer.step()
        params.update({name: leaf.detach()[None] for name, leaf in self.leaves.items()})

    def state(self, run: int) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        self.optimizer.load_state_dict(states[0])

    def keep(self, runs: Tensor) -> None:
        """One run is kept or the training ends."""

    @property
    def state_bytes(self) -> int:
        values = [value for state in self.optimizer.state.values() for name, value in state.items() if name != "step"]
        return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


@dataclass
class Checkpoint:
    """One run in the middle: ``step`` steps are done, in ``seconds``."""

    step: int
    seconds: float
    params: Tensors
    mover: Any
    carry: Tensors
    kept: dict[str, tuple[list[int], Tensor]]
    total: Tensor

    def to_bytes(self) -> bytes:
        """As ``torch.save`` writes it: tensors and plain values alone."""
        file = io.BytesIO()
        torch.save(vars(self), file)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """What :meth:`to_bytes` gave. No code is run that a stranger may have put there."""
        return cls(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def train(
    task: Task,
    seeds: Sequence[int],
    steps: int,
    device: torch.device,
    mover: Callable[[Tensors], Mover],
    *,
    factors: Tensor | None = None,
    early_stop: bool = False,
    resume: Sequence[Checkpoint] = (),
    save: Callable[[Mapping[int, Checkpoint]], Any] | None = None,
    save_every: float = 10.0,
    tick: Callable[[int], Any] = lambda run_steps: None,
) -> Iterator[tuple[int, Result]]:
    """Train one run for each of ``seeds``, all at once, and yield each one's place and result when it ends.

    ``mover`` is given the stacked parameters at the start. ``factors``, of shape (steps, runs), multiply the rates.
    A run that diverges goes on as NaN and disturbs no other; with ``early_stop`` it is ended at the next measurement,
    as is one whose training loss is not below its start after a quarter of the steps. ``resume`` holds the
    checkpoints, all of one step, to go on from; ``save`` is called with new ones about every ``save_every`` seconds.
    ``tick`` is called, a few times in all, with the steps done since its last call, summed over the runs.
    """
    began, spent = time.perf_counter(), [0.0] * len(seeds)
    with one_thread():
        task.to(device)
        places = list(range(len(seeds)))
        params = _stack([c.params for c in resume] or [task.init(seed) for seed in seeds], device)
        carry = _stack([c.carry for c in resume] or [task.carry() for _ in seeds], device)
        moves = mover(params)
        record = _Recorder(steps)
        batches = _Batches(task, seeds, device)
        first = 1
        if resume:
            first = resume[0].step + 1
            spent = [c.seconds for c in resume]
            moves.load([c.mover for c in resume])
            record.load(resume)
            batches.skip(resume[0].step)
        else:
            record.metrics(0, task.measure(params))
        saved, pause = time.perf_counter(), save_every
        # What each run has cost so far: its share of the time since the last change in who is trained.
        mark = began
        for t in range(first, steps + 1):
            grads, losses, carry = task.gradient(params, batches.next(), carry)
            moves.move(params, grads, t, None if factors is None else factors[t - 1, places])
            record.loss(t, losses)
            if t in record.at:
                record.metrics(t, task.measure(params))
                tick(len(places) * (t - max(record.at[t], first - 1)))
                hopeless = record.hopeless(t >= PATIENCE * steps) if early_stop and t < steps else []
                if hopeless:
                    now = time.perf_counter()
                    for place in places:
                        spent[place] += (now - mark) / len(places)
                    mark = now
                    for i in hopeless:
                        yield places[i], record.result(i, spent[places[i]], moves.state_bytes, t)
                        tick(steps - t)
                    stay = torch.tensor([i for i in range(len(places)) if i not in hopeless], dtype=torch.long)
                    places = [places[i] for i in stay]
                    if not places:
                        return
                    params, carry = ({name: x[stay] for name, x in of.items()} for of in (params, carry))
                    for part in (moves, record, batches):
                        part.keep(stay)
            now = time.perf_counter()
            if save is not None and t < steps and now - saved > pause:
                share = (now - mark) / len(places)
                save({
                    place: Checkpoint(
                        t,
                        spent[place] + share,
                        {name: p[i].clone() for name, p in params.items()},
                        moves.state(i),
                        {name: c[i].clone() for name, c in carry.items()},
                        *record.state(i),
                    )
                    for i, place in enumerate(places)
                })  # fmt: skip
                saved = time.perf_counter()
                pause = max(save_every, (saved - now) / CHECKPOINT_SHARE)
    share = (time.perf_counter() - mark) / len(places)
    for i, place in enumerate(places):
        yield place, record.result(i, spent[place] + share, moves.state_bytes, None)


def chunk_size(task: Task, rule: Rule) -> int:
    """How many runs to train at once: ``RUNS``, or fewer where they would not fit in ``MEMORY``."""
    numbers = sum(p.numel() for p in task.init(0).values())
    # Parameters and gradients, old and new of each state, and two temporaries.
    return max(1, min(RUNS, MEMORY // (4 * numbers * (4 + 2 * len(rule.state)))))


def is_number(value: Any) -> bool:
    """Whether a hyper-parameter may differ between the runs of one batch: numbers, and tuples of them."""
    if isinstance(value, (tuple, list)):
        return all(is_number(x) for x in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: a run then has the same bits in whatever batch it is.

    Threads of Python may be inside at once, each with a thread of torch; the last to leave restores their number.
    """
    global _inside, _before
    with _door:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _door:
            _inside -= 1
            if not _inside:
                torch.set_num_threads(_before)


_door, _inside, _before = threading.Lock(), 0, 1


class _Recorder:
    """The metrics at a few steps, and the loss of some batches."""

    def __init__(self, steps: int) -> None:
        moments = sorted({0, *(round(steps * i / EVALUATIONS) for i in range(1, EVALUATIONS + 1))})
        # Each step to measure at, and the one before it.
        self.at = dict(zip(moments[1:], moments[:-1], strict=True))
        self.every = max(1, steps // LOSSES)
        self.kept: dict[str, tuple[list[int], list[Tensor]]] = {}
        self.total = torch.zeros(())

    def _keep(self, name: str, step: int, values: Tensor) -> None:
        at, kept = self.kept.setdefault(name, ([], []))
        at.append(step)
        kept.append(values)

    def metrics(self, step: int, metrics: Tensors) -> None:
        for name, values in metrics.items():
            # The error of outputs that are NaN is a number, but means nothing.
            self._keep(name, step, torch.where(metrics["train_loss"].isfinite(), values, torch.nan))

    def loss(self, step: int, losses: Tensor) -> None:
        self.total = self.total + losses
        if step == 1 or step % self.every == 0:
            self._keep("batch_loss", step, losses)

    def hopeless(self, late: bool) -> list[int]:
        """The runs with a loss that was not finite and, ``late``, those no better than at their start."""
        start, *_, last = self.kept["train_loss"][1]
        lost = ~(self.total.isfinite() & last.isfinite())
        return [int(i) for i in torch.nonzero(lost | (last >= start) if late else lost)[:, 0]]

    def result(self, run: int, seconds: float, state_bytes: int, stopped: int | None) -> Result:
        curves = {name: (at, torch.stack(values)[:, run].tolist()) for name, (at, values) in self.kept.items()}
        return Result(curves, bool(self.total[run].isfinite()), seconds, state_bytes, stopped)

    def state(self, run: int) -> tuple[dict[str, tuple[list[int], Tensor]], Tensor]:
        kept = {name: (list(at), torch.stack(values)[:, run].clone()) for name, (at, values) in self.kept.items()}
        return kept, self.total[run].clone()

    def load(self, runs: Sequence[Checkpoint]) -> None:
        self.total = torch.stack([run.total for run in runs])
        for name, (at, _) in runs[0].kept.items():
            self.kept[name] = list(at), list(torch.stack([run.kept[name][1] for run in runs], 1))

    def keep(self, runs: Tensor) -> None:
        self.total = self.total[runs]
        self.kept = {name: (at, [x[runs] for x in values]) for name, (at, values) in self.kept.items()}


class _Batches:
    """The runs' batches, stacked. Runs of one seed share theirs, so each is drawn once."""

    def __init__(self, task: Task, seeds: Sequence[int], device: torch.device) -> None:
        kinds = sorted(set(seeds))
        self.draws = [task.batches(seed) for seed in kinds]
        self.places = torch.tensor([kinds.index(seed) for seed in seeds])
        self.device = device

    def next(self) -> tuple[Tensor, ...]:
        drawn = [next(draw) for draw in self.draws]
        return tuple(torch.stack(parts)[self.places].to(self.device) for parts in zip(*drawn, strict=True))

    def skip(self, steps: int) -> None:
        for draw in self.draws:
            next(itertools.islice(draw, steps - 1, steps))

    def keep(self, runs: Tensor) -> None:
        kinds = self.places[runs].unique()
        self.draws = [self.draws[kind] for kind in kinds]
        self.places = torch.searchsorted(kinds, self.places[runs])


def _stack(runs: Sequence[Tensors], device: torch.device) -> Tensors:
    return {name: torch.stack([run[name] for run in runs]).to(device) for name in runs[0]}


def _repeat(state: tuple[Tensor, ...], runs: int) -> tuple[Tensor, ...]:
    return tuple(s.expand(runs, *s.shape).clone() for s in state)


def _stack_hyper(hypers: Sequence[Mapping[str, Any]], device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyper-parameters as one dict of stacked tensors, and the axis of runs of each."""

    def stack(values: Sequence[Any]) -> tuple[Any, Any]:
        if not is_number(values[0]):
            return values[0], None
        if isinstance(values[0], (tuple, list)):
            parts = [stack(column) for column in zip(*values, strict=True)]
            return tuple(part for part, _ in parts), tuple(axis for _, axis in parts)
        return torch.tensor([float(x) for x in values], dtype=torch.float64, device=device), 0

    stacked = {name: stack([hyper[name] for hyper in hypers]) for name in hypers[0]}
    return {name: value for name, (value, _) in stacked.items()}, {name: axis for name, (_, axis) in stacked.items()}
