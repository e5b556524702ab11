"""The claims on warm-up and RAdam: chapter 10."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import schedules, stats, tasks
from ..rules import RULES
from ..runs import Runs
from .base import Outcome, claim, decided, exact, train, tuned

TASK = "numbers-transformer"
# Large enough that the task wants warm-up: Adam at its default rate does not.
RATE = 0.01
WARMUP = 50
# The share of its steps that a tuned run with warm-up spends on it.
SHARE = 0.1
SHOWN = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50, 100)
# A difference in a task's metric that nobody would mind.
MARGIN = {
    "digits-mlp": 0.01,
    "digits-resnet": 0.01,
    "numbers-transformer": 2.0,
    "spans-bert": 0.03,
    "docs-transformer-xl": 3.0,
}


# --- the first steps on the transformer -----------------------------------------------------------------------------


class Moment(NamedTuple):
    """Where some runs, stacked along a first axis, stand before step ``t``, and the gradients of that step."""

    t: int
    params: dict[str, Tensor]
    grads: dict[str, Tensor]
    loss: Tensor


def constant(t: int) -> float:
    return RATE


def rising(t: int) -> float:
    return RATE * schedules.warmup(t - 1, WARMUP, over=WARMUP)


def beginning(rule: str, rate: Callable[[int], float], seeds: int, steps: int, still: int = 0) -> Iterator[Moment]:
    """The first steps of a rule on numbers-transformer at ``rate(t)``, one run for each seed.

    Before them are ``still`` steps at rate 0 on batches of their own: they fill the averages and move nothing.
    """
    task = tasks.find(TASK)
    starts = [task.init(seed) for seed in range(seeds)]
    params = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    states = {name: RULES[rule].init(p) for name, p in params.items()}
    orders = [task.batches(seed) for seed in range(seeds)]
    earlier = [task.batches(seed + seeds) for seed in range(seeds)]
    for t in range(1, still + steps + 1):
        given = earlier if t <= still else orders
        batch = tuple(torch.stack(part) for part in zip(*map(next, given), strict=True))
        grads, loss, _ = task.gradient(params, batch, {})
        if t > still:
            yield Moment(t - still, params, grads, loss)
        lr = rate(t - still) if t > still else 0.0
        # These rules work element by element, so runs may be stacked.
        moved = {name: RULES[rule](p, grads[name], t, *states[name], lr=lr) for name, p in params.items()}
        params = {name: new for name, (new, *_) in moved.items()}
        states = {name: tuple(state) for name, (_, *state) in moved.items()}


def flat(grads: dict[str, Tensor]) -> Tensor:
    """All gradients of each run as a row."""
    return torch.cat([g.flatten(1) for g in grads.values()], 1)


@claim(
    "adam-needs-warmup",
    source="course",
    says="Adam needs warm-up: gradients are distorted within the first ten steps",
    conditions={
        "distorted": "at lr 0.01 on numbers-transformer the gradients of step 10 lie farther from those of step 1 "
        "without warm-up than with one over 50 steps: by the mean distance between the quantiles of log10 |g|, "
        "paired by seed, the 95 % interval of the difference lies above 0",
        "rate": "at that rate the validation loss ends higher without warm-up: the paired 95 % interval lies above 0",
        "tuned": "at the best rate of each, found with one budget and falling by poly(2), Adam translates better "
        "with a warm-up over a tenth of the steps: the paired 95 % interval of the gain in BLEU lies above 0",
    },
    chapter=10,
    recorded={"seeds": 5, "steps": 100, "still": 50, "length": 200, "full": True, "rates": 7, "chosen_seeds": 5},
    recipe="a Transformer-base on WMT14 English-German with Adam, betas (0.9, 0.98), the rate tuned with the same "
    "budget with and without 4,000 steps of warm-up, 100,000 steps; eight GPUs, a day a run",
)
def adam_needs_warmup(
    seeds: int = 3,
    steps: int = 10,
    still: int = 10,
    length: int = 4,
    full: bool = False,
    rates: int = 1,
    chosen_seeds: int = 2,
) -> Outcome:
    """Gradients of the first steps with and without warm-up, and what becomes of the runs.

    Two more beginnings are kept for the figures: RAdam's, and Adam's after ``still`` steps at rate 0, which fill its
    averages, so that no step rests on few gradients. ``length`` is that of the runs at 0.01, and of the tuned ones
    unless ``full``: these then have the length that all tuned runs of the task have.
    """
    import pandas as pd

    arms = {
        "adam": beginning("adam", constant, seeds, steps),
        "warm-up": beginning("adam", rising, seeds, steps),
        "averages filled": beginning("adam", constant, seeds, steps, still),
        "radam": beginning("radam", constant, seeds, steps),
    }
    bins, shares = np.linspace(-9, 1, 51), torch.linspace(0.01, 0.99, 99)
    histogram, course, far, zero = [], [], {}, {}
    first = torch.zeros(())
    for arm, moments in arms.items():
        for moment in moments:
            sizes = flat(moment.grads).abs()
            logs = [row[row > 0].log10() for row in sizes]
            quantiles = torch.stack([row.quantile(shares) for row in logs])
            first = quantiles if moment.t == 1 else first
            distance = (quantiles - first).abs().mean(1).tolist()
            told = zip(range(seeds), moment.loss.tolist(), distance, strict=True)
            course += [(arm, moment.t, seed, loss, moved) for seed, loss, moved in told]
            if moment.t in SHOWN:
                counts = np.mean([np.histogram(row, bins)[0] / len(row) for row in logs], 0)
                histogram += [(arm, moment.t, x, y) for x, y in zip((bins[1:] + bins[:-1]) / 2, counts, strict=True)]
            if moment.t == 10:
                far[arm], zero[arm] = distance, (sizes == 0).double().mean(1).tolist()
    ends = at_rates((RATE,), chosen_seeds, length, ("adam", "warm-up")).sort_values("seed")
    losses = {arm: rows["final_val_loss"].to_numpy() for arm, rows in ends.groupby("arm")}
    budget: dict[str, Any] = {"rates": rates, "seeds": chosen_seeds, "steps": None if full else length}
    best = {share: tuned(TASK, ["adam"], warmup=share, **budget) for share in (0.0, SHARE)}
    differences = {
        "distorted": stats.paired_difference(far["adam"], far["warm-up"]),
        "rate": stats.paired_difference(losses["adam"], losses["warm-up"]),
        "tuned": stats.paired_difference(scores(best[SHARE], "adam"), scores(best[0.0], "adam")),
    }
    return Outcome(
        held={name: decided(difference) for name, difference in differences.items()},
        numbers={
            **{f"decades from step 1 to step 10, {arm}": stats.interval(far[arm])[:3] for arm in arms},
            "… farther without warm-up than with": differences["distorted"][:3],
            **{f"share of zero gradients at step 10, {arm}": stats.interval(zero[arm])[:3] for arm in arms},
            f"validation loss after {length} steps at {RATE}, without": stats.interval(losses["adam"])[:3],
            f"validation loss after {length} steps at {RATE}, with": stats.interval(losses["warm-up"])[:3],
            "… higher without warm-up than with": differences["rate"][:3],
            "best rate without warm-up": exact(chosen_rate(best[0.0], "adam")),
            "best rate with": exact(chosen_rate(best[SHARE], "adam")),
            "gain in BLEU by warm-up, each at its best rate": differences["tuned"][:3],
        },
        n=seeds,
        budget=f"{TASK}: gradients of {steps} steps, {seeds} seeds; {length} steps at {RATE} and {rates} "
        f"rates of {int(best[SHARE].frame()['steps'][0])} steps, {chosen_seeds} seeds",
        data={
            "histogram": pd.DataFrame(histogram, columns=["arm", "step", "log10_g", "share"]),
            "course": pd.DataFrame(course, columns=["arm", "step", "seed", "loss", "distance"]),
        },
    )


@claim(
    "small-first-steps",
    source="course",
    says="Small first steps lower the variance of the gradients",
    conditions={
        "variance": "on numbers-transformer with Adam at 0.01 a warm-up over 50 steps lowers the variance of the "
        "gradient over batches, summed over the parameters, on average over the steps looked at from 2 to 50: by the "
        "logarithm, paired by seed, the 95 % interval of what it is lower by lies above 0",
        "relative": "and so it does for that variance divided by the squared norm of the mean gradient",
    },
    chapter=10,
    recorded={"seeds": 5, "batches": 32, "steps": (1, 2, 5, 10, 20, 50, 100)},
)
def small_first_steps(seeds: int = 3, batches: int = 4, steps: Sequence[int] = (1, 2, 5, 10)) -> Outcome:
    """At fixed steps the run stands still while the gradients of some other batches are taken, the same for all."""
    import pandas as pd

    arms = {"adam": constant, "warm-up": rising}
    rows = []
    for arm, rate in arms.items():
        for moment in beginning("adam", rate, seeds, max(steps)):
            if moment.t in steps:
                rows += [(arm, moment.t, seed, *noise(moment, seed, batches)) for seed in range(seeds)]
    frame = pd.DataFrame(rows, columns=["arm", "step", "seed", "variance", "relative"])
    numbers: dict[str, tuple[float, float, float]] = {}
    held = {}
    for name, what in {"variance": "variance", "relative": "relative variance"}.items():
        logs = np.log10(frame[name]).groupby([frame["arm"], frame["step"], frame["seed"]]).first()
        early = frame["step"].between(2, 50)
        means = np.log10(frame[name])[early].groupby([frame["arm"], frame["seed"]]).mean()
        less = stats.paired_difference(means["adam"], means["warm-up"])
        held[name] = decided(less)
        numbers[f"decades by which warm-up lowers the {what}, steps 2 to 50"] = less[:3]
        for step in steps:
            gap = stats.paired_difference(logs["adam", step], logs["warm-up", step])
            numbers[f"… {what}, at step {step}"] = gap[:3]
    return Outcome(
        held=held,
        numbers=numbers,
        n=seeds,
        budget=f"{TASK}, lr {RATE}, warm-up over {WARMUP} steps, {batches} batches at {len(steps)} steps",
        data=frame,
    )


def noise(moment: Moment, seed: int, batches: int) -> tuple[float, float]:
    """The variance of one run's gradient over batches that it does not train on; and over the squared mean."""
    task = tasks.find(TASK)
    order = task.batches(seed + 1000)
    batch = tuple(torch.stack(part) for part in zip(*(next(order) for _ in range(batches)), strict=True))
    params = {name: p[seed].expand(batches, *p.shape[1:]) for name, p in moment.params.items()}
    grads = flat(task.gradient(params, batch, {})[0]).double()
    variance = float(grads.var(0).sum())
    return variance, variance / float((grads.mean(0) ** 2).sum())


# --- the rectifier --------------------------------------------------------------------------------------------------


@claim(
    "radam-memory",
    source="course",
    says="The average's effective memory rho_t grows to rho_inf and rectification follows it",
    conditions={
        "grows": "twice the mean age of the squares in v, less one, is 1 at the first step, rises at every step, and "
        "ends within 1 % of rho_inf = 2 / (1 - beta2) - 1",
        "follows": "with rho_t for that, RAdam's step is Adam's times the root of C(rho_inf) / C(rho_t), "
        "C(rho) = rho / ((rho - 2)(rho - 4)), to 1e-9 wherever rho_t > 4, and ignores v elsewhere",
        "first": "that factor is within 10 % of the Monte Carlo estimate of what it models, the ratio of the standard "
        "deviations of 1/sqrt(v) in the end and at step t, at each step from 5 to 10",
        "later": "and at the steps 20, 50, 100, 200, 500, 1000, 2000, 5000",
    },
    chapter=10,
    recorded={"draws": 40_000},
)
def radam_memory(draws: int = 8_000, steps: int = 8_000, beta2: float = 0.999, groups: int = 10) -> Outcome:
    """The rules themselves, fed normal gradients; the age of what is in v is read off by squares that are dates."""
    import pandas as pd

    random = np.random.default_rng(0)
    hyper: dict[str, Any] = {"lr": 1.0, "betas": (0.0, beta2), "eps": 0.0}
    # Adam's gradients are the draws; RAdam's squares are 1, the date, and 4.
    drawn, dated = torch.zeros(draws, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    drawn_state, dated_state = [*RULES["adam"].init(drawn)], [*RULES["radam"].init(dated)]
    at_v = list(RULES["radam"].state).index("exp_avg_sq")
    places = {*range(1, 11), *np.geomspace(10, steps, 40).round().astype(int).tolist()}
    places |= {t for t in (20, 50, 100, 200, 500, 1000, 2000, 5000, steps) if t <= steps}
    rho, factor, adapts, spread = [], [], [], {}
    for t in range(1, steps + 1):
        g = torch.from_numpy(random.standard_normal(draws))
        dates = torch.tensor([1.0, t**0.5, 2.0], dtype=torch.float64)
        moved, *drawn_state = RULES["adam"](drawn, g, t, *drawn_state, **hyper)
        rectified, *dated_state = RULES["radam"](dated, dates, t, *dated_state, **hyper)
        v = dated_state[at_v]
        rho.append(2 * (t + 1 - float(v[1] / v[0])) - 1)
        # With squares of 1 Adam's step is 1; where v counts, a gradient of 2 makes the same step.
        factor.append(-float(rectified[0]))
        adapts.append(bool((rectified[2] - rectified[0]).abs() < 1e-9))
        if t in places:
            spread[t] = [float(part.var()) for part in (moved / g).chunk(groups)]
    ages, factors, acts = np.array(rho), np.array(factor), np.array(adapts)
    end = 2 / (1 - beta2) - 1
    able = ages > 4
    modelled = np.where(able, (variance_model(end) / variance_model(np.where(able, ages, 5.0))) ** 0.5, np.nan)
    last = float(np.mean(spread[steps]))
    table = []
    for t in sorted(spread):
        mean, low, high, _ = stats.interval(spread[t])
        estimate = [(last / variance) ** 0.5 if variance > 0 else np.nan for variance in (mean, high, low)]
        table.append((t, ages[t - 1], factors[t - 1] if able[t - 1] else np.nan, *estimate))
    frame = pd.DataFrame(table, columns=["step", "rho", "rectifier", "estimate", "low", "high"]).set_index("step")
    ratio = pd.DataFrame({end: frame["rectifier"] / frame[other] for end, other in (("low", "high"), ("high", "low"))})
    later = [t for t in (20, 50, 100, 200, 500, 1000, 2000, 5000) if t <= steps]
    return Outcome(
        held={
            "grows": bool(abs(ages[0] - 1) < 1e-9 and (np.diff(ages) > 0).all() and abs(ages[-1] / end - 1) <= 0.01),
            "follows": bool((acts == able).all() and np.nanmax(np.abs(factors - modelled)[able]) <= 1e-9),
            "first": inside(ratio.loc[5:10], 0.9, 1.1),
            "later": inside(ratio.loc[later], 0.9, 1.1),
        },
        numbers={
            "rho in the limit": exact(end),
            **{f"rho at step {t}": exact(ages[t - 1]) for t in (1, 5, 10, 100, 1000) if t <= steps},
            "first step that is adapted": exact(int(able.argmax()) + 1),
            **{f"rectifier at step {t}": exact(frame["rectifier"][t]) for t in (5, 10, 100, 1000) if t <= steps},
            **{
                f"Monte Carlo estimate at step {t}": tuple(frame.loc[t, ["estimate", "low", "high"]])
                for t in (5, 10, 100, 1000)
                if t <= steps
            },
        },
        n=groups,
        budget=f"float64, beta2 {beta2}, {steps} steps, {draws} normal gradients at each in {groups} groups",
        data=frame.reset_index(),
    )


def variance_model(rho: Any) -> Any:
    """The variance of 1/sqrt(v) to first order, up to a factor, where v is a mean of ``rho`` squares."""
    return rho / ((rho - 2) * (rho - 4))


def inside(ratio: Any, low: float, high: float) -> bool | None:
    """Whether all intervals lie inside; ``False`` as soon as one lies outside, ``None`` where that is open."""
    if ((ratio["low"] >= low) & (ratio["high"] <= high)).all():
        return True
    return False if ((ratio["high"] < low) | (ratio["low"] > high)).any() else None


# --- trained runs ---------------------------------------------------------------------------------------------------


@claim(
    "radam-no-warmup",
    source="course",
    says="RAdam does without warm-up",
    conditions={
        "half": "at a constant 0.01 on numbers-transformer RAdam without warm-up closes more than half of the gap in "
        "validation loss between Adam without and Adam with one over 50 steps: the paired 95 % interval lies above 0",
        **{
            task: f"on {task}, each at the best rate of one budget, RAdam without warm-up is not behind Adam with one "
            f"over a tenth of the steps by more than {margin:g} in {tasks.find(task).metric}: the paired 95 % interval "
            "lies above that"
            for task, margin in MARGIN.items()
        },
    },
    chapter=10,
    recorded={
        "names": tuple(MARGIN),
        "rates": 7,
        "seeds": 5,
        "grid": (0.001, 0.00316, 0.01, 0.0316),
        "length": 200,
        "full": True,
    },
    recipe="a Transformer-base on WMT14 English-German: RAdam without warm-up and Adam with 4,000 steps of it, "
    "betas (0.9, 0.98), the rate tuned with the same budget, 100,000 steps; eight GPUs, a day a run",
)
def radam_no_warmup(
    names: Sequence[str] = ("digits-mlp",),
    rates: int = 6,
    seeds: int = 3,
    grid: Sequence[float] = (RATE,),
    length: int = 4,
    full: bool = False,
) -> Outcome:
    """Tuned runs, task by task; and on the transformer a grid of constant rates.

    ``full`` says that the tasks are trained for their own length; else for 100 steps.
    """
    import pandas as pd

    ends = at_rates(grid, seeds, length, ("adam", "warm-up", "untuned", "radam"))
    there = ends[ends["lr"] == RATE].sort_values("seed").groupby("arm")["final_val_loss"].apply(np.array)
    half = stats.paired_difference((there["adam"] + there["warm-up"]) / 2, there["radam"])
    held: dict[str, bool | None] = {"half": decided(half), **dict.fromkeys(MARGIN)}
    numbers = {f"validation loss at {RATE}, {arm}": stats.interval(losses)[:3] for arm, losses in there.items()}
    numbers["RAdam below the middle of Adam with and without"] = half[:3]
    for arm, rows in ends.groupby("arm"):
        width = stats.basin_width(rows, "final_test_bleu", larger=True)
        numbers[f"decades of constant rates within 10 % of the best BLEU, {arm}"] = exact(width)
    table = []
    for name in names:
        budget: dict[str, Any] = {"rates": rates, "seeds": seeds, "steps": None if full else 100}
        plain = tuned(name, ["adam", "radam"], **budget)
        arms = {
            "adam": (plain, "adam"),
            "warm-up": (tuned(name, ["adam"], warmup=SHARE, **budget), "adam"),
            "radam": (plain, "radam"),
        }
        values = {arm: scores(*which) for arm, which in arms.items()}
        sign = 1 if tasks.find(name).metric in tasks.find(name).larger else -1
        lead = {arm: stats.paired_difference(sign * values[arm], sign * values["warm-up"]) for arm in arms}
        held[name] = decided(lead["radam"], -MARGIN[name])
        numbers[f"{name}: RAdam better than Adam with warm-up by"] = lead["radam"][:3]
        numbers[f"{name}: Adam without warm-up better than with by"] = lead["adam"][:3]
        for arm, (runs, optimizer) in arms.items():
            rate = chosen_rate(runs, optimizer)
            table += [(name, arm, rate, seed, value) for seed, value in enumerate(values[arm])]
    kept = ["arm", "lr", "seed", "diverged", "final_train_loss", "final_val_loss", "final_test_bleu"]
    return Outcome(
        held=held,
        numbers=numbers,
        n=seeds,
        budget=f"{', '.join(names)}: {rates} rates, {seeds} seeds{'' if full else ', 100 steps'}; "
        f"{TASK}: {length} steps at {len(grid)} constant rates",
        data={
            "rates": ends[kept],
            "tuned": pd.DataFrame(table, columns=["task", "arm", "lr", "seed", "value"]),
        },
    )


def at_rates(grid: Sequence[float], seeds: int, steps: int, arms: Sequence[str]) -> Any:
    """A row per run on numbers-transformer at each constant rate, with a column ``arm``."""
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "adam": ("adam", {}),
        # A run no longer than its warm-up would not be one.
        "warm-up": ("adam", {"warmup_steps": min(WARMUP, steps - 1)}),
        "untuned": ("adam", {"schedule": f"warmup(over={schedules.untuned_warmup(0.999)})"}),
        "radam": ("radam", {}),
    }
    frames = []
    for arm in arms:
        name, course = settings[arm]
        runs = train(TASK, {name: {"lr": list(grid), **course}}, seeds=seeds, steps=steps)
        frames.append(runs.frame().assign(arm=arm))
    import pandas as pd

    return pd.concat(frames, ignore_index=True)


def scores(runs: Runs, optimizer: str) -> np.ndarray:
    """The task's own metric of each seed at the chosen setting; a diverged run counts as an untrained one."""
    metric = tasks.find(str(runs.frame()["task"][0])).metric
    return np.array([value for _, value in sorted(runs.chosen_values(metric)[optimizer][1].items())])


def chosen_rate(runs: Runs, optimizer: str) -> float:
    metric = tasks.find(str(runs.frame()["task"][0])).metric
    return float(runs.chosen(optimizer, metric)["lr"][0])
