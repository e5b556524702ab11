"""The claims on Adam and Nadam: chapters 05 and 07."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import stats, tasks
from ..rules import RULES, Rule, find
from ..runs import Runs
from .base import Outcome, claim, decided, exact, gain, train, tuned

TASKS = (
    "digits-mlp",
    "digits-resnet",
    "numbers-transformer",
    "docs-lstm",
    "speech-jasper",
    "docs-transformer-xl",
    "spans-bert",
)
NADAM_TASKS = ("digits-mlp", "digits-resnet", "docs-lstm", "numbers-transformer")


# --- what the second moment remembers -------------------------------------------------------------------------------


@claim(
    "v-memory-1000",
    source="course",
    says='The "memory" of v_t keeps roughly 1000 steps (beta2 = 0.999)',
    conditions={
        "half-life": "half of a gradient's weight in v is gone after 500 to 2,000 steps",
        "mean age": "the mean age of what v holds is 500 to 2,000 steps",
        "window": "a plain average that is as steady takes 500 to 2,000 gradients",
        "effect": "after one gradient 10, 100 or 1,000 times as large as the others, "
        "steps are back to half their size within 2,000 steps",
    },
    chapter=5,
)
def v_memory_1000(steps: int = 14_000, beta2: float = 0.999) -> Outcome:
    """Adam's own v: the weight of one gradient as it ages, and the steps after one that is far too large."""
    before = steps // 2
    sizes = (10.0, 100.0, 1000.0)
    pulse = torch.zeros(steps, 1 + len(sizes), dtype=torch.float64)
    pulse[:, 1:] = 1.0
    pulse[0, 0], pulse[before, 1:] = 1.0, torch.tensor(sizes)
    divisors, v = _divisors(RULES["adam"], pulse, beta2)
    weight = (v[:, 0] / v[:, 0].sum()).numpy()
    age = np.arange(steps)
    after = (1 / divisors[before:, 1:]).numpy()
    half = [int((column < 0.5).sum()) for column in after.T]
    found = {
        "half-life": float((weight > weight[0] / 2).sum()),
        "mean age": float(weight @ age),
        "window": float(1 / (weight @ weight)),
    }
    shown = np.arange(0, steps - before, 25)
    return Outcome(
        held={**{name: 500 <= value <= 2000 for name, value in found.items()}, "effect": max(half) <= 2000},
        numbers={
            "steps until half of a gradient's weight is gone": exact(found["half-life"]),
            "mean age of what v holds": exact(found["mean age"]),
            "gradients in a plain average that is as steady": exact(found["window"]),
            "share of the weight on the newest 1,000": exact(weight[:1000].sum()),
            **{
                f"steps at less than half their size after a gradient {size:g} times too large": exact(n)
                for size, n in zip(sizes, half, strict=True)
            },
        },
        n=1,
        budget=f"exact: Adam's rule, float64, {steps:,} steps, beta2 {beta2}",
        data={
            "weights": pd.DataFrame({"age": shown, "weight": weight[shown]}),
            "steps": pd.DataFrame({"after": shown + 1, **{f"{s:g}": after[shown, i] for i, s in enumerate(sizes)}}),
        },
    )


@claim(
    "ema-not-monotone",
    source="course",
    says="The exponential moving average of squared gradients is not monotonically increasing",
    conditions={
        "falls": "on digits-mlp Adam's average of squares falls at a tenth of the steps or more",
        "printed": "the divisor of AMSGrad as printed never falls on the same gradients",
        "torch": "that of torch's AMSGrad does, for the correction comes after the maximum",
    },
    chapter=5,
    recorded={"seeds": 5},
)
def ema_not_monotone(seeds: int = 2, steps: int = 200, lr: float = 1e-2) -> Outcome:
    """The gradients that Adam meets on digits-mlp, and what each method divides them by."""
    rules = {name: find(name) for name in ("adam", "amsgrad", "amsgrad:torch", "amsgrad:optax")}
    shares: dict[str, list[float]] = {name: [] for name in (*rules, "v")}
    for seed in range(seeds):
        gradients = _met_by_adam("digits-mlp", steps, seed, lr)
        for name, rule in rules.items():
            divisors, v = _divisors(rule, gradients)
            shares[name].append(_share_falling(divisors))
            if name == "adam":
                shares["v"].append(_share_falling(v))
    spike = torch.tensor([[10.0], [0.01], [0.01], [0.01]], dtype=torch.float64)
    planted = {name: _divisors(rule, spike)[0][:, 0].tolist() for name, rule in rules.items()}
    falling = {name: stats.interval(values) for name, values in shares.items()}
    return Outcome(
        held={
            "falls": min(shares["v"]) >= 0.1,
            "printed": max(shares["amsgrad"]) == 0 and planted["amsgrad"] == sorted(planted["amsgrad"]),
            "torch": min(shares["amsgrad:torch"]) > 0 and planted["amsgrad:torch"][-1] < planted["amsgrad:torch"][0],
        },
        numbers={
            "share of steps at which Adam's v falls": falling["v"][:3],
            "… at which Adam's divisor falls": falling["adam"][:3],
            "… AMSGrad's as printed": falling["amsgrad"][:3],
            "… AMSGrad's in torch": falling["amsgrad:torch"][:3],
            "… AMSGrad's in optax": falling["amsgrad:optax"][:3],
            "torch's divisor after a gradient of 10": exact(planted["amsgrad:torch"][0]),
            "… and three of 0.01 later": exact(planted["amsgrad:torch"][-1]),
        },
        n=seeds,
        budget=f"digits-mlp, {steps} steps, Adam's rate {lr:g}, a tenth of the parameters",
        data=pd.DataFrame({"step": range(1, 5), **planted}),
    )


def _divisors(rule: Rule, gradients: Tensor, beta2: float = 0.999) -> tuple[Tensor, Tensor]:
    """What a rule of Adam's family divides each gradient by, and its average of squares: both like ``gradients``.

    Read off its steps from zero at a rate of 1, with ``beta1`` at 0, so that the numerator is the gradient.
    """
    zero = torch.zeros_like(gradients[0])
    state, divisors, averages = rule.init(zero), [], []
    for t, g in enumerate(gradients, start=1):
        # A gradient of 0 would hide the divisor; the square of this one is lost in any average.
        seen = torch.where(g == 0, 1e-30, g)
        moved, *new_state = rule(zero, seen, t, *state, lr=1.0, betas=(0.0, beta2), eps=0.0)
        state = tuple(new_state)
        divisors.append(-seen / moved)
        averages.append(state[1])
    return torch.stack(divisors), torch.stack(averages)


def _met_by_adam(task: str, steps: int, seed: int, lr: float) -> Tensor:
    """The gradients on Adam's way, float64: a row for each step, a column for every tenth parameter that has any."""
    the_task, rule = tasks.find(task), RULES["adam"]
    params, slope = the_task.init(seed), torch.func.grad(the_task.loss)
    states, rows = {name: rule.init(p) for name, p in params.items()}, []
    for t, batch in zip(range(1, steps + 1), the_task.batches(seed), strict=False):
        grads = slope(params, batch)
        rows.append(torch.cat([grads[name].flatten() for name in params]).double())
        for name, g in grads.items():
            params[name], *new_state = rule(params[name], g, t, *states[name], lr=lr)
            states[name] = tuple(new_state)
    gradients = torch.stack(rows)
    return gradients[:, gradients.abs().amax(0) > 0][:, ::10]


def _share_falling(values: Tensor) -> float:
    # A fall in the last bits is rounding.
    return float((values[1:] < values[:-1] * (1 - 1e-12)).double().mean())


# --- Adam against SGD with momentum ---------------------------------------------------------------------------------


@claim(
    "adam-fast",
    source="course",
    says="Adam trains faster than SGDM",
    conditions={
        task: f"{task}: fewer steps to the target training loss, each at its fastest rate; "
        "the paired 95 % interval of the ratio lies above 1"
        for task in TASKS
    },
    chapter=5,
    recorded={"tasks": TASKS, "rates": 7, "seeds": 5},
    recipe="digits-resnet@full: ResNet-50 on ImageNet, 90 epochs, seven rates each, four seeds, on eight GPUs",
)
def adam_fast(tasks: Sequence[str] = ("digits-mlp",), rates: int = 4, seeds: int = 3) -> Outcome:
    """Steps to 95 % of the way that the slower method goes, SGDM's over Adam's, at equal budgets."""
    ratios, courses = {}, []
    for task in tasks:
        runs = tuned(task, ("sgdm", "adam"), rates=rates, seeds=seeds)
        ratios[task] = _speed_up(runs, "adam", "sgdm")
        courses.append(_courses(runs, ("sgdm", "adam")))
    return Outcome(
        held={task: decided(ratios[task], 0.0) if task in ratios else None for task in TASKS},
        numbers={f"{task}: SGDM's steps over Adam's": _powers(ratio) for task, ratio in ratios.items()},
        n=seeds,
        budget=f"{rates} rates each, poly(2); to 95 % of the slower method's way, interpolated between 11 measurements",
        data={"ratios": _table(ratios, _powers), "courses": pd.concat(courses, ignore_index=True)},
    )


@claim(
    "adam-gap",
    source="course",
    says="Adam leaves a larger generalisation gap than SGDM",
    conditions={
        task: f"{task}: the gap is larger with Adam at equal training loss; the paired 95 % interval lies above 0"
        for task in TASKS
    },
    chapter=5,
    recorded={"tasks": TASKS, "rates": 7, "seeds": 5, "more": 20},
    recipe="digits-resnet@full: ResNet-50 on ImageNet, 90 epochs, seven rates each, four seeds, on eight GPUs",
)
def adam_gap(
    tasks: Sequence[str] = ("digits-mlp",), rates: int = 4, seeds: int = 3, more: int = 4, steps: int | None = None
) -> Outcome:
    """The gap of each at the lowest training loss that both reach, at the rates that validation chose.

    On digits it is the error on test minus that on training; on text the log-perplexity on test, else the loss on
    validation, minus that on training. On digits-mlp, which is cheap, the chosen rates run on ``more`` seeds.
    """
    gaps, numbers = {}, {}
    for task in tasks:
        runs = tuned(task, ("sgdm", "adam"), rates=rates, seeds=seeds, steps=steps)
        if task == "digits-mlp":
            runs = _again(runs, ("sgdm", "adam"), more)
        _, other, gaps[task] = _gap_at_equal_loss(runs, "adam", "sgdm")
        numbers[f"{task}: Adam's gap minus SGDM's"] = gaps[task][:3]
        numbers[f"{task}: SGDM's gap, in {_kind(task)}"] = other[:3]
    return Outcome(
        held={task: decided(gaps[task]) if task in gaps else None for task in TASKS},
        numbers=numbers,
        n=seeds,
        budget=f"{rates} rates each, poly(2)" + (f"; digits-mlp on {more} seeds" if "digits-mlp" in tasks else ""),
        data=_table(gaps, lambda gap: gap[:3]).assign(kind=[_kind(task) for task in gaps]),
    )


@claim(
    "adam-unstable",
    source="course",
    says="Adam is less stable than SGDM",
    conditions={
        "spread": "digits-mlp at a constant rate, chosen on validation: the final training loss spreads more over "
        "seeds with Adam; the 95 % interval of the ratio of the deviations of its logarithm lies above 1",
        "spread, gentle": "the same at a third of the chosen rates",
        "spikes": "at the chosen rates: more spikes with Adam; the paired 95 % interval lies above 0",
        "spikes, gentle": "the same at a third of them",
        "elsewhere": "the other tasks, under poly(2): more spikes with Adam; "
        "the 95 % interval, paired by task and seed, lies above 0",
    },
    chapter=5,
    recorded={"tasks": TASKS[1:], "rates": 7, "seeds": 5, "more": 40},
)
def adam_unstable(tasks: Sequence[str] = (), rates: int = 4, seeds: int = 3, more: int = 12) -> Outcome:
    """Spread over seeds and spikes: batches whose loss is three times the median of the twenty before, or more."""
    pair = ("sgdm", "adam")
    search = train("digits-mlp", {name: {"lr": "auto"} for name in pair}, seeds=seeds, budget=rates)
    held: dict[str, bool | None] = {}
    numbers: dict[str, tuple[float, float, float]] = {}
    table: list[dict[str, Any]] = []
    for share, key, where in ((1.0, "", "the chosen rates"), (1 / 3, ", gentle", "a third of them")):
        runs = _again(search, pair, more, share)
        ends = {name: np.log(_finals(runs, name, "train_loss")) for name in pair}
        spikes = {name: _spikes(runs, name) for name in pair}
        spread = _ratio_of_deviations(ends["adam"], ends["sgdm"])
        extra = stats.paired_difference(spikes["adam"], spikes["sgdm"])
        held |= {f"spread{key}": decided(spread, 1.0), f"spikes{key}": decided(extra)}
        numbers |= {
            f"spread of the log of the final loss at {where}, Adam's over SGDM's": spread[:3],
            f"spread with SGDM at {where}": exact(np.std(ends["sgdm"], ddof=1)),
            f"spikes a run at {where}, Adam's minus SGDM's": extra[:3],
            f"spikes a run with SGDM at {where}": stats.interval(spikes["sgdm"])[:3],
        }
        table += [
            {"lr_times": share, "optimizer": name, "seed": seed, "log_loss": ends[name][seed], "spikes": count}
            for name in pair
            for seed, count in enumerate(spikes[name])
        ]
    each: dict[str, list[float]] = {name: [] for name in pair}
    for task in tasks:
        others = tuned(task, pair, rates=rates, seeds=seeds)
        for name in pair:
            each[name] += _spikes(others, name)
    if tasks:
        elsewhere = stats.paired_difference(each["adam"], each["sgdm"])
        numbers["spikes a run on the other tasks, Adam's minus SGDM's"] = elsewhere[:3]
    return Outcome(
        held={**held, "elsewhere": decided(elsewhere) if tasks else None},
        numbers=numbers,
        n=more,
        budget=f"digits-mlp, the best of {rates} rates on {seeds} seeds"
        + (f"; {len(tasks)} other tasks, {rates} rates, {seeds} seeds" if tasks else ""),
        data=pd.DataFrame(table),
    )


def _again(runs: Runs, optimizers: Sequence[str], seeds: int, share: float = 1.0) -> Runs:
    """The chosen setting of each optimizer, its rate times ``share``, on more seeds."""
    chosen = {name: runs.chosen(name).iloc[0] for name in optimizers}
    some = chosen[optimizers[0]]
    return train(
        some["task"],
        {name: {"lr": share * float(row["lr"])} for name, row in chosen.items()},
        seeds=seeds,
        steps=int(some["steps"]),
        schedule=some["schedule"],
        early_stop=True,
    )


def _chosen_keys(runs: Runs, optimizer: str) -> dict[int, str]:
    """The run of each seed, at the rate that validation chose."""
    metric = tasks.find(str(runs.frame()["task"][0])).metric
    rows = runs.chosen(optimizer, metric)
    return dict(zip(rows["seed"], rows["key"], strict=True))


def _course(runs: Runs, metric: str) -> dict[str, np.ndarray]:
    """For each run's key the course of a metric: steps and values, ``(2, points)``."""
    curves = runs.curves(metric)
    return {key: group[["step", "value"]].to_numpy(dtype=float).T for key, group in curves.groupby("key")}


def _steps_to(course: np.ndarray, level: float, never: float) -> float:
    """The step at which a loss is first down to ``level``, interpolated in its logarithm; ``never`` if it is not."""
    steps, losses = course
    down = np.flatnonzero(losses <= level)
    if not len(down):
        return never
    i = int(down[0])
    if i == 0:
        return float(steps[0])
    high, low = np.log(losses[i - 1]), np.log(losses[i])
    return float(steps[i - 1] + (steps[i] - steps[i - 1]) * (high - math.log(level)) / (high - low))


def _speed_up(runs: Runs, ours: str, other: str) -> stats.Interval:
    """log2 of the steps of ``other`` over ours, to one training loss, each at its own fastest rate; paired by seed.

    The loss is reached by both: from the start it is 95 % of the way to where the slower method's best rate ends.
    A run that does not get there counts with all its steps.
    """
    frame, course = runs.frame(), _course(runs, "train_loss")
    length = float(frame["steps"].max())
    start = float(np.mean([values[0] for _, values in course.values()]))
    ends = frame.assign(end=frame["final_train_loss"].where(~frame["diverged"], start))
    best = ends.groupby(["optimizer", "lr"])["end"].mean().groupby("optimizer").min()
    # A method that does not train at all sets no goal.
    level = start - 0.95 * (start - max(best[best < start]))
    needed = frame.assign(needed=[_steps_to(course[key], level, length) for key in frame["key"]])
    fastest = {}
    for name in (ours, other):
        table = needed[needed["optimizer"] == name].pivot_table(index="lr", columns="seed", values="needed")
        fastest[name] = table.loc[table.mean(axis=1).idxmin()]
    return stats.interval(np.log2(fastest[other] / fastest[ours]).to_numpy())


def _powers(estimate: stats.Interval) -> tuple[float, float, float]:
    """Of an interval of log2, that of the number itself."""
    return 2.0**estimate.mean, 2.0**estimate.low, 2.0**estimate.high


def _courses(runs: Runs, optimizers: Sequence[str]) -> pd.DataFrame:
    """The training loss of the chosen runs, tidy: task, optimizer, seed, step, value."""
    course, task = _course(runs, "train_loss"), str(runs.frame()["task"][0])
    return pd.concat(
        pd.DataFrame(dict(zip(("step", "value"), course[key], strict=True))).assign(
            task=task, optimizer=name, seed=seed
        )
        for name in optimizers
        for seed, key in _chosen_keys(runs, name).items()
    )


def _kind(task: str) -> str:
    """What the gap of a task is measured in."""
    metrics = tasks.find(task).metrics
    return "error" if "train_error" in metrics else "nats"


def _gaps(runs: Runs) -> dict[str, np.ndarray]:
    """For each run's key the course of its generalisation gap."""
    metrics = tasks.find(str(runs.frame()["task"][0])).metrics
    if "train_error" in metrics:
        held_out, trained = _course(runs, "test_error"), _course(runs, "train_error")
    else:
        trained = _course(runs, "train_loss")
        text = "test_perplexity" in metrics
        held_out = _course(runs, "test_perplexity" if text else "val_loss")
        if text:
            held_out = {key: np.array([steps, np.log(values)]) for key, (steps, values) in held_out.items()}
    return {key: held_out[key][1] - trained[key][1] for key in trained}


def _gap_at_equal_loss(runs: Runs, ours: str, other: str) -> tuple[stats.Interval, stats.Interval, stats.Interval]:
    """The gap of each at the lowest training loss that both runs of a seed reach, and the paired difference."""
    losses, gaps = _course(runs, "train_loss"), _gaps(runs)
    keys = {name: _chosen_keys(runs, name) for name in (ours, other)}
    found: dict[str, list[float]] = {ours: [], other: []}
    for seed in keys[ours]:
        pair = {name: keys[name][seed] for name in keys}
        level = max(losses[key][1].min() for key in pair.values())
        for name, key in pair.items():
            steps = losses[key][0]
            found[name].append(float(np.interp(_steps_to(losses[key], level, steps[-1]), steps, gaps[key])))
    a, b = found[ours], found[other]
    return stats.interval(a), stats.interval(b), stats.paired_difference(a, b)


def _finals(runs: Runs, optimizer: str, metric: str) -> np.ndarray:
    values = runs.chosen_values(metric)[optimizer][1]
    return np.array([values[seed] for seed in sorted(values)])


def _spikes(runs: Runs, optimizer: str, times: float = 3.0, before: int = 20) -> list[float]:
    """For each seed, in order, how often a batch's loss is ``times`` the median of those ``before`` it, or more."""
    course = _course(runs, "batch_loss")
    counts = []
    for _, key in sorted(_chosen_keys(runs, optimizer).items()):
        losses = course[key][1]
        medians = [np.median(losses[i - before : i]) for i in range(before, len(losses))]
        counts.append(float((losses[before:] >= times * np.array(medians)).sum()))
    return counts


def _ratio_of_deviations(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> stats.Interval:
    """The standard deviation of ``a`` over that of ``b``, with Fisher's interval for normal samples."""
    from scipy.special import fdtri

    ratio = float(np.std(a, ddof=1) / np.std(b, ddof=1))
    n, m = len(a) - 1, len(b) - 1
    high, low = (float(fdtri(m, n, share)) for share in ((1 + level) / 2, (1 - level) / 2))
    return stats.Interval(ratio, ratio * math.sqrt(low), ratio * math.sqrt(high), len(a))


def _table(estimates: dict[str, stats.Interval], to: Any) -> pd.DataFrame:
    rows = {task: to(estimate) for task, estimate in estimates.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"]).reset_index(names="task")


# --- Nadam ----------------------------------------------------------------------------------------------------------


@claim(
    "nadam-faster",
    source="course",
    says="Nesterov momentum inside Adam helps",
    conditions={
        **{
            task: f"{task}: the test metric is better than Adam's at an equal budget; "
            "the paired 95 % interval lies above 0"
            for task in NADAM_TASKS
        },
        "bowls": "on most of five tilted bowls Nadam comes to a thousandth of the first distance in fewer steps "
        "than Adam, each at its best rate",
        "look-ahead": "the same for the look-ahead alone: Nadam with its momentum held at Adam's beta1 (optax's form)",
        "momentum": "the same against Adam at the momentum that Nadam has in its first steps, beta1 / 2",
    },
    chapter=7,
    recorded={"tasks": NADAM_TASKS, "rates": 7, "seeds": 5},
)
def nadam_faster(
    tasks: Sequence[str] = ("digits-mlp",),
    rates: int = 3,
    seeds: int = 3,
    grid: int = 61,
    starts: int = 16,
) -> Outcome:
    """Nadam and Adam on tasks, tuned alike; and on bowls whose axes lie at 45 degrees to the coordinates."""
    bowls = _steps_on_bowls(grid, starts)
    beats = {
        "bowls": bowls["nadam"] < bowls["adam"],
        "look-ahead": bowls["nadam:optax"] < bowls["adam"],
        "momentum": bowls["nadam"] < bowls["adam, 0.45"],
    }
    gains, ratios = {}, {}
    for task in tasks:
        runs = tuned(task, ("adam", "nadam"), rates=rates, seeds=seeds)
        gains[task] = gain(runs, "nadam", "adam")
        ratios[task] = _speed_up(runs, "nadam", "adam")
    return Outcome(
        held={
            **{task: decided(gains[task]) if task in gains else None for task in NADAM_TASKS},
            **{name: bool(fewer.mean() > 0.5) for name, fewer in beats.items()},
        },
        numbers={
            **{f"{task}: how much better Nadam is, {_metric(task)}": value[:3] for task, value in gains.items()},
            **{f"{task}: Adam's steps over Nadam's to a training loss": _powers(r) for task, r in ratios.items()},
            **{
                f"bowls of five on which it needs fewer steps ({name})": exact(fewer.sum())
                for name, fewer in beats.items()
            },
        },
        n=seeds,
        budget=f"{rates} rates each, poly(2); bowls in float64, {grid} rates, {starts} starts",
        data={
            "bowls": bowls.reset_index(),
            "ratios": _table(ratios, _powers),
            "gains": _table(gains, lambda one: one[:3]),
        },
    )


def _metric(task: str) -> str:
    return tasks.find(task).metric.replace("_", " ")


BOWLS = (1, 3, 10, 30, 100)
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("adam", {}),
    "adam, 0.45": ("adam", {"betas": (0.45, 0.999)}),
    "nadam": ("nadam", {}),
    "nadam:optax": ("nadam:optax", {}),
}


def _steps_on_bowls(grid: int, starts: int, steps: int = 1000) -> pd.DataFrame:
    """Mean steps to a thousandth of the first distance at the best of a grid of rates; a row for each condition number.

    The bowls' axes lie at 45 degrees to the coordinates; the starts are evenly spaced on half of the unit circle.
    """
    angle = math.pi * torch.arange(starts, dtype=torch.float64) / starts
    start = torch.stack([angle.cos(), angle.sin()], dim=1)
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    stretch = torch.diag_embed(torch.tensor([[1.0, k] for k in BOWLS], dtype=torch.float64))
    bowls = (turn @ stretch @ turn.T)[:, None]
    rates = torch.logspace(-2.5, 0.5, grid, dtype=torch.float64)[:, None, None]
    table = {}
    for name, (rule, hyper) in CONTESTANTS.items():
        p = start.expand(len(BOWLS), grid, starts, 2)
        state, needed = find(rule).init(p), torch.zeros(p.shape[:-1])
        for t in range(1, steps + 1):
            p, *new_state = find(rule)(p, p @ bowls, t, *state, lr=rates, **hyper)
            state = tuple(new_state)
            # The last step after which it is still far away: it may come back.
            needed[~(p.norm(dim=-1) <= 1e-3)] = t + 1
        table[name] = needed.mean(dim=2).amin(dim=1).tolist()
    return pd.DataFrame(table, index=pd.Index(BOWLS, name="condition"))
