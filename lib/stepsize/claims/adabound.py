"""The claims on AdaBound, AMSBound and SWATS: chapter 12."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import optim, stats, tasks
from ..rules import find
from ..runs import Runs
from ..tasks.digits_mlp import DigitsMLP
from .base import Outcome, _training, claim, decided, exact, gain, train, training, tuned

BETA1, BETA2 = 0.9, 0.999
Pair = tuple[float, float, float]


# --- what the experiments share ---------------------------------------------------------------------------------------


def walk(
    task: str, optimizer: str, seed: int, steps: int, **hyper: Any
) -> Iterator[tuple[int, dict[str, Tensor], Any, list[Tensor]]]:
    """Train one run and look at it after every step: the step, the parameters, the optimizer, the gradients."""
    the_task = tasks.find(task)
    params = {name: p.requires_grad_() for name, p in the_task.init(seed).items()}
    leaves = list(params.values())
    make: Any = optim.OPTIMIZERS[optimizer]
    moves = make(leaves, engine="loop", **hyper)
    for t, batch in zip(range(1, steps + 1), the_task.batches(seed), strict=False):
        grads = torch.autograd.grad(the_task.loss(params, batch), leaves)
        for p, g in zip(leaves, grads, strict=True):
            p.grad = g
        moves.step()
        yield t, params, moves, list(grads)


def effective_rate(rule: str, t: Any, v: Any, **hyper: Any) -> Tensor:
    """What ``rule`` multiplies the average gradient by at step ``t``, where its average of squares is then ``v``.

    It asks the rule itself: an average gradient of 1, and no new gradient. ``t`` and ``v`` may be tensors.
    """
    v = torch.as_tensor(v, dtype=torch.float64)
    one, nothing = torch.ones_like(v), torch.zeros_like(v)
    moved, *_ = find(rule)(nothing, nothing, t, one / BETA1, v / BETA2, betas=(BETA1, BETA2), **hyper)
    return -moved


def within(estimate: stats.Interval, margin: float) -> bool | None:
    """``True`` where the whole interval is nearer to 0 than ``margin``, ``False`` where all of it is farther off."""
    if -margin < estimate.low and estimate.high < margin:
        return True
    return False if estimate.low >= margin or estimate.high <= -margin else None


def below(estimate: stats.Interval, limit: float) -> bool | None:
    """``decided`` for the other side: ``True`` where the whole interval lies below."""
    return decided(stats.Interval(-estimate.mean, -estimate.high, -estimate.low, estimate.n), -limit)


def values(runs: Runs, optimizer: str, metric: str) -> np.ndarray:
    """The final value of each seed at the setting that validation chose; a diverged run counts as untrained."""
    per_seed = runs.chosen_values(metric)[optimizer][1]
    return np.array([per_seed[seed] for seed in sorted(per_seed)])


def curve(runs: Runs, optimizer: str, metric: str, choose: str) -> np.ndarray:
    """The course of ``metric`` at the setting chosen for ``choose``: a row for each seed, a column for each measure."""
    rows = runs.chosen(optimizer, choose)
    course = runs.curves(metric).pivot(index="key", columns="step", values="value")
    # A run that was ended early stays where it was.
    return np.array(course.loc[rows["key"]].ffill(axis=1))


def told(what: str, estimate: stats.Interval) -> dict[str, Pair]:
    return {what: (estimate.mean, estimate.low, estimate.high)}


# --- the rates ----------------------------------------------------------------------------------------------------


@claim(
    "extreme-rates",
    source="adabound",
    says="Near the end of training Adam's per-parameter rates spread from below 0.01 to above 1,000",
    conditions={
        "sampled tiny": "of one weight of each of the nine 3 x 3 kernels and one bias, the lowest rate is below 0.01: "
        "the interval of its logarithm over seeds lies below -2",
        "sampled huge": "the highest of these ten is above 1,000: the interval of its logarithm lies above 3",
        "all tiny": "of all parameters one in a hundred or more has a rate below 0.01",
        "all huge": "of all parameters one in a hundred or more has a rate above 1,000",
    },
    chapter=12,
    recorded={"seeds": 4, "steps": 800},
)
def extreme_rates(seeds: int = 2, steps: int = 60, lr: float = 1e-3, task: str = "digits-resnet") -> Outcome:
    """Adam at its default rate on a residual net; AdaBound beside it, for the picture of its bounds."""
    import pandas as pd

    at = sorted({round(x) for x in np.geomspace(1, steps, 40)})
    edges = np.linspace(-6, 6, 61)
    traces, shares, sampled, whole, losses = [], [], [], [], []
    for name, rule in (("adam", "adam:tensorflow"), ("adabound", "adabound")):
        for seed in range(seeds if name == "adam" else 1):
            picks = np.random.default_rng(seed)
            chosen: dict[str, int] = {}
            for t, params, moves, _ in walk(task, name, seed, steps, lr=lr):
                if not chosen:
                    kernels = [key for key, p in params.items() if p.ndim == 4 and p.shape[-1] == 3]
                    chosen = {key: int(picks.integers(params[key].numel())) for key in [*kernels, "output.bias"]}
                if t not in at:
                    continue
                v = {key: moves.state[p]["exp_avg_sq"].double() for key, p in params.items()}
                rates = {key: effective_rate(rule, t, one, lr=lr).flatten() for key, one in v.items()}
                if seed == 0:
                    traces += [(name, key, t, float(rates[key][i])) for key, i in chosen.items()]
            ends = torch.cat(list(rates.values())).log10().numpy()
            counts = np.histogram(ends.clip(edges[0], edges[-1]), edges)[0] / len(ends)
            shares += [(name, seed, 10**low, share) for low, share in zip(edges[:-1], counts, strict=True)]
            if name == "adam":
                ends_at = tasks.find(task).evaluate({key: p.detach() for key, p in params.items()})
                losses.append(float(ends_at["train_loss"]))
                ten = np.log10([float(rates[key][i]) for key, i in chosen.items()])
                sampled.append((ten.min(), ten.max()))
                whole.append(((ends < -2).mean(), (ends > 3).mean(), *np.quantile(ends, [0.01, 0.5, 0.99])))
    low, high = (stats.interval(side) for side in zip(*sampled, strict=True))
    tiny, huge, first, middle, last = (stats.interval(side) for side in zip(*whole, strict=True))
    return Outcome(
        held={
            "sampled tiny": below(low, -2.0),
            "sampled huge": decided(high, 3.0),
            "all tiny": decided(tiny, 0.01),
            "all huge": decided(huge, 0.01),
        },
        numbers=told("lowest of the ten sampled rates, log10", low)
        | told("highest of the ten, log10", high)
        | told("share of all parameters with a rate below 0.01", tiny)
        | told("share of all parameters with a rate above 1,000", huge)
        | told("first percentile of all rates, log10", first)
        | told("median, log10", middle)
        | told("last percentile, log10", last)
        | told("training loss by then", stats.interval(losses)),
        n=seeds,
        budget=f"{task}, Adam at lr {lr:g}, constant, {steps} steps",
        data={
            "traces": pd.DataFrame(traces, columns=["optimizer", "parameter", "step", "rate"]),
            "shares": pd.DataFrame(shares, columns=["optimizer", "seed", "rate", "share"]),
        },
    )


@claim(
    "adabound-adam-to-sgd",
    source="adabound",
    says="AdaBound begins as Adam and ends as SGD, continuously",
    conditions={
        "begins": "its first displacement differs from Adam's, made of the same averages, by less than a tenth of "
        "Adam's length",
        "free": "in the first 0.1 / gamma steps the bounds leave more than half of the moving numbers alone",
        "ends": "at step 10 / gamma its displacement differs from momentum's at the rate final_lr by no more than a "
        "tenth of momentum's length (0.101, since where the upper bound holds all it is 0.1 but for rounding)",
        "continuous": "on the way from Adam (0) to momentum (1), d_Adam / (d_Adam + d_momentum), no step goes further "
        "than 0.1",
    },
    chapter=12,
    recorded={"seeds": 3, "gamma": 1e-3},
)
def adabound_adam_to_sgd(seeds: int = 2, gamma: float = 1e-2, lr: float = 1e-3, final_lr: float = 0.1) -> Outcome:
    """Along AdaBound's own path on digits-mlp: at each step the displacements Adam and momentum would make there."""
    import pandas as pd

    steps = round(10 / gamma)
    adam, momentum = find("adam:tensorflow"), find("sgdm:average")
    hyper = {"lr": lr, "betas": (BETA1, BETA2)}
    rows = []
    for seed in range(seeds):
        before: list[Any] = []
        for t, params, moves, grads in walk("digits-mlp", "adabound", seed, steps, gamma=gamma, **hyper):
            leaves = list(params.values())
            state = [(moves.state[p]["exp_avg"].clone(), moves.state[p]["exp_avg_sq"].clone()) for p in leaves]
            old = before or [(torch.zeros_like(m), torch.zeros_like(v)) for m, v in state]
            before = state
            length = {"adam": 0.0, "momentum": 0.0}
            apart = dict(length)
            free = moving = 0
            for g, (m, v), (m_new, _) in zip(grads, old, state, strict=True):
                nothing = torch.zeros_like(g)
                step = {
                    "adabound": find("adabound")(nothing, g, t, m, v, final_lr=final_lr, gamma=gamma, **hyper)[0],
                    "adam": adam(nothing, g, t, m, v, **hyper)[0],
                    # The velocity of this form holds its rate.
                    "momentum": momentum(nothing, g, t, final_lr * m, lr=final_lr, momentum=BETA1)[0],
                }
                for name in length:
                    length[name] += float((step[name] ** 2).sum())
                    apart[name] += float(((step[name] - step["adabound"]) ** 2).sum())
                # Adam divides its average by 1 - beta1^t, AdaBound puts that into the rate: the steps are the same.
                live = m_new != 0
                free += int(((step["adabound"] - step["adam"]).abs() <= 1e-4 * step["adam"].abs())[live].sum())
                moving += int(live.sum())
            to_adam, to_sgd = ((apart[name] / length[name]) ** 0.5 for name in ("adam", "momentum"))
            far = {name: apart[name] ** 0.5 for name in apart}
            rows.append((seed, t, to_adam, to_sgd, far["adam"] / sum(far.values()), free / moving))
    frame = pd.DataFrame(rows, columns=["seed", "step", "to_adam", "to_sgd", "way", "free"])
    first, last = (frame[frame.step == t] for t in (1, steps))
    begins, ends = stats.interval(first["to_adam"]), stats.interval(last["to_sgd"])
    free_early = stats.interval(frame[frame.step <= round(0.1 / gamma)].groupby("seed")["free"].mean())
    jumps = stats.interval(frame.groupby("seed")["way"].apply(lambda way: way.diff().abs().max()))
    half = stats.interval(frame.groupby("seed")["way"].apply(lambda way: int((way < 0.5).sum())))
    kept = sorted({round(x) for x in np.geomspace(1, steps, 120)})
    return Outcome(
        held={
            "begins": below(begins, 0.1),
            "free": decided(free_early, 0.5),
            "ends": below(ends, 0.101),
            "continuous": below(jumps, 0.1),
        },
        numbers=told("first displacement, distance from Adam's over Adam's length", begins)
        | told(f"share of numbers that no bound touches, steps 1 to {round(0.1 / gamma)}", free_early)
        | told("steps on which it is nearer to Adam than to momentum", half)
        | told(f"step {steps}, distance from momentum's over momentum's length", ends)
        | told("longest jump on the way from Adam to momentum", jumps),
        n=seeds,
        budget=f"digits-mlp, lr {lr:g}, final_lr {final_lr:g}, gamma {gamma:g}, {steps} steps",
        data=frame[frame.step.isin(kept)],
    )


# --- tuned, one budget --------------------------------------------------------------------------------------------


@claim(
    "adabound-ffn",
    source="adabound",
    says="AdaBound beats Adam with a feed-forward net on digits",
    conditions={
        "test": "tuned with one budget, its test error is lower: the paired 95 % interval lies above 0",
        "train": "its training loss is lower too",
    },
    chapter=12,
    recorded={"rates": 9, "seeds": 20},
    recipe="MNIST instead of scikit-learn's 1,797 digits, one hidden layer, epochs by the hundred; a CPU will do",
)
def adabound_ffn(rates: int = 3, seeds: int = 3, steps: int | None = None) -> Outcome:
    """Both tuned on digits-mlp; SGD with momentum beside them, for the table."""
    runs = tuned("digits-mlp", ("sgdm", "adam", "adabound"), rates=rates, seeds=seeds, steps=steps)
    lower = {part: gain(runs, "adabound", "adam", metric) for part, metric in METRICS.items()}
    lr = float(runs.chosen("adabound")["lr"].iloc[0])
    return Outcome(
        held={part: decided(difference) for part, difference in lower.items()},
        numbers=_ends(runs, ("sgdm", "adam", "adabound"), "test_error")
        | told("test error, how much lower than Adam's", lower["test"])
        | told("… than SGDM's", gain(runs, "adabound", "sgdm", "test_error"))
        | told("training loss, how much lower than Adam's", lower["train"])
        | {f"share of rates held by a bound, over a run at its lr, {lr:.3g}": exact(_bounded(lr, _length(runs)))},
        n=seeds,
        budget=f"digits-mlp, {_length(runs)} steps, {rates} rates, poly decay",
        data=runs.frame()[["optimizer", "lr", "seed", *(f"final_{name}" for name in METRICS.values())]],
    )


def _bounded(lr: float, steps: int) -> float:
    """On digits-mlp, one seed: the share of rates that lie on a bound, on average over the steps."""
    shares = []
    # A schedule multiplies Adam's rate and both bounds alike, so a constant rate will do.
    for t, params, moves, _ in walk("digits-mlp", "adabound", 0, steps, lr=lr):
        v = torch.cat([moves.state[p]["exp_avg_sq"].flatten() for p in params.values()])
        rate, low, high = (effective_rate("adabound", t, of, lr=lr) for of in (v[v > 0], [1e30], [0.0]))
        shares.append(float(((rate <= low) | (rate >= high)).double().mean()))
    return float(np.mean(shares))


METRICS = {"test": "test_error", "train": "train_loss"}


def _ends(runs: Runs, optimizers: Iterable[str], metric: str, on: str = "") -> dict[str, Pair]:
    """For each optimizer the mean of the metric at its chosen setting, with its interval."""
    numbers: dict[str, Pair] = {}
    for name in optimizers:
        numbers |= told(f"{on}{metric.replace('_', ' ')}, {name}", stats.interval(values(runs, name, metric)))
    return numbers


def _length(runs: Runs) -> int:
    return int(runs.frame()["steps"].max())


CNN = {
    "digits-resnet": {"rates": 7, "seeds": 5},
    "digits-densenet": {"rates": 5, "seeds": 5},
}


@claim(
    "adabound-cnn",
    source="adabound",
    says="AdaBound is fast early and best late with DenseNet and ResNet",
    conditions={
        "digits-resnet early": "residual net: after a fifth of the run its training loss is below Adam's, both tuned: "
        "the paired 95 % interval lies above 0",
        "digits-resnet late": "residual net: at the end its test error is below SGDM's",
        "digits-densenet early": "dense net: the same after a fifth of the run",
        "digits-densenet late": "dense net: the same at the end",
    },
    chapter=12,
    recorded={"budgets": CNN, "steps": None},
    recipe="CIFAR-10, DenseNet-121 and ResNet-34, batch 128, weight decay 5e-4, 200 epochs, all rates divided by 10 "
    "after 150; a day or two on one GPU for a grid with seeds",
)
def adabound_cnn(budgets: dict[str, dict[str, int]] | None = None, steps: int | None = 5) -> Outcome:
    """Both nets; what is best at the end and what was best at any moment are reported apart."""
    import pandas as pd

    budgets = budgets or {task: {"rates": 1, "seeds": 2} for task in CNN}
    names = ("sgdm", "adam", "adabound")
    held: dict[str, bool | None] = {}
    numbers: dict[str, Pair] = {}
    courses = []
    for task, budget in budgets.items():
        runs = tuned(task, names, steps=steps, **budget)
        course = {name: curve(runs, name, "train_loss", "test_error") for name in names}
        at = np.sort(runs.curves("train_loss")["step"].unique())
        fifth = int(np.abs(at - 0.2 * at[-1]).argmin())
        early = stats.paired_difference(course["adam"][:, fifth], course["adabound"][:, fifth])
        late = gain(runs, "adabound", "sgdm", "test_error")
        held |= {f"{task} early": decided(early), f"{task} late": decided(late)}
        best = {name: runs.chosen(name)["best_test_error"].to_numpy() for name in names}
        numbers |= told(f"{task}: training loss after a fifth, how much lower than Adam's", early)
        numbers |= _ends(runs, names, "test_error", f"{task}: final ")
        numbers |= told(f"{task}: final test error, how much lower than SGDM's", late)
        for name in names:
            numbers |= told(f"{task}: best test error at any moment, {name}", stats.interval(best[name]))
        moment = stats.paired_difference(best["sgdm"], best["adabound"])
        numbers |= told(f"{task}: best at any moment, how much lower than SGDM's", moment)
        for metric in ("train_loss", "test_error"):
            for name in names:
                table = curve(runs, name, metric, "test_error")
                courses += [
                    (task, metric, name, seed, int(step), table[seed, i])
                    for seed in range(len(table))
                    for i, step in enumerate(at)
                ]
    spent = "; ".join(f"{task} {b['rates']} rates, {b['seeds']} seeds" for task, b in budgets.items())
    return Outcome(
        held=held,
        numbers=numbers,
        n=min(budget["seeds"] for budget in budgets.values()),
        budget=f"{_length(runs)} steps, poly decay; {spent}",
        data=pd.DataFrame(courses, columns=["task", "metric", "optimizer", "seed", "step", "value"]),
    )


LAYERS = {1: "docs-lstm", 2: "docs-lstm-2", 3: "docs-lstm-3"}


@claim(
    "adabound-lstm",
    source="adabound",
    says="AdaBound beats Adam with LSTM language models; more layers, larger gain",
    conditions={
        "1 layer": "one layer: tuned with one budget, its test perplexity is lower: the paired 95 % interval of the "
        "logarithms lies above 0",
        "2 layers": "the same for two layers",
        "3 layers": "the same for three layers",
        "grows": "it gains with three layers, and more than with one, paired by seed",
    },
    chapter=12,
    recorded={"rates": [3e-3, 1e-2, 3e-2], "seeds": 4, "steps": 200, "layers": [1, 2, 3]},
    recipe="the Penn Treebank by words, LSTMs of one, two and three layers, dropout, 200 epochs; a day on one GPU",
)
def adabound_lstm(
    rates: Sequence[float] = (1e-2,), seeds: int = 2, steps: int = 5, layers: Sequence[int] = (1, 3)
) -> Outcome:
    """Next words of Python's documentation, one grid of rates for both; the gain is Adam's log perplexity less ours."""
    import pandas as pd

    held: dict[str, bool | None] = dict.fromkeys(("1 layer", "2 layers", "3 layers"))
    numbers: dict[str, Pair] = {}
    gains, rows = {}, []
    for count in layers:
        runs = train(
            LAYERS[count],
            {name: {"lr": list(rates)} for name in ("adam", "adabound")},
            seeds=seeds,
            steps=steps,
            schedule="poly",
            early_stop=True,
        )
        ends = {name: values(runs, name, "test_perplexity") for name in ("adam", "adabound")}
        gains[count] = np.log(ends["adam"]) - np.log(ends["adabound"])
        estimate = stats.interval(gains[count])
        words = f"{count} layer{'s' * (count > 1)}"
        held[words] = decided(estimate)
        numbers |= _ends(runs, ends, "test_perplexity", f"{words}: ")
        numbers |= told(f"{words}: relative gain on Adam (difference of logarithms)", estimate)
        rows += [(count, name, seed, x) for name, end in ends.items() for seed, x in enumerate(end)]
    growth = stats.paired_difference(gains[layers[-1]], gains[layers[0]])
    both = [held["3 layers"], decided(growth)]
    return Outcome(
        # To lose less is no gain.
        held=held | {"grows": False if False in both else None if None in both else True},
        numbers=numbers | told("gain with three layers less gain with one", growth),
        n=seeds,
        budget=f"{', '.join(LAYERS[count] for count in layers)}, {steps} steps, {len(rates)} rates, poly decay",
        data=pd.DataFrame(rows, columns=["layers", "optimizer", "seed", "perplexity"]),
    )


# --- its hyper-parameters -----------------------------------------------------------------------------------------


@claim(
    "adabound-robust",
    source="adabound",
    says="AdaBound is robust to its hyper-parameters",
    conditions={
        "lr": "all else at its default, the rates lr whose final validation loss is within 10 % of the best span "
        "2 decades or more: the interval over seeds lies above 2",
        "final_lr": "the same for final_lr, at the best lr",
        "gamma": "the same for gamma, at the best lr",
        "wider": "its decades of good lr are more than Adam's, paired by seed",
    },
    chapter=12,
    recorded={
        "lrs": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
        "finals": [1e-3, 1e-2, 1e-1, 1.0, 10.0],
        "gammas": [1e-4, 1e-3, 1e-2, 1e-1],
        "seeds": 5,
        "steps": 500,
    },
)
def adabound_robust(
    lrs: Sequence[float] = (1e-4, 1e-3, 1e-2),
    finals: Sequence[float] = (1e-2, 1e-1, 1.0),
    gammas: Sequence[float] = (1e-4, 1e-3, 1e-2),
    seeds: int = 2,
    steps: int = 60,
) -> Outcome:
    """digits-mlp at a constant rate over the grid of all three; the basin of each, in decades, seed by seed."""
    grid = {"lr": list(lrs), "final_lr": list(finals), "gamma": list(gammas)}
    runs = train("digits-mlp", {"adabound": grid, "adam": {"lr": list(lrs)}}, seeds=seeds, steps=steps)
    frame = runs.frame()
    ours, adam = (frame[frame.optimizer == name] for name in ("adabound", "adam"))
    plain = ours[(ours.final_lr == 0.1) & (ours.gamma == 1e-3)]
    best = plain.groupby("lr")["final_val_loss"].mean().idxmin()
    swept = {
        "lr": plain,
        "final_lr": ours[(ours.lr == best) & (ours.gamma == 1e-3)],
        "gamma": ours[(ours.lr == best) & (ours.final_lr == 0.1)],
    }
    widths = {name: _widths(part, name) for name, part in swept.items()}
    of_adam = _widths(adam, "lr")
    wider = stats.paired_difference(widths["lr"], of_adam)
    numbers: dict[str, Pair] = {"best lr": exact(best)}
    for name, width in widths.items():
        numbers |= told(f"decades of good {name}, of {np.log10(max(grid[name]) / min(grid[name])):.3g}", _band(width))
    table = ours.groupby(["lr", "final_lr", "gamma"], as_index=False)["final_val_loss"].mean()
    return Outcome(
        held={name: decided(_band(width), 2.0) for name, width in widths.items()} | {"wider": decided(wider)},
        numbers=numbers
        | told("decades of good lr, Adam", _band(of_adam))
        | told("AdaBound's decades less Adam's", wider)
        | {
            "worst mean validation loss of the grid over the best": exact(
                table.final_val_loss.max() / table.final_val_loss.min()
            ),
            "share of the grid's settings within 10 % of the best": exact(
                (table.final_val_loss <= 1.1 * table.final_val_loss.min()).mean()
            ),
        },
        n=seeds,
        budget=f"digits-mlp, {steps} steps at a constant rate, {len(table)} settings",
        data=frame[["optimizer", "lr", "final_lr", "gamma", "seed", "final_val_loss", "diverged"]],
    )


def _widths(frame: Any, over: str) -> list[float]:
    return [stats.basin_width(part, "final_val_loss", over=over) for _, part in frame.groupby("seed")]


def _band(sample: Sequence[float] | np.ndarray) -> stats.Interval:
    return stats.interval(np.asarray(sample, dtype=float))


FINAL = {
    "digits-mlp": {"seeds": 5, "steps": 1000},
    "sparse-logistic": {"seeds": 4, "steps": 300},
    "docs-lstm": {"seeds": 3, "steps": 150},
}


@claim(
    "adabound-final-lr",
    source="adabound",
    says="Users report that final_lr needs tuning after all",
    conditions={
        "digits-mlp": "digits: with final_lr chosen on validation the test metric is better than with the default 0.1, "
        "lr tuned alike for both: the paired 95 % interval lies above 0",
        "sparse-logistic": "the same on rare words",
        "docs-lstm": "the same on the next word, by an LSTM",
        "moves": "the final_lr chosen on one of these tasks is ten times that chosen on another, or more",
    },
    chapter=12,
    recorded={"budgets": FINAL, "lrs": [1e-3, 1e-2], "finals": [0.01, 0.1, 1.0, 10.0, 100.0]},
)
def adabound_final_lr(
    budgets: dict[str, dict[str, int]] | None = None,
    lrs: Sequence[float] = (1e-2,),
    finals: Sequence[float] = (0.01, 0.1, 1.0),
) -> Outcome:
    """For each final_lr the best lr, chosen on validation, and what that pair gives on test."""
    import pandas as pd

    budgets = budgets or {"digits-mlp": {"seeds": 2, "steps": 60}}
    held: dict[str, bool | None] = dict.fromkeys(FINAL)
    numbers: dict[str, Pair] = {}
    picked, rows = {}, []
    for task, budget in budgets.items():
        metric = tasks.find(task).metric
        choose = metric.replace("test", "val")
        runs = train(task, {"adabound": {"lr": list(lrs), "final_lr": list(finals)}}, **budget)
        # What diverged must not be chosen, and counts as it ended.
        frame = runs.frame().fillna({f"final_{choose}": np.inf, f"final_{metric}": np.inf})
        score = frame.groupby(["final_lr", "lr"])[f"final_{choose}"].mean()
        pairs = {final: score[final].idxmin() for final in finals}
        ends = {
            final: frame[(frame.final_lr == final) & (frame.lr == lr)].sort_values("seed")[f"final_{metric}"].to_numpy()
            for final, lr in pairs.items()
        }
        picked[task] = min(finals, key=lambda final: score[final, pairs[final]])
        better = stats.paired_difference(ends[0.1], ends[picked[task]])
        held[task] = decided(better)
        numbers |= {f"{task}: final_lr chosen on validation": exact(picked[task])}
        numbers |= told(f"{task}: {metric.replace('_', ' ')} at the default final_lr", stats.interval(ends[0.1]))
        numbers |= told(f"{task}: how much lower at the chosen one", better)
        rows += [(task, final, pairs[final], seed, x) for final, end in ends.items() for seed, x in enumerate(end)]
    moves = max(picked.values()) / min(picked.values()) >= 10
    spent = "; ".join(f"{task} {b['steps']} steps, {b['seeds']} seeds" for task, b in budgets.items())
    return Outcome(
        held=held | {"moves": bool(moves) if len(budgets) > 1 else None},
        numbers=numbers,
        n=min(budget["seeds"] for budget in budgets.values()),
        budget=f"constant rate, {len(lrs)} lr by {len(finals)} final_lr; {spent}",
        data=pd.DataFrame(rows, columns=["task", "final_lr", "lr", "seed", "value"]),
    )


# --- what users said ----------------------------------------------------------------------------------------------


@claim(
    "adabound-seeds",
    source="adabound",
    says="Users report that it varies with the seed",
    conditions={
        "Adam": "digits, tuned: the test error's mean distance from its median is larger than Adam's, paired by seed: "
        "the 95 % interval lies above 0",
        "SGDM": "the same against SGD with momentum",
        "cartpole": "the same against Adam in reinforcement learning, of the mean return over the run",
    },
    chapter=12,
    recorded={"rates": 9, "seeds": 20, "lrs": [1e-3, 1e-2, 1e-1, 1.0], "players": 10, "episodes": 40},
)
def adabound_seeds(
    rates: int = 3,
    seeds: int = 3,
    lrs: Sequence[float] = (1e-2,),
    players: int = 2,
    episodes: int = 3,
    steps: int | None = None,
) -> Outcome:
    """The spread over seeds at the tuned rate; a report of it came from reinforcement learning, so that too."""
    import pandas as pd

    names = ("sgdm", "adam", "adabound")
    runs = tuned("digits-mlp", names, rates=rates, seeds=seeds, steps=steps)
    digits = {name: values(runs, name, "test_error") for name in names}
    plays = _play(lrs, players, episodes)
    returns = {name: curve(plays, name, "test_return", "test_return")[:, 1:].mean(1) for name in ("adam", "adabound")}
    more = {
        "Adam": _spread(digits["adabound"], digits["adam"]),
        "SGDM": _spread(digits["adabound"], digits["sgdm"]),
        "cartpole": _spread(returns["adabound"], returns["adam"]),
    }
    numbers: dict[str, Pair] = {}
    for name in names:
        numbers |= told(f"digits: distance from the median, {name}", stats.interval(_distance(digits[name])))
    for name in returns:
        numbers |= told(f"cartpole: distance from the median, {name}", stats.interval(_distance(returns[name])))
    for name, difference in more.items():
        numbers |= told(f"how much more than {'Adam, cartpole' if name == 'cartpole' else name}", difference)
    rows = [("digits-mlp", name, seed, x) for name in names for seed, x in enumerate(digits[name])]
    rows += [("cartpole", name, seed, x) for name, ends in returns.items() for seed, x in enumerate(ends)]
    return Outcome(
        held={name: decided(difference) for name, difference in more.items()},
        numbers=numbers,
        n=players if players < seeds else seeds,
        budget=f"digits-mlp, {_length(runs)} steps, {rates} rates, {seeds} seeds; cartpole, {episodes} steps, "
        f"{len(lrs)} rates, {players} seeds",
        data=pd.DataFrame(rows, columns=["task", "optimizer", "seed", "value"]),
    )


def _distance(sample: np.ndarray) -> np.ndarray:
    return np.abs(sample - np.median(sample))


def _spread(ours: np.ndarray, other: np.ndarray) -> stats.Interval:
    return stats.paired_difference(_distance(ours), _distance(other))


def _play(lrs: Sequence[float], seeds: int, steps: int) -> Runs:
    """Both on CartPole at every rate of one grid."""
    return train("cartpole", {name: {"lr": list(lrs)} for name in ("adam", "adabound")}, seeds=seeds, steps=steps)


@claim(
    "adabound-rl",
    source="adabound",
    says="Users disagree on reinforcement learning",
    conditions={
        "good": "there is a rate of the grid at which AdaBound's mean return over the run is above Adam's at the same "
        "rate: an interval that allows for the number of rates lies above 0",
        "not good": "and one at which it is below",
    },
    chapter=12,
    recorded={"lrs": [1e-3, 1e-2, 1e-1, 1.0], "seeds": 10, "steps": 40},
)
def adabound_rl(lrs: Sequence[float] = (1e-2,), seeds: int = 2, steps: int = 3) -> Outcome:
    """CartPole by the policy gradient: rate by rate, since everyone who reported used one."""
    import pandas as pd

    runs = _play(lrs, seeds, steps)
    frame = runs.frame()
    course = runs.curves("test_return")
    mean = course[course.step > 0].groupby("key")["value"].mean()
    frame = frame.assign(mean_return=frame["key"].map(mean))
    table = frame.pivot_table(index="seed", columns=["optimizer", "lr"], values="mean_return")
    share = 1 - 0.05 / len(lrs)
    more = {lr: stats.paired_difference(table["adabound", lr], table["adam", lr], share) for lr in lrs}
    tuned_ends = {name: values(runs, name, "test_return") for name in ("adam", "adabound")}
    numbers: dict[str, Pair] = {}
    for lr, difference in more.items():
        numbers |= told(f"lr {lr:g}: mean return, more than Adam's ({share:.2%} interval)", difference)
    best = stats.paired_difference(tuned_ends["adabound"], tuned_ends["adam"])
    marks = [decided(difference) for difference in more.values()]
    return Outcome(
        held={"good": _somewhere(marks), "not good": _somewhere([_opposite(d) for d in more.values()])},
        numbers=numbers
        | _ends(runs, ("adam", "adabound"), "test_return", "at its best rate: ")
        | told("at the best rates: final return, more than Adam's", best),
        n=seeds,
        budget=f"cartpole, {steps} steps of 16 episodes, {len(lrs)} rates, constant",
        data=pd.DataFrame(frame[["optimizer", "lr", "seed", "mean_return", "final_test_return", "diverged"]]),
    )


def _opposite(estimate: stats.Interval) -> bool | None:
    return below(estimate, 0.0)


def _somewhere(marks: Sequence[bool | None]) -> bool | None:
    """``True`` where one is; ``False`` where all are; else undecided."""
    return True if any(marks) else None if None in marks else False


class DigitsFew(DigitsMLP):
    """``digits-mlp`` with few images to train on, drawn afresh for each seed; all else is the same."""

    def __init__(self, images: int) -> None:
        self.name, self.images = f"digits-mlp-{images}", images

    def batches(self, seed: int) -> Iterator[tuple[Tensor, ...]]:
        whole, random = len(self.data["train"][0]), self.generator(seed, "few")
        few = torch.randperm(whole, generator=random)[: self.images]
        while True:
            order = few[torch.randperm(len(few), generator=random)]
            size = min(self.batch, len(few))
            yield from ((places,) for places in order.split(size) if len(places) == size)


@contextmanager
def _few(images: int) -> Iterator[str]:
    """A task that exists inside only, and in this process only."""
    task = DigitsFew(images)
    tasks.TASKS[task.name] = task
    try:
        with training(**{**_training.get(), "workers": 1}):
            yield task.name
    finally:
        del tasks.TASKS[task.name]


@claim(
    "adabound-small-data",
    source="adabound",
    says="Users report that it is weak on little data",
    conditions={
        "Adam": "with the fewest images its tuned test error is above Adam's: the paired 95 % interval lies above 0",
        "SGDM": "the same against SGD with momentum",
        "trend": "what it loses on Adam falls as the images grow: the slope against their logarithm, fitted seed by "
        "seed, lies below 0",
    },
    chapter=12,
    recorded={"sizes": [32, 128, 512, 1077], "rates": 5, "seeds": 8},
)
def adabound_small_data(sizes: Sequence[int] = (32, 1077), rates: int = 2, seeds: int = 2, steps: int = 60) -> Outcome:
    """digits-mlp with so many of its 1,077 training images, others for each seed; tuned at every size."""
    import pandas as pd

    names = ("sgdm", "adam", "adabound")
    ends, rows = {}, []
    for size in sizes:
        with _few(size) as task:
            runs = tuned(task, names, rates=rates, seeds=seeds, steps=steps)
            ends[size] = {name: values(runs, name, "test_error") for name in names}
        rows += [(size, name, seed, x) for name, end in ends[size].items() for seed, x in enumerate(end)]
    lost = np.array([ends[size]["adabound"] - ends[size]["adam"] for size in sizes])
    slopes = stats.interval(np.polyfit(np.log2(sizes), lost, 1)[0])
    fewest = ends[min(sizes)]
    more = {
        label: stats.paired_difference(fewest["adabound"], fewest[name])
        for label, name in (("Adam", "adam"), ("SGDM", "sgdm"))
    }
    numbers: dict[str, Pair] = {}
    for size in sizes:
        rank = sorted(names, key=lambda name: ends[size][name].mean()).index("adabound") + 1
        numbers |= {f"{size} images: rank of three": exact(rank)}
        numbers |= told(f"{size} images: test error, adabound", stats.interval(ends[size]["adabound"]))
    for label, difference in more.items():
        numbers |= told(f"{min(sizes)} images: test error, more than {label}'s", difference)
    return Outcome(
        held={label: decided(difference) for label, difference in more.items()} | {"trend": below(slopes, 0.0)},
        numbers=numbers | told("what it loses on Adam, slope for each doubling of the images", slopes),
        n=seeds,
        budget=f"digits-mlp, {', '.join(map(str, sizes))} images, {steps} steps, {rates} rates, poly decay",
        data=pd.DataFrame(rows, columns=["images", "optimizer", "seed", "test_error"]),
    )


# --- its kin ------------------------------------------------------------------------------------------------------

KIN = ("digits-mlp", "digits-resnet", "docs-lstm", "numbers-transformer")


@claim(
    "amsbound",
    source="adabound",
    says="AMSBound performs as AdaBound",
    conditions={
        "digits-mlp": "digits: the paired 95 % interval of the tuned difference on test lies within 10 % of AdaBound's "
        "value",
        "digits-resnet": "digits by a residual net: the same",
        "docs-lstm": "next word: the same",
        "numbers-transformer": "translation: the same",
    },
    chapter=12,
    recorded={"on": KIN, "rates": 7, "seeds": 5},
)
def amsbound(on: Sequence[str] = ("digits-mlp",), rates: int = 3, seeds: int = 3, steps: int | None = None) -> Outcome:
    """Both tuned on each task; and how often AMSBound's maximum differs from the average at all."""
    import pandas as pd

    held: dict[str, bool | None] = dict.fromkeys(KIN)
    numbers: dict[str, Pair] = {}
    rows = []
    for task in on:
        metric = tasks.find(task).metric
        runs = tuned(task, ("adabound", "amsbound"), rates=rates, seeds=seeds, steps=steps)
        ends = {name: values(runs, name, metric) for name in ("adabound", "amsbound")}
        better = gain(runs, "amsbound", "adabound", metric)
        held[task] = within(better, 0.1 * abs(ends["adabound"].mean()))
        numbers |= _ends(runs, ends, metric, f"{task}: ")
        numbers |= told(f"{task}: how much better AMSBound is", better)
        rows += [(task, name, seed, x) for name, end in ends.items() for seed, x in enumerate(end)]
    (*_, (_, params, moves, _)) = walk("digits-mlp", "amsbound", 0, steps or 300)
    states = [moves.state[p] for p in params.values()]
    higher = torch.cat([(state["max_exp_avg_sq"] > state["exp_avg_sq"]).flatten() for state in states])
    return Outcome(
        held=held,
        numbers=numbers
        | {
            "digits-mlp, default rate: share of numbers whose maximum is above the average at the end": exact(
                higher.double().mean()
            )
        },
        n=seeds,
        budget=f"{', '.join(on)}; {rates} rates, poly decay",
        data=pd.DataFrame(rows, columns=["task", "optimizer", "seed", "value"]),
    )


@claim(
    "swats",
    source="course",
    says="Begin with Adam, end with SGDM",
    conditions={
        "switches": "with one tolerance for both, 1e-9 as the paper has it, SWATS switches within the run on more than "
        "half of the seeds",
        "once": "where it switches, at any tolerance of the grid, it does so once, and never goes back",
        "pays": "with the tolerance chosen on validation, of those at which every seed switches, its test error is "
        "below that of Adam, which never does: the paired 95 % interval lies above 0",
    },
    chapter=12,
    recorded={"seeds": 6, "steps": 600, "tolerances": [1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]},
)
def swats(
    seeds: int = 2, steps: int = 60, tolerances: Sequence[float] = (1e-9, 1e-4, 1e-2), lr: float = 1e-3
) -> Outcome:
    """digits-mlp over a grid of tolerances: the step of the switch, the rate it finds, how the step's length jumps."""
    import pandas as pd

    rows = []
    # With tolerance 0 it is Adam to the last bit.
    for tolerance in (0.0, *tolerances):
        for seed in range(seeds):
            seen: list[int | None] = []
            lengths: list[float] = []
            old: list[Tensor] = []
            for _, params, moves, _ in walk("digits-mlp", "swats", seed, steps, lr=lr, tolerance=tolerance):
                seen.append(moves.switched_at)
                now = [p.detach().clone() for p in params.values()]
                if old:
                    lengths.append(sum(float(((a - b) ** 2).sum()) for a, b in zip(now, old, strict=True)) ** 0.5)
                old = now
            at = seen[-1]
            ends = tasks.find("digits-mlp").evaluate({name: p.detach() for name, p in params.items()})
            rows.append(
                {
                    "tolerance": tolerance,
                    "seed": seed,
                    "switched_at": np.nan if at is None else at,
                    "rate": moves.param_groups[0]["switch_rate"] or np.nan,
                    "changes": sum(a != b for a, b in pairwise(seen)),
                    "jump": lengths[at - 1] / lengths[at - 2] if at is not None and 2 <= at < steps else np.nan,
                    **{name: float(ends[name]) for name in ("train_loss", "val_error", "test_error")},
                }
            )
    frame = pd.DataFrame(rows)
    switched = frame[frame.switched_at.notna()]
    paper = frame[frame.tolerance == 1e-9]["switched_at"].notna().mean()
    numbers: dict[str, Pair] = {"share of seeds that switch at tolerance 1e-9": exact(paper)}
    always = switched.groupby("tolerance").filter(lambda part: len(part) == seeds)
    pays = None
    if len(always):
        picked = always.groupby("tolerance")["val_error"].mean().idxmin()
        adam, ours = (frame[frame.tolerance == one]["test_error"].to_numpy() for one in (0.0, picked))
        difference = stats.paired_difference(adam, ours)
        pays = decided(difference)
        numbers |= {"tolerance chosen on validation": exact(picked)}
        numbers |= told("test error there, how much lower than Adam's", difference)
    for tolerance, part in switched.groupby("tolerance"):
        numbers |= {f"tolerance {tolerance:g}: share that switches": exact(len(part) / seeds)}
        numbers |= told(f"tolerance {tolerance:g}: at step", stats.interval(part["switched_at"]))
        numbers |= told(f"tolerance {tolerance:g}: to the rate", stats.interval(part["rate"]))
    jumps = switched["jump"].dropna()
    if len(jumps):
        numbers |= told("length of the first step after the switch over that of the last before", _band(jumps))
    return Outcome(
        held={
            "switches": bool(paper > 0.5),
            "once": bool((switched["changes"] == 1).all()) if len(switched) else None,
            "pays": pays,
        },
        numbers=numbers,
        n=seeds,
        budget=f"digits-mlp, {steps} steps, lr {lr:g}",
        data=frame,
    )
