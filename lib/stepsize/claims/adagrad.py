"""The claims on AdaGrad, RMSProp and the framework behind them: chapter 04."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import landscapes, stats, tasks
from ..rules import find
from .base import Outcome, claim, decided, exact, train

# --- one framework ---------------------------------------------------------------------------------------------------

GAMMA, BETAS, ALPHA = 0.9, (0.9, 0.999), 0.99
FRAMEWORK = ("sgd", "sgdm", "adagrad", "rmsprop", "adam")


def memory(method: str, t: int) -> tuple[Tensor, Tensor | None]:
    """The weights of g_1 … g_t in phi_t, and of their squares in psi_t, or ``None`` where psi_t is the identity."""
    age = torch.arange(t - 1, -1, -1, dtype=torch.float64)
    newest = (age == 0).double()

    def fading(beta: float) -> Tensor:
        return (1 - beta) * beta**age

    return {
        "sgd": (newest, None),
        "sgdm": (GAMMA**age, None),
        "adagrad": (newest, torch.ones_like(age) / t),
        "rmsprop": (newest, fading(ALPHA)),
        "adam": (fading(BETAS[0]), fading(BETAS[1])),
    }[method]


def framework(method: str, gradient: Callable[[Tensor, int], Tensor], start: Tensor, rates: Iterable[float]) -> Tensor:
    """The one loop: x_t = x_{t-1} - rate_t phi_t / sqrt(psi_t), with the whole history kept, ``(steps + 1, d)``."""
    points, history = [start], torch.empty(0, *start.shape, dtype=start.dtype)
    for t, rate in enumerate(rates, start=1):
        history = torch.cat([history, gradient(points[-1], t)[None]])
        phi, psi = memory(method, t)
        scale = 1.0 if psi is None else (psi @ history**2).sqrt()
        points.append(points[-1] - rate * (phi @ history) / scale)
    return torch.stack(points)


@claim(
    "generic-framework",
    source="adabound",
    says="SGD, SGDM, AdaGrad, RMSProp and Adam are one algorithm with different phi_t and psi_t",
    conditions={
        "sgd": "SGD's phi and psi give the path of its rule, to 1e-12 in float64",
        "sgdm": "so do SGDM's, at a constant rate",
        "adagrad": "so do AdaGrad's, the framework's rate falling as 1 / sqrt(t) and the rule's constant",
        "rmsprop": "so do RMSProp's",
        "adam": "so do Adam's, the rule's bias correction put into the framework's rate",
    },
    chapter=4,
)
def generic_framework(steps: int = 60, lr: float = 0.05) -> Outcome:
    """The loop with the table's sums over the whole history, beside each rule with epsilon 0, on the noisy valley."""
    valley = landscapes.noisy_valley()
    noise, start = landscapes.noise(valley, steps), torch.tensor(valley.start, dtype=torch.float64)

    def slope(p: Tensor, t: int) -> Tensor:
        return landscapes.gradient(valley, p) + noise[t - 1]

    def gap(method: str, rate: Callable[[int], float], rule: str = "", **hyper: Any) -> float:
        path = landscapes.trajectory(rule or method, valley, steps=steps, **hyper)
        loop = framework(method, slope, start, map(rate, range(1, steps + 1)))
        return float((path - loop).abs().max())

    def constant(t: int) -> float:
        return lr

    def falling(t: int) -> float:
        return lr / math.sqrt(t)

    def corrected(t: int) -> float:
        return lr * math.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t)

    exactly: dict[str, Any] = {"lr": lr, "eps": 0.0}
    gaps = {
        "sgd": gap("sgd", constant, lr=lr),
        "sgdm": gap("sgdm", constant, lr=lr, momentum=GAMMA),
        "adagrad": gap("adagrad", falling, **exactly),
        "rmsprop": gap("rmsprop", constant, alpha=ALPHA, **exactly),
        "adam": gap("adam", corrected, betas=BETAS, **exactly),
    }
    return Outcome(
        held={method: gaps[method] <= 1e-12 for method in FRAMEWORK},
        numbers={
            **{f"largest distance, {method}": exact(gaps[method]) for method in FRAMEWORK},
            "SGDM under a falling rate, from the course's form": exact(
                gap("sgdm", falling, lr=falling, momentum=GAMMA)
            ),
            "… from torch's form": exact(gap("sgdm", falling, "sgdm:torch", lr=falling, momentum=GAMMA)),
            "Adam with the framework's rate constant": exact(gap("adam", constant, betas=BETAS, **exactly)),
            "AdaGrad with the framework's rate constant": exact(gap("adagrad", constant, **exactly)),
        },
        n=1,
        budget=f"exact: noisy valley, float64, {steps} steps, lr {lr}, epsilon 0",
        data=pd.DataFrame(
            [
                {"method": method, "age": steps - 1 - i, "gradients": float(phi[i]), "squares": _at(psi, i)}
                for method in FRAMEWORK
                for phi, psi in [memory(method, steps)]
                for i in range(steps)
            ]
        ),
    )


def _at(weights: Tensor | None, i: int) -> float:
    return math.nan if weights is None else float(weights[i])


# --- regret ----------------------------------------------------------------------------------------------------------

ONLINE = ("sgd", "adagrad", "adam", "amsgrad")


@claim(
    "regret-definition",
    source="adabound",
    says="Cumulative regret is the right yardstick for online convex problems; a lower order means closer to the "
    "optimum",
    conditions={
        "one step": "a single step's loss would mislead: on both problems the worst point of the interval has the "
        "lower loss at most steps",
        "order, C = 3": "on the problem with C = 3, over all methods and rates, a lower order of the regret goes with "
        "an end closer to the best point: Kendall's tau is 0.5 or more",
        "order, rare spike": "the same on the problem of the rare spike",
        "total, C = 3": "so does a lower total R_T, on the problem with C = 3",
        "total, rare spike": "the same on the problem of the rare spike",
    },
    chapter=4,
    recorded={"steps": 30_000, "rates": 7},
)
def regret_definition(steps: int = 600, rates: int = 5) -> Outcome:
    """Four methods at rates that fall as 1 / sqrt(t); the order is the power of T in R_T over the last decade.

    The end is the mean of the last tenth of the points; the betas are those for which Adam is known to fail.
    """
    problems = {
        "C = 3": (landscapes.counterexample(3.0), (0.0, 0.1), 3.0),
        "rare spike": (landscapes.rare_spike(), (0.9, 0.99), 1010.0),
    }
    grid, rows, curves = np.geomspace(1e-2, 10, rates), [], []
    marks = np.unique(np.geomspace(1, steps, 60).astype(int))
    for name, (problem, betas, steepest) in problems.items():
        for method, rate in ((method, rate) for method in ONLINE for rate in grid):
            hyper: dict[str, Any] = {"betas": betas} if "betas" in find(method).defaults else {}
            # SGD alone is not free of the slopes' scale.
            top = rate / steepest if method == "sgd" else rate
            x, regret = landscapes.play(method, problem, steps, lr=_course(method, float(top)), **hyper)
            row = {"problem": name, "method": method, "rate": rate, "total": float(regret[-1]) / steps}
            row["order"] = _order(regret)
            row["distance"] = float((x[-(steps // 10) :].mean() - problem.best).abs())
            rows.append(row)
            points = (regret[marks - 1] / torch.tensor(marks)).tolist()
            curves += [{**row, "t": int(t), "regret": float(r)} for t, r in zip(marks, points, strict=True)]
    table, lower = pd.DataFrame(rows), {}
    for name, (problem, *_) in problems.items():
        slopes = problem.slopes(steps, 0)
        lower[name] = float((slopes * -problem.best < slopes * problem.best).double().mean())
    tau = {
        f"{what}, {name}": float(part[what].corr(part["distance"], method="kendall"))
        for what in ("order", "total")
        for name, part in table.groupby("problem", sort=False)
    }
    still = table[(table.problem == "rare spike") & (table.method == "sgd")]
    lazy, best = still.iloc[still["rate"].argmin()], still.iloc[still["distance"].argmin()]
    return Outcome(
        held={
            "one step": all(share > 0.5 for share in lower.values()),
            **{key: tau[key] >= 0.5 for key in ("order, C = 3", "order, rare spike")},
            **{key: tau[key] >= 0.5 for key in ("total, C = 3", "total, rare spike")},
        },
        numbers={
            **{f"steps at which the worst point has less loss, {name}": exact(share) for name, share in lower.items()},
            **{f"Kendall's tau, {key}": exact(value) for key, value in tau.items()},
            f"rare spike, SGD nearly at rest (rate {lazy.rate / 1010:.2g}): R_T / T": exact(lazy.total),
            "… and how far from the best point it ends": exact(lazy.distance),
            f"rare spike, SGD where it ends nearest (rate {best.rate / 1010:.2g}): R_T / T": exact(best.total),
            "… and how far from the best point that ends": exact(best.distance),
        },
        n=1,
        budget=f"exact: two online problems, {steps} steps, {len(ONLINE)} methods, {rates} rates, float64",
        data={"runs": table, "curves": _best_rate(pd.DataFrame(curves))},
    )


def _course(method: str, rate: float) -> Callable[[int], float]:
    """AdaGrad's own sum makes its rate fall; the others' falls as 1 / sqrt(t)."""
    return lambda t: rate if method == "adagrad" else rate / math.sqrt(t)


def _order(regret: Tensor) -> float:
    """The power of T with which the regret grew over the last decade; a regret of zero or less has power 0 at most."""
    early, late = (max(float(r), 1e-9) for r in (regret[len(regret) // 10 - 1], regret[-1]))
    return math.log10(late / early)


def _best_rate(curves: pd.DataFrame) -> pd.DataFrame:
    best = curves.groupby(["problem", "method"])["total"].transform("min")
    return curves[curves["total"] == best]


# --- a rate that falls -----------------------------------------------------------------------------------------------


@claim(
    "adagrad-rate-decays",
    source="adabound",
    says="AdaGrad's rate only falls",
    conditions={
        "falls": "at no step and in no coordinate does AdaGrad's sum of squares fall, on four landscapes",
        "valley": "and that stalls a non-convex run: in Rosenbrock's valley, without noise, RMSProp ends at a tenth of "
        "AdaGrad's loss or less, each at the best rate of one grid",
        "digits": "the same on digits-mlp: the paired 95 % interval of the log of the ratio of their training losses "
        "lies above a factor of ten",
    },
    chapter=4,
    recorded={"steps": 2000, "rates": 9, "seeds": 4, "digits_steps": 2000},
)
def adagrad_rate_decays(steps: int = 500, rates: int = 5, seeds: int = 2, digits_steps: int = 300) -> Outcome:
    """The sums along AdaGrad's own paths, RMSProp's averages for contrast; then two runs that are not convex."""
    places = ("noisy_valley", "rosenbrock", "double_well", "beale")
    falls = {rule: np.mean([_share_of_falls(rule, place) for place in places]) for rule in ("adagrad", "rmsprop")}
    valley, grid = landscapes.get("rosenbrock"), np.geomspace(1e-3, 3, 2 * rates - 1)
    course = {}
    for rule in ("adagrad", "rmsprop"):
        heights = valley(landscapes.trajectory(rule, valley, steps=steps, lr=grid)).nan_to_num(torch.inf)
        course[rule] = heights[heights[:, -1].argmin()]
    ends = {rule: float(heights[-1]) for rule, heights in course.items()}
    tried = {"adagrad": np.geomspace(1e-2, 1, rates), "rmsprop": np.geomspace(1e-4, 1e-2, rates)}
    runs = train("digits-mlp", {name: {"lr": lrs} for name, lrs in tried.items()}, seeds=seeds, steps=digits_steps)
    losses = {name: _final(runs, name) for name in tried}
    ratio = stats.paired_difference(np.log10(losses["adagrad"]), np.log10(losses["rmsprop"]))
    return Outcome(
        held={
            "falls": bool(falls["adagrad"] == 0),
            "valley": ends["rmsprop"] <= ends["adagrad"] / 10,
            "digits": decided(ratio, above=1.0),
        },
        numbers={
            "share of steps at which AdaGrad's sum falls": exact(falls["adagrad"]),
            "share of steps at which RMSProp's average falls": exact(falls["rmsprop"]),
            "AdaGrad's loss in Rosenbrock's valley": exact(ends["adagrad"]),
            "RMSProp's": exact(ends["rmsprop"]),
            "training loss on digits-mlp, AdaGrad": stats.interval(losses["adagrad"])[:3],
            "… RMSProp": stats.interval(losses["rmsprop"])[:3],
            "… decades between them": ratio[:3],
        },
        n=seeds,
        budget=f"Rosenbrock's valley, {steps} steps, {2 * rates - 1} rates; digits-mlp, {digits_steps} steps, "
        f"{rates} rates",
        data=pd.DataFrame({"step": range(steps + 1), **{rule: heights.numpy() for rule, heights in course.items()}}),
    )


def _share_of_falls(rule: str, place: str, steps: int = 200, lr: float = 0.01) -> float:
    surface, method = landscapes.get(place), find(rule)
    path = landscapes.trajectory(rule, surface, steps=steps, lr=lr)
    slopes = landscapes.gradient(surface, path[:-1]) + landscapes.noise(surface, steps)
    squares = [method.init(path[0])[0]]
    for t, (p, g) in enumerate(zip(path[:-1], slopes, strict=True), start=1):
        squares.append(method(p, g, t, squares[-1], lr=lr)[1])
    return float((torch.stack(squares).diff(dim=0) < 0).double().mean())


def _final(runs: Any, optimizer: str, metric: str = "train_loss") -> list[float]:
    """The final metric of each seed, at the rate that is best for it."""
    return [value for _, value in sorted(runs.chosen_values(metric)[optimizer][1].items())]


# --- forgetting ------------------------------------------------------------------------------------------------------


def follow(rule: str, gradient: Callable[[Tensor, int], Tensor], start: Tensor, steps: int, **hyper: Any) -> Tensor:
    """Points before the first step and after each, for a rule that treats each element alone, and any gradient."""
    method, points = find(rule), [start]
    state = method.init(start)
    for t in range(1, steps + 1):
        p, *new_state = method(points[-1], gradient(points[-1], t), t, *state, **hyper)
        points.append(p)
        state = tuple(new_state)
    return torch.stack(points)


@claim(
    "rmsprop-recent",
    source="adabound",
    says="RMSProp weighs recent gradients and so adapts to a sudden change of curvature",
    conditions={
        "flatter": "after the curvature falls a hundredfold and the minimum moves, RMSProp settles there in fewer "
        "steps than AdaGrad: the paired 95 % interval lies above 0, both rates tuned to the whole run",
        "unwarned": "the same, both rates tuned to the time before the jump",
        "steeper": "the same after the curvature rises a hundredfold, both rates tuned to the whole run",
    },
    chapter=4,
    recorded={"seeds": 40, "rates": 33},
)
def rmsprop_recent(seeds: int = 10, rates: int = 17, half: int = 1000) -> Outcome:
    """A noisy parabola whose curvature and minimum jump half-way; settled: 20 steps that are 0.2 away on average."""
    grid = torch.tensor(np.geomspace(1e-3, 30, rates))
    draws = [np.random.default_rng(seed).standard_normal(2 * half) for seed in range(seeds)]
    noise = torch.tensor(np.stack(draws, axis=1)) * 0.1
    start = torch.full((rates, seeds), -2.0, dtype=torch.float64)
    needed: dict[str, dict[str, np.ndarray]] = {}
    rows = []
    for jump, (before, after) in {"flatter": (100.0, 1.0), "steeper": (1.0, 100.0)}.items():

        def slope(p: Tensor, t: int, before: float = before, after: float = after) -> Tensor:
            return before * (p + noise[t - 1]) if t <= half else after * (p - 1 + noise[t - 1])

        for rule in ("adagrad", "rmsprop"):
            points = follow(rule, slope, start, 2 * half, lr=grid[:, None])[1:]
            far = torch.cat([points[:half].abs(), (points[half:] - 1).abs()])
            tuned = {"whole": far.square().mean((0, 2)), "unwarned": far[:half].square().mean((0, 2))}
            settled = far[half:].unfold(0, 20, 1).mean(-1) < 0.2
            first = torch.where(settled.any(0), settled.double().argmax(0), half)
            for how, errors in tuned.items():
                pick = int(errors.argmin())
                needed.setdefault(f"{jump}, {how}", {})[rule] = first[pick].numpy()
                mean = far[:, pick].mean(1)[half - 200 : half + 600]
                rows += [
                    {"jump": jump, "tuned": how, "rule": rule, "lr": float(grid[pick]), "step": i - 200, "distance": d}
                    for i, d in enumerate(mean.tolist())
                    if i % 4 == 0
                ]
    cases = {"flatter": "flatter, whole", "unwarned": "flatter, unwarned", "steeper": "steeper, whole"}
    more = {key: stats.paired_difference(needed[c]["adagrad"], needed[c]["rmsprop"]) for key, c in cases.items()}
    return Outcome(
        held={key: decided(difference) for key, difference in more.items()},
        numbers={
            f"steps to settle, {key}, {rule}": stats.interval(needed[case][rule])[:3]
            for key, case in cases.items()
            for rule in ("adagrad", "rmsprop")
        }
        | {f"{key}, AdaGrad minus RMSProp": difference[:3] for key, difference in more.items()},
        n=seeds,
        budget=f"noisy parabola, jump after {half} steps, {rates} rates",
        data=pd.DataFrame(rows),
    )


@claim(
    "first-steps-extreme",
    source="course",
    says="Very large gradients in the first steps spoil methods that sum all history",
    conditions={
        "sum": "with the first gradient multiplied by 1,000, AdaGrad's loss at the end of a noisy valley is ten times "
        "what it is without, or more, at the rate tuned without: the 95 % interval of the log of the ratio",
        "averages": "RMSProp's and Adam's is no more than twice what it is without",
        "hindsight": "AdaGrad's loss, over the run, is above both of theirs also where each rate is tuned with the "
        "spike",
        "digits": "on digits-mlp AdaGrad's training loss at the end grows by a larger factor than RMSProp's and Adam's",
    },
    chapter=4,
    recorded={"seeds": 40, "rates": 25, "digits_seeds": 4, "digits_steps": 1000, "digits_rates": 7},
)
def first_steps_extreme(
    seeds: int = 10,
    rates: int = 13,
    steps: int = 3000,
    spike: float = 1000.0,
    digits_seeds: int = 2,
    digits_steps: int = 60,
    digits_rates: int = 3,
) -> Outcome:
    """The same noisy runs with and without a spike in the very first gradient: in a valley, and on digits-mlp."""
    valley, grid = landscapes.noisy_valley(), torch.tensor(np.geomspace(1e-3, 30, rates))
    noise = torch.stack([landscapes.noise(valley, steps, seed) for seed in range(seeds)], dim=1)
    # Of a quadratic: its gradient is this times the point, at a hundredth of the price of asking for it.
    curvature = landscapes.gradient(valley, (1.0, 1.0))
    start = torch.tensor(valley.start, dtype=torch.float64).expand(rates, seeds, 2)
    methods = ("adagrad", "rmsprop", "adam")
    grown, hindsight, rows = {}, {}, []
    for rule in methods:
        losses = {}
        for factor in (1.0, spike):

            def slope(p: Tensor, t: int, factor: float = factor) -> Tensor:
                return (curvature * p + noise[t - 1]) * (factor if t == 1 else 1.0)

            points = follow(rule, slope, start, steps, lr=grid[:, None, None])
            # A rate that is far too large would hide the others in a mean.
            losses[factor] = valley(points).clamp(max=1e9)
        pick, again = (int(losses[factor].mean((0, 2)).argmin()) for factor in (1.0, spike))
        ends = {factor: np.log10(losses[factor][-100:, pick].mean(0).numpy()) for factor in losses}
        grown[rule] = stats.paired_difference(ends[spike], ends[1.0])
        hindsight[rule] = losses[spike][:, again].mean(0).numpy()
        places = np.unique(np.geomspace(1, steps, 80).astype(int))
        rows += [
            {"rule": rule, "spike": factor > 1, "step": int(t), "loss": float(losses[factor][t, pick].mean())}
            for factor in losses
            for t in places
        ]
    above = [stats.paired_difference(hindsight["adagrad"], hindsight[other]) for other in methods[1:]]
    tried = {"adagrad": (1e-2, 1), "rmsprop": (1e-4, 1e-2), "adam": (1e-3, 1e-1)}
    grids = {rule: {"lr": np.geomspace(*ends, digits_rates)} for rule, ends in tried.items()}
    runs = train("digits-mlp", grids, seeds=digits_seeds, steps=digits_steps)
    best = {rule: float(runs.chosen(rule, "train_loss")["lr"][0]) for rule in methods}
    worse = {
        rule: np.log10(
            [
                digits_loss(rule, best[rule], seed, digits_steps, spike)
                / digits_loss(rule, best[rule], seed, digits_steps)
                for seed in range(digits_seeds)
            ]
        )
        for rule in methods
    }
    digits = [stats.paired_difference(worse["adagrad"], worse[other]) for other in methods[1:]]
    return Outcome(
        held={
            "sum": decided(grown["adagrad"], above=1.0),
            "averages": _all(_at_most(grown[other], math.log10(2)) for other in methods[1:]),
            "hindsight": _all(map(decided, above)),
            "digits": _all(map(decided, digits)),
        },
        numbers={
            **{f"decades that the loss in the valley grows, {rule}": grown[rule][:3] for rule in methods},
            **{
                f"mean loss, rate tuned with the spike, {rule}": stats.interval(hindsight[rule])[:3] for rule in methods
            },
            **{f"decades that the loss on digits-mlp grows, {rule}": stats.interval(worse[rule])[:3] for rule in worse},
        },
        n=min(seeds, digits_seeds),
        budget=f"noisy valley, {steps} steps, {rates} rates, n = {seeds}; digits-mlp, {digits_steps} steps, "
        f"{digits_rates} rates, n = {digits_seeds}; first gradient times {spike:g}",
        data=pd.DataFrame(rows),
    )


def digits_loss(rule: str, lr: float, seed: int, steps: int, spike: float = 1.0, task: str = "digits-mlp") -> float:
    """The final training loss of a run whose first gradient is multiplied by ``spike``."""
    the_task, method = tasks.find(task), find(rule)
    params, gradient = the_task.init(seed), torch.func.grad(the_task.loss)
    state = {name: list(method.init(p)) for name, p in params.items()}
    for t, batch in zip(range(1, steps + 1), the_task.batches(seed), strict=False):
        slopes = gradient(params, batch)
        for name, p in params.items():
            g = slopes[name] * (spike if t == 1 else 1.0)
            params[name], *state[name] = method(p, g, t, *state[name], lr=lr)
    return float(the_task.evaluate(params)["train_loss"])


def _at_most(estimate: stats.Interval, limit: float) -> bool | None:
    if estimate.high <= limit:
        return True
    return False if estimate.low > limit else None


def _all(parts: Iterable[bool | None]) -> bool | None:
    parts = list(parts)
    return False if False in parts else None if None in parts else True


# --- sparse data -----------------------------------------------------------------------------------------------------


@claim(
    "sgd-sparse",
    source="adabound",
    says="SGD converges slowly on sparse data",
    conditions={
        "adagrad": "on sparse-logistic SGD needs more steps than AdaGrad to a training loss of 0.1, each at the rate "
        "that gets there first: the paired 95 % interval of the log of the ratio lies above 0",
        "adam": "the same against Adam",
        "sparse": "and it is the sparse data: the log of the ratio of SGD's steps to AdaGrad's is larger there than on "
        "digits-mlp, whose inputs are dense",
    },
    chapter=4,
    recorded={"rates": 7, "seeds": 4, "steps": 150},
)
def sgd_sparse(rates: int = 3, seeds: int = 2, steps: int = 100) -> Outcome:
    """Steps to a training loss, read off between the points where it is measured; a run that fails to has one more."""
    methods = ("sgd", "adagrad", "adam")
    grids: dict[str, dict[str, tuple[float, float]]] = {
        "sparse-logistic": {"sgd": (0.1, 100), "adagrad": (0.01, 10), "adam": (1e-3, 1)},
        "digits-mlp": {"sgd": (0.01, 10), "adagrad": (3e-3, 3), "adam": (3e-4, 0.3)},
    }
    # The network needs longer than the words.
    lengths = {"sparse-logistic": steps, "digits-mlp": 2 * steps}
    needed, rows, errors = {}, [], {}
    for task, tried in grids.items():
        optimizers = {name: {"lr": np.geomspace(*ends, rates)} for name, ends in tried.items()}
        runs = train(task, optimizers, seeds=seeds, steps=lengths[task])
        frame = runs.frame()
        frame["steps to 0.1"] = frame["key"].map(steps_to(runs, 0.1))
        for name in methods:
            mine = frame[frame["optimizer"] == name]
            fastest = mine.groupby("lr")["steps to 0.1"].mean().idxmin()
            needed[task, name] = mine[mine["lr"] == fastest].sort_values("seed")["steps to 0.1"].to_numpy()
            errors[task, name] = runs.chosen(name)["final_test_error"]
        rows.append(frame[["task", "optimizer", "lr", "seed", "steps to 0.1", "final_train_loss", "diverged"]])
    ratio = {
        (task, other): stats.paired_difference(np.log10(needed[task, "sgd"]), np.log10(needed[task, other]))
        for task in grids
        for other in methods[1:]
    }
    logs = {task: np.log10(needed[task, "sgd"] / needed[task, "adagrad"]) for task in grids}
    return Outcome(
        held={
            "adagrad": decided(ratio["sparse-logistic", "adagrad"]),
            "adam": decided(ratio["sparse-logistic", "adam"]),
            "sparse": decided(stats.paired_difference(logs["sparse-logistic"], logs["digits-mlp"])),
        },
        numbers={
            **{f"steps, {task}, {name}": stats.interval(values)[:3] for (task, name), values in needed.items()},
            **{f"decades SGD needs more than {o}, {task}": values[:3] for (task, o), values in ratio.items()},
            **{
                f"test error, sparse-logistic, {name}": stats.interval(errors["sparse-logistic", name])[:3]
                for name in methods
            },
        },
        n=seeds,
        budget=f"sparse-logistic, {steps} steps, and digits-mlp, {2 * steps}; {rates} rates over three decades",
        data=pd.concat(rows, ignore_index=True),
    )


def steps_to(runs: Any, target: float, metric: str = "train_loss") -> dict[str, float]:
    """By the runs' keys: the step at which ``metric`` first falls to ``target``; its log is straight between points."""
    found = {}
    for key, course in runs.curves(metric).groupby("key"):
        steps, logs = course["step"].to_numpy(), np.log(course["value"].to_numpy()) - np.log(target)
        below = np.flatnonzero(logs <= 0)
        if len(below) == 0:
            found[key] = float(steps[-1] + 1)
        elif (i := below[0]) == 0:
            found[key] = float(steps[0])
        else:
            found[key] = float(steps[i - 1] + (steps[i] - steps[i - 1]) * logs[i - 1] / (logs[i - 1] - logs[i]))
    return found
