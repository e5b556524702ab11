"""The claims on learning-rate schedules: chapter 09."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import landscapes, schedules, search, stats, tasks
from ..rules import RULES
from ..runs import Runs
from ..schedules import RangeTest, lr_range_test
from .base import OPTIONS, SCHEDULE, Outcome, claim, decided, exact, train, tuned

CYCLES = ("triangular", "triangular2", "exp_range")
# What a rate must keep of the gain of the best one to be called good.
GOOD = 0.95


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """``False`` if any is, else ``None`` if any is undecided or there is none, else ``True``."""
    known = list(verdicts)
    if False in known:
        return False
    return None if None in known or not known else True


def _part(runs: Runs, **fixed: Any) -> Runs:
    """Those of the runs in which every named column has the given value."""
    frame = runs.frame()
    for name, value in fixed.items():
        frame = frame[frame[name] == value]
    return Runs(runs.store, frame["key"].tolist())


def _values(runs: Runs, metric: str, optimizer: str = "sgdm") -> np.ndarray:
    """What the chosen rate ends at, one number for each seed in their order; a diverged run counts as untrained."""
    _, values = runs.chosen_values(metric)[optimizer]
    return np.array([values[seed] for seed in sorted(values)])


# --- the range test -------------------------------------------------------------------------------------------------


def range_test(task: str, optimizer: str, seed: int = 0, **options: Any) -> RangeTest:
    """The range test of an optimizer, else at its defaults, on a task from the seed's own start and batches."""
    the_task = tasks.find(task)
    leaves = {name: p.requires_grad_() for name, p in the_task.init(seed).items()}
    method = search.optimizer(optimizer, list(leaves.values()), OPTIONS.get(optimizer, {}))
    batches, carry = the_task.batches(seed), [the_task.carry()]

    def closure() -> Tensor:
        method.zero_grad()
        loss, carried = the_task.advance(leaves, next(batches), carry[0])
        carry[0] = {name: value.detach() for name, value in carried.items()}
        loss.backward()
        return loss

    return lr_range_test(method, closure, **options)


@claim(
    "lr-range-test",
    source="course",
    says="A range test finds a good rate in one short run",
    conditions={
        "digits-mlp": "digits-mlp: SGDM and Adam, trained at the rate at which the test's loss fell fastest, each keep "
        "95 % or more of what the best rate of a full grid gains over the untrained model: the whole 95 % interval "
        "over seeds lies above 0.95",
        "digits-resnet": "the same on digits-resnet",
        "numbers-transformer": "the same on numbers-transformer",
        "docs-lstm": "the same on docs-lstm, where the gain is that of the logarithm of the perplexity",
        "near": "on every task and for both, that rate is within a factor of 3 of the best of the grid: "
        "the interval of the ratio lies between 1/3 and 3",
        "decade": "on every task and for both, a tenth of the rate at which the loss diverged keeps 95 % as well",
    },
    chapter=9,
    recorded={
        "task_names": ("digits-mlp", "digits-resnet", "numbers-transformer", "docs-lstm"),
        "rates": 7,
        "seeds": 5,
    },
)
def lr_range_test_claim(
    task_names: Sequence[str] = ("digits-mlp",),
    optimizers: Sequence[str] = ("sgdm", "adam"),
    rates: int = 5,
    seeds: int = 3,
) -> Outcome:
    """Each seed picks a rate by a range test of 100 steps, trains at it, and is set beside the best rate of a grid."""
    import pandas as pd

    rows = []
    for task in task_names:
        grid = tuned(task, optimizers, rates=rates, seeds=seeds)
        steps = int(grid.frame()["steps"][0])
        for name in optimizers:
            best = grid.chosen(name, tasks.find(task).metric)
            tests = [range_test(task, name, seed) for seed in range(seeds)]
            for rule, picks in {
                "steepest": [test.steepest for test in tests],
                "decade": [test.decade_below for test in tests],
            }.items():
                for seed, pick in enumerate(picks):
                    kept = _kept(task, name, pick, seed, steps, best.iloc[seed])
                    rows.append(
                        {"task": task, "optimizer": name, "rule": rule, "seed": seed, "pick": pick or math.nan, **kept}
                    )
    frame = pd.DataFrame(rows)
    frame["ratio"] = frame["pick"] / frame["best_lr"]
    shares, ratios = {}, {}
    for (task, name, rule), group in frame.groupby(["task", "optimizer", "rule"], sort=False):
        shares[task, name, rule] = stats.interval(group["share"])
        ratios[task, name, rule] = stats.interval(np.log(group["ratio"]))
    steepest = {key: share for key, share in shares.items() if key[2] == "steepest"}
    conditions = ("digits-mlp", "digits-resnet", "numbers-transformer", "docs-lstm")
    numbers = {}
    for (task, name, rule), share in shares.items():
        numbers[f"{task}, {name}, {rule}: share of the best rate's gain that is kept"] = share[:3]
        numbers[f"{task}, {name}, {rule}: rate picked / best rate"] = _exp(ratios[task, name, rule])
    return Outcome(
        held={
            **{
                task: _all(decided(share, GOOD) for key, share in steepest.items() if key[0] == task)
                for task in conditions
            },
            "near": _all(_within(ratios[key]) for key in steepest),
            "decade": _all(decided(share, GOOD) for key, share in shares.items() if key[2] == "decade"),
        },
        numbers=numbers,
        n=seeds,
        budget=f"{', '.join(task_names)}; tests of 100 steps from 1e-6 to 10; {rates} rates in the grid; {SCHEDULE}(2)",
        data=frame,
    )


def _kept(task: str, name: str, pick: float | None, seed: int, steps: int, best: Any) -> dict[str, float]:
    """The end of a run at the rate ``pick``, and the share it keeps of what the run ``best`` gained."""
    the_task = tasks.find(task)
    metric = the_task.metric
    # Every rule tries any number of rates, so no rate at all is a run that learns nothing.
    run = train(
        task,
        {name: {"lr": pick or 1e-12, **OPTIONS.get(name, {})}},
        seeds=[seed],
        steps=steps,
        schedule=SCHEDULE,
        early_stop=True,
    )
    row = run.store.rows(run.keys)[0]
    start = row["metrics"][f"start_{metric}"]
    end = start if row["diverged"] else row["metrics"][f"final_{metric}"]
    scale = math.log if metric.endswith("perplexity") else float
    share = (scale(start) - scale(end)) / (scale(start) - scale(best[f"final_{metric}"]))
    return {"end": end, "best_end": best[f"final_{metric}"], "best_lr": best["lr"], "start": start, "share": share}


def _within(log_ratio: stats.Interval, factor: float = 3.0) -> bool | None:
    """Whether the interval of a logarithm lies within that of 1/factor to factor; ``None`` if it lies across an end.

    Where some seed was given no rate, there is nothing near.
    """
    limit = math.log(factor)
    if math.isnan(log_ratio.mean):
        return False
    if -limit < log_ratio.low and log_ratio.high < limit:
        return True
    return False if log_ratio.high <= -limit or log_ratio.low >= limit else None


def _exp(log_interval: stats.Interval) -> tuple[float, float, float]:
    mean, low, high = np.exp(log_interval[:3])
    return float(mean), float(low), float(high)


# --- cycles ---------------------------------------------------------------------------------------------------------


def descend(surface: landscapes.Landscape, start: Tensor, lr: np.ndarray, seeds: Sequence[int]) -> Tensor:
    """SGD from each start ``(n, 2)`` with that seed's noise, under each of r courses of the rate ``(steps, r)``.

    Returns the points ``(steps + 1, r, n, 2)``, the starts among them.
    """
    noise = torch.stack([landscapes.noise(surface, len(lr), seed) for seed in seeds], dim=1)
    points = [start.expand(lr.shape[1], len(seeds), 2)]
    for t, rates in enumerate(torch.from_numpy(lr), start=1):
        g = landscapes.gradient(surface, points[-1]) + noise[t - 1]
        points.append(RULES["sgd"](points[-1], g, t, lr=rates[:, None, None])[0])
    return torch.stack(points)


def _factors(schedule: str, steps: int) -> np.ndarray:
    chosen = schedules.find(schedule)
    return np.array([chosen(step, steps) for step in range(steps)])


@claim(
    "cyclical",
    source="course",
    says="Varying the rate in cycles escapes poor minima",
    conditions={
        "mean": "noisy double well, the same mean rate over the run: each of the three cycles ends on the side of the "
        "deep basin from more starts than a constant rate, averaged over the top rates that are stable in both basins: "
        "the paired 95 % intervals lie above 0",
        "best": "the same where each has its own best rate of one grid",
        "fall": "the same against one cosine fall, each at its own best rate",
        "digits": "digits-mlp, SGDM, each at its own best rate of one grid: with each of the three cycles fewer test "
        "images are wrong at the end than with a constant rate: the paired 95 % intervals lie above 0",
    },
    chapter=9,
    recorded={"starts": 100, "rates": 9, "seeds": 10, "net_rates": 7},
)
def cyclical(starts: int = 40, rates: int = 5, seeds: int = 3, net_rates: int = 3, steps: int = 300) -> Outcome:
    """Starts drawn on the shallow side of a double well whose noise is as large as its slopes; and digits-mlp.

    The noise, standard deviation 2, was set before any cycle ran, so that a constant rate escapes from some starts
    and not from all. The grid reaches beyond the best rate of every plan. A run that diverged has not escaped.
    """
    import pandas as pd

    surface = replace(landscapes.double_well(), noise=2.0)
    grid = np.geomspace(0.03, 0.4, rates)
    plans = {name: _factors(name, steps) for name in ("constant", "cosine", *CYCLES)}
    plans |= {f"constant, mean of {name}": np.full(steps, plans[name].mean()) for name in CYCLES}
    begin = [np.random.default_rng(seed).uniform((0.1, -1.0), (2.0, 1.0), (starts, 2)) for seed in range(seeds)]
    start, share, visited = torch.tensor(np.concatenate(begin)), {}, {}
    for name, factors in plans.items():
        across = descend(surface, start, factors[:, None] * grid, range(seeds * starts))[..., 0]
        ended = (across[-1] < 0) & across[-1].isfinite()
        share[name] = ended.reshape(rates, seeds, starts).double().mean(2).numpy()
        visited[name] = (across < 0).any(0).reshape(rates, seeds, starts).double().mean(2).numpy()
    best = {name: values[values.mean(1).argmax()] for name, values in share.items()}
    # SGD is stable below 2 / curvature; the deep basin is the steeper one.
    deep = torch.tensor(surface.minima[0], dtype=torch.float64)
    stable = grid < 2 / float(torch.func.hessian(surface)(deep)[0, 0])
    well = {
        "mean": {
            n: stats.paired_difference(share[n][stable].mean(0), share[f"constant, mean of {n}"][stable].mean(0))
            for n in CYCLES
        },
        "best": {n: stats.paired_difference(best[n], best["constant"]) for n in CYCLES},
        "fall": {n: stats.paired_difference(best[n], best["cosine"]) for n in CYCLES},
    }
    runs = train(
        "digits-mlp",
        {"sgdm": {"lr": search.log_grid(0.05, 1.6, net_rates), "schedule": ["constant", "cosine", *CYCLES]}},
        seeds=seeds,
        steps=steps,
    )
    errors = {name: _values(_part(runs, schedule=name), "test_error") for name in ("constant", "cosine", *CYCLES)}
    best_errors = {name: _part(runs, schedule=name).chosen("sgdm")["best_test_error"] for name in errors}
    fewer = {n: stats.paired_difference(errors["constant"], errors[n]) for n in CYCLES}
    numbers = {}
    for name in ("constant", "cosine", *CYCLES):
        at = share[name].mean(1).argmax()
        numbers[f"double well, {name}, best rate {grid[at]:.2g}: share that ends deep"] = stats.interval(best[name])[:3]
        numbers[f"… {name}: share that was ever there"] = stats.interval(visited[name][at])[:3]
    for what, words in (("mean", "a constant of the same mean"), ("best", "a constant"), ("fall", "one cosine")):
        for name in CYCLES:
            numbers[f"double well, {name}: more than {words}"] = well[what][name][:3]
    for name in errors:
        numbers[f"digits-mlp, {name}: test error at the end"] = stats.interval(errors[name])[:3]
        numbers[f"… {name}, at its best moment"] = stats.interval(best_errors[name])[:3]
    for name in CYCLES:
        numbers[f"digits-mlp, {name}: test error below that of a constant rate by"] = fewer[name][:3]
    table = [
        {"schedule": name, "lr": grid[i], "draw": j, "share": values[i, j]}
        for name, values in share.items()
        for i in range(rates)
        for j in range(seeds)
    ]
    return Outcome(
        held={
            **{k: _all(map(decided, v.values())) for k, v in well.items()},
            "digits": _all(map(decided, fewer.values())),
        },
        numbers=numbers,
        n=seeds,
        budget=f"double well, noise 2, {starts} starts a seed, {rates} rates; digits-mlp, {net_rates} rates; "
        f"{steps} steps, four cycles",
        data=pd.DataFrame(table),
    )


# --- warm restarts --------------------------------------------------------------------------------------------------


@claim(
    "sgdr",
    source="course",
    says="Warm restarts help",
    conditions={
        "valley": "noisy valley, SGD: at the end of the last of five cycles the loss is lower than after one cosine as "
        "long, each at its best rate of one grid: the paired 95 % interval lies above 0",
        "digits": "digits-mlp, SGDM: the same for the training loss (ratio of the two, by its logarithm)",
        "error": "digits-mlp, SGDM: the same for the test error, the rates chosen on the validation images",
        "language": "docs-lstm, Adam: the same for the logarithm of the test perplexity, the rates chosen likewise",
        "planned": "digits-mlp: at the end of each cycle between the first and the last the training loss is lower "
        "than after one cosine planned for just so many steps, at its own best rate",
        "anytime": "digits-mlp: at the end of every cycle but the last it is lower than the one long cosine's then",
    },
    chapter=9,
    recorded={"rates": 7, "seeds": 10, "draws": 400, "language": 4},
)
def sgdr(rates: int = 3, seeds: int = 3, draws: int = 100, language: int = 0, steps: int = 300) -> Outcome:
    """Five falls of one length against one long fall, and against falls planned for each of the moments between.

    ``language`` is the number of rates, and of seeds, on docs-lstm, where a run takes seconds; 0 leaves it out.
    """
    import pandas as pd

    # A sweep measures at every tenth of a run, so the cycles' ends are among the moments.
    cycles = 5
    period = steps // cycles
    restarts = f"warm_restarts(period={period})"
    valley, grid = landscapes.noisy_valley(), np.geomspace(0.005, 0.15, 2 * rates)
    losses = {}
    for name in (restarts, "cosine"):
        start = torch.tensor(valley.start, dtype=torch.float64)
        ends = descend(valley, start, _factors(name, steps)[:, None] * grid, range(draws))[-1]
        ended = valley(ends).numpy()
        losses[name] = ended[ended.mean(1).argmin()]
    gains = {"valley": stats.paired_difference(losses["cosine"], losses[restarts])}

    lrs = search.log_grid(0.05, 1.6, rates)
    moments = [period * k for k in range(1, cycles + 1)]
    runs = train("digits-mlp", {"sgdm": {"lr": lrs, "schedule": [restarts, "cosine"]}}, seeds=seeds, steps=steps)
    planned = {
        end: train("digits-mlp", {"sgdm": {"lr": lrs, "schedule": "cosine"}}, seeds=seeds, steps=end)
        for end in moments[:-1]
    }
    split = {name: _part(runs, schedule=name) for name in (restarts, "cosine")}
    path = {name: _course(part, moments) for name, part in split.items()}
    alone = np.array([_values(planned[end], "train_loss") for end in moments[:-1]] + [path["cosine"][-1]])
    logs = {name: np.log10(values) for name, values in {**path, "planned": alone}.items()}
    gains["digits"] = stats.paired_difference(logs["cosine"][-1], logs[restarts][-1])
    error = {name: _values(part, "test_error") for name, part in split.items()}
    gains["error"] = stats.paired_difference(error["cosine"], error[restarts])
    # The first cycle is itself a cosine planned for its end.
    each = {k: stats.paired_difference(logs["planned"][k], logs[restarts][k]) for k in range(1, cycles - 1)}
    anytime = [stats.paired_difference(logs["cosine"][k], logs[restarts][k]) for k in range(cycles - 1)]
    numbers = {
        "valley: loss, restarts": stats.interval(losses[restarts])[:3],
        "valley: loss, one cosine": stats.interval(losses["cosine"])[:3],
        "… valley: lower with restarts by": gains["valley"][:3],
        "digits-mlp: training loss with one cosine / with restarts": _power(gains["digits"]),
        "digits-mlp: test error, restarts": stats.interval(error[restarts])[:3],
        "digits-mlp: test error, one cosine": stats.interval(error["cosine"])[:3],
        "… test error lower with restarts by": gains["error"][:3],
    }
    for k, end in enumerate(moments[:-1]):
        if k in each:
            numbers[f"step {end}: training loss of a cosine planned for it / of restarts"] = _power(each[k])
        numbers[f"step {end}: training loss of the long cosine / of restarts"] = _power(anytime[k])
    in_words = None
    if language:
        in_words, perplexities = _language(language, steps, restarts)
        numbers |= perplexities
    table = [
        {"step": end, "plan": plan, "seed": seed, "train_loss": values[k, seed]}
        for plan, values in {
            "warm restarts": path[restarts],
            "cosine, long": path["cosine"],
            "cosine, planned": alone,
        }.items()
        for k, end in enumerate(moments)
        for seed in range(seeds)
    ]
    return Outcome(
        held={
            **{key: decided(gain) for key, gain in gains.items()},
            "language": None if in_words is None else decided(in_words),
            "planned": _all(map(decided, each.values())),
            "anytime": _all(map(decided, anytime)),
        },
        numbers=numbers,
        n=seeds,
        budget=f"noisy valley, {draws} draws, {2 * rates} rates; digits-mlp, {rates} rates; docs-lstm, "
        f"{language} rates and seeds; {steps} steps in {cycles} cycles",
        data=pd.DataFrame(table),
    )


def _language(count: int, steps: int, restarts: str) -> tuple[stats.Interval, dict[str, Any]]:
    """The gain of restarts over one cosine on docs-lstm, and the perplexities, a constant rate's with them."""
    plans = {"constant rate": "constant", "one cosine": "cosine", "restarts": restarts}
    grid = {"lr": search.log_grid(1e-3, 3e-2, count), "schedule": list(plans.values())}
    runs = train("docs-lstm", {"adam": grid}, seeds=count, steps=steps, early_stop=True)
    ends = {name: _values(_part(runs, schedule=plan), "test_perplexity", "adam") for name, plan in plans.items()}
    logs = {name: np.log(values) for name, values in ends.items()}
    gain = stats.paired_difference(logs["one cosine"], logs["restarts"])
    numbers = {f"docs-lstm: test perplexity, {name}": stats.interval(values)[:3] for name, values in ends.items()}
    numbers["docs-lstm: perplexity of one cosine / of restarts"] = _exp(gain)
    falling = stats.paired_difference(logs["constant rate"], logs["one cosine"])
    return gain, {**numbers, "docs-lstm: perplexity of a constant rate / of one cosine": _exp(falling)}


def _course(runs: Runs, moments: Sequence[int]) -> np.ndarray:
    """The training loss at some steps of the runs at the rate with the lowest one in the end, ``(moments, seeds)``."""
    chosen = runs.chosen("sgdm", "train_loss")
    curves = runs.curves("train_loss").set_index(["key", "step"])["value"]
    return np.array([[curves[key, step] for key in chosen["key"]] for step in moments])


def _power(log_interval: stats.Interval) -> tuple[float, float, float]:
    mean, low, high = (10.0**x for x in log_interval[:3])
    return mean, low, high


# --- one cycle ------------------------------------------------------------------------------------------------------


@claim(
    "one-cycle",
    source="course",
    says="One large cycle trains fast",
    conditions={
        "constant": "digits-mlp, SGDM: it reaches the task's target, a test error of 8 %, in fewer steps than a "
        "constant rate, each at its best rate for each length of run: the 95 % interval of the ratio lies above 1",
        "cosine": "the same against one cosine",
        "constant, half": "half that error in fewer steps than a constant rate",
        "cosine, half": "half that error in fewer steps than one cosine",
        "large": "the top of its best rate for the longest run is twice the best constant rate or more",
    },
    chapter=9,
    recorded={"lengths": 12, "rates": 6, "seeds": 10},
    recipe="digits-resnet@full (ResNet-50, ImageNet), SGDM with momentum 0.9 at five top rates from 0.1 to 10, with "
    "each of the schedules one_cycle, constant and cosine, at 20, 50 and 100 epochs: days on a machine of eight GPUs",
)
def one_cycle(lengths: int = 4, rates: int = 3, seeds: int = 3, shortest: int = 20, longest: int = 300) -> Outcome:
    """Runs of more and more steps, each planned and tuned for its length; the shortest that reaches the target counts.

    A seed that no length brings there counts as one length more.
    """
    import pandas as pd

    task = tasks.find("digits-mlp")
    plans = ("one_cycle", "constant", "cosine")
    ladder = [round(x) for x in np.geomspace(shortest, longest, lengths)]
    beyond = round(longest * (longest / shortest) ** (1 / (lengths - 1)))
    lrs = search.log_grid(0.05, 1.6, rates)
    rows, best_rate = [], {}
    for steps in ladder:
        runs = train(task.name, {"sgdm": {"lr": lrs, "schedule": list(plans)}}, seeds=seeds, steps=steps)
        for plan in plans:
            part = _part(runs, schedule=plan)
            best_rate[plan] = float(part.chosen("sgdm")["lr"][0])
            errors = _values(part, task.metric)
            rows += [
                {"schedule": plan, "steps": steps, "seed": seed, "lr": best_rate[plan], "test_error": error}
                for seed, error in enumerate(errors)
            ]
    frame = pd.DataFrame(rows)
    targets = {"": task.target, ", half": task.target / 2}
    held: dict[str, bool | None] = {}
    numbers = {}
    for name, target in targets.items():
        needed = {plan: _needed(frame[frame["schedule"] == plan], target, beyond) for plan in plans}
        for plan in plans:
            numbers[f"steps to a test error of {target:.0%}, {plan}"] = stats.interval(needed[plan])[:3]
        for other in plans[1:]:
            ratio = stats.paired_difference(np.log10(needed[other]), np.log10(needed["one_cycle"]))
            held[f"{other}{name}"] = decided(ratio)
            numbers[f"… {other} / one cycle, {target:.0%}"] = _power(ratio)
    numbers |= {f"best rate for {ladder[-1]} steps, {plan}": exact(rate) for plan, rate in best_rate.items()}
    held["large"] = best_rate["one_cycle"] >= 2 * best_rate["constant"]
    return Outcome(
        held=held,
        numbers=numbers,
        n=seeds,
        budget=f"digits-mlp, {lengths} lengths from {shortest} to {longest} steps, {rates} rates up to {lrs[-1]:g}",
        data=frame,
    )


def _needed(frame: Any, target: float, beyond: int) -> list[int]:
    """For each seed the fewest steps whose run ends at the target or below."""
    reached = frame[frame["test_error"] <= target].groupby("seed")["steps"].min()
    return [int(reached.get(seed, beyond)) for seed in sorted(frame["seed"].unique())]
