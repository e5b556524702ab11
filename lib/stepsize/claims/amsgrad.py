"""The claims on AMSGrad and where Adam goes wrong: chapter 08."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import landscapes, stats
from ..engines import compiled
from ..landscapes import OnlineProblem
from ..rules import find
from ..tasks import find as find_task
from ..tasks.base import Tensors
from .base import Outcome, claim, decided, exact, gain, tuned

# --- the counterexamples --------------------------------------------------------------------------------------------

# Below this the rare steep steps have not yet had the time to show where they lead.
LONG = 500_000


def theorem(c: float) -> float:
    """The beta2 for which Adam's failure on the problem of slopes ``c``, -1, -1 was proved (our reading)."""
    return 1 / (1 + c**2)


def race(
    rule: str,
    problem: OnlineProblem,
    steps: int,
    lr: Callable[[int], float],
    betas: tuple[float, float],
    seeds: Sequence[int] = (0,),
    keep: int = 100,
) -> pd.DataFrame:
    """What :func:`stepsize.landscapes.play` does, compiled, for long runs; a row per seed and kept step.

    Columns: ``rule``, ``step``, ``x``, ``regret`` (so far, per step), ``seed``. About ``keep`` steps are kept, evenly
    spaced in the logarithm, and the last.
    """
    method, (low, high) = find(rule), problem.interval
    slopes = torch.stack([problem.slopes(steps, seed) for seed in seeds], dim=1)
    p = torch.full((len(seeds),), problem.start, dtype=torch.float64)
    g = torch.zeros_like(p)
    state = [dict(zip(method.state, method.init(p), strict=True))]
    move = compiled.fixed(method, [p], [g], state, {"lr": lr(1), "betas": betas})
    kept = {round(step) for step in np.geomspace(1, steps, keep)}
    lost, total, rows = torch.zeros_like(p), torch.zeros_like(p), []
    for t, slope in enumerate(slopes, start=1):
        g.copy_(slope)
        lost += slope * p
        total += slope
        move({"lr": lr(t), "betas": betas})
        p.clamp_(low, high)
        if t in kept:
            regret = (lost - torch.minimum(total * low, total * high)) / t
            rows += [(rule, t, *values) for values in zip(p.tolist(), regret.tolist(), seeds, strict=True)]
    return pd.DataFrame(rows, columns=["rule", "step", "x", "regret", "seed"])


@claim(
    "amsgrad-counterexample",
    source="adabound",
    says="Adam can converge to the worst point of a convex problem; AMSGrad does not",
    conditions={
        "adam": "slopes C, -1, -1 with C = 3 and C = 10, beta1 = 0 and the theorem's beta2, rate 0.3 / sqrt(t): Adam "
        "ends above 0.9, where 1 is worst",
        "amsgrad": "there AMSGrad ends below -0.9, where -1 is best",
        "regret": "there Adam's regret per step ends above half that of standing at the worst point, AMSGrad's below a "
        "tenth of it",
        "online": "slope 1010 at every 101st step, else -10, rate 0.1 / sqrt(t), 500,000 steps: Adam ends above 0.9, "
        "AMSGrad below 0",
        "stochastic": "slope 1010 with probability 0.01, constant rate 0.001, 500,000 steps: the mean over seeds lies "
        "above 0.5 for Adam and below 0 for AMSGrad, with its 95 % interval",
    },
    chapter=8,
    recorded={"steps": 100_000, "long": LONG, "seeds": 20},
)
def amsgrad_counterexample(steps: int = 10_000, long: int = 20_000, seeds: int = 3) -> Outcome:
    """Adam and AMSGrad on three problems whose best point is -1: by period, by period and rare, by chance and rare."""
    parts = []
    for rule in ("adam", "amsgrad"):
        for c in (3, 10):
            run = race(rule, landscapes.counterexample(c), steps, lambda t: 0.3 / math.sqrt(t), (0.0, theorem(c)))
            parts.append(run.assign(problem=f"C = {c}"))
        run = race(rule, landscapes.rare_spike(), long, lambda t: 0.1 / math.sqrt(t), (0.9, 0.99))
        parts.append(run.assign(problem="online"))
        run = race(rule, landscapes.rare_spike(random=True), long, lambda t: 1e-3, (0.9, 0.99), range(seeds))
        parts.append(run.assign(problem="stochastic"))
    data = pd.concat(parts, ignore_index=True)
    last = data[data["step"] == data.groupby("problem")["step"].transform("max")].groupby(["problem", "rule"])
    x = {place: own["x"].to_numpy() for place, own in last}
    regret = {place: float(own["regret"].mean()) for place, own in last}
    # Standing at 1 loses C - 2 a period of three steps, and standing at -1 gains as much.
    worst = {c: 2 * (c - 2) / 3 for c in (3, 10)}
    random = {rule: stats.interval(x["stochastic", rule]) for rule in ("adam", "amsgrad")}
    ours, theirs = decided(random["adam"], above=0.5), decided(stats.interval(-x["stochastic", "amsgrad"]))
    return Outcome(
        held={
            "adam": all(x[f"C = {c}", "adam"][0] > 0.9 for c in worst),
            "amsgrad": all(x[f"C = {c}", "amsgrad"][0] < -0.9 for c in worst),
            "regret": all(
                regret[f"C = {c}", "adam"] > worst[c] / 2 and regret[f"C = {c}", "amsgrad"] < worst[c] / 10
                for c in worst
            ),
            "online": bool(x["online", "adam"][0] > 0.9 and x["online", "amsgrad"][0] < 0) if long >= LONG else None,
            "stochastic": both(ours, theirs) if long >= LONG else None,
        },
        numbers={
            **{f"last x, C = {c}, {rule}": exact(x[f"C = {c}", rule][0]) for c in worst for rule in random},
            **{f"regret per step, C = {c}, {rule}": exact(regret[f"C = {c}", rule]) for c in worst for rule in random},
            **{f"last x, 1010 problem online, {rule}": exact(x["online", rule][0]) for rule in random},
            **{f"last x, 1010 problem by chance, {rule}": random[rule][:3] for rule in random},
        },
        n=seeds,
        budget=f"float64, {steps:,} steps, and {long:,} of the 1010 problems; n counts the draws of the one by chance",
        data=data[["problem", "rule", "step", "x", "regret", "seed"]],
    )


def both(*conditions: bool | None) -> bool | None:
    """``True`` if all are, ``False`` if one is, else ``None``."""
    return False if False in conditions else None if None in conditions else True


# --- the slide's problem --------------------------------------------------------------------------------------------


def wrong_turn(c: int) -> OnlineProblem:
    """Of ``c`` steps the first has slope -1, the second 2, the others 0: on the whole it goes up, so -2 is best.

    The middle piece of the problem in Luo and others, ICLR 2019, continued over all of [-2, 2] (our reading).
    """
    if c < 2:
        raise ValueError(f"c must be 2 or more, got {c}")
    return OnlineProblem(
        name="wrong_turn",
        title=f"Slopes -1 and 2 once in {c} steps",
        formula=rf"f_t(x) = -x \text{{ if }} t \bmod {c} = 1,\; 2x \text{{ if }} t \bmod {c} = 2, \text{{ else }} 0",
        slopes=lambda steps, seed: torch.tensor([-1.0, 2.0] + [0.0] * (c - 2)).double().repeat(-(-steps // c))[:steps],
        best=-2.0,
        interval=(-2.0, 2.0),
    )


def drift(rule: str, periods: Sequence[int], beta2: Sequence[float] = (0.0,)) -> Tensor:
    """How far a period of :func:`wrong_turn` carries in the long run, per unit of the rate; above 0 is up.

    ``(len(periods), len(beta2))``. beta1 is 0, the rate constant, and nothing holds it back: all that is asked is in
    which direction it would go.
    """
    method, memory = find(rule), torch.tensor(beta2, dtype=torch.float64)
    # By then a moving average has forgotten its start to one part in ten thousand.
    settled = max(math.ceil(math.log(1e-4) / math.log(b)) if b > 0 else 1 for b in beta2)
    steps = settled + max(periods)
    slopes = torch.stack([wrong_turn(c).slopes(steps, 0) for c in periods], dim=1)[:, :, None]
    hyper = {"betas": (0.0, memory)} if "betas" in method.defaults else {}
    p = torch.zeros(len(periods), len(memory), dtype=torch.float64)
    state, before = method.init(p), p.clone()
    for t, slope in enumerate(slopes, start=1):
        for i, c in enumerate(periods):
            if t == steps - c + 1:
                before[i] = p[i]
        p, *new = method(p, slope.expand_as(p), t, *state, lr=1.0, **hyper)
        state = tuple(new)
    return p - before


def proved(c: float, beta2: float) -> bool:
    """Whether the paper's condition for Adam's failure on the slide's problem holds (our reading of Luo et al.)."""
    return 5 * beta2 ** (c - 2) <= (1 - beta2) / (4 - beta2)


@claim(
    "adam-c3-slide",
    source="adabound",
    says="With C = 3 on [-2, 2] Adam moves the wrong way because rates shrink when it matters; SGD does not",
    conditions={
        "default": "with C = 3 and beta2 = 0.999, Adam's default, a period carries Adam the wrong way, up",
        "small": "with C = 3 and a beta2 that the paper's condition allows, 0.04, it does",
        "proved": "it does at every point of the map of (C, beta2) that meets the paper's condition",
        "sgd": "SGD is carried the right way, down, at every C of the map",
    },
    chapter=8,
    recorded={"periods": (3, 4, 6, 10, 18, 34, 100, 300, 1000, 3000, 10_000), "memories": 21},
)
def adam_c3_slide(periods: Sequence[int] = (3, 4, 6, 10, 18, 34), memories: int = 9) -> Outcome:
    """The slide's problem: slopes -1 and 2 at two of C steps; the drift per period over C and beta2, in float64."""
    grid = [0.04, *(1 - np.geomspace(0.9, 1e-3, memories)).tolist()]
    carried, plain = drift("adam", periods, grid), drift("sgd", periods).flatten().tolist()
    rows = [(c, b, float(carried[i, j]), proved(c, b)) for i, c in enumerate(periods) for j, b in enumerate(grid)]
    data = pd.DataFrame(rows, columns=["c", "beta2", "drift", "proved"])
    third = data[data["c"] == 3].sort_values("beta2")
    turns = [a for a, b in pairwise(third.itertuples()) if a.drift > 0 >= b.drift]
    here = data[data["proved"]]
    return Outcome(
        held={
            "default": bool(third["drift"].iloc[-1] > 0),
            "small": bool(third[third["beta2"] == 0.04]["drift"].iloc[0] > 0),
            "proved": bool((here["drift"] > 0).all()) if len(here) else None,
            "sgd": all(d < 0 for d in plain),
        },
        numbers={
            "drift per period and rate, C = 3, beta2 = 0.999": exact(third["drift"].iloc[-1]),
            "… beta2 = 0.04": exact(third[third["beta2"] == 0.04]["drift"].iloc[0]),
            "… SGD": exact(plain[0]),
            "largest beta2 of the map with the wrong way at C = 3": exact(turns[-1].beta2 if turns else math.nan),
            "points of the map": exact(len(data)),
            "… that meet the paper's condition": exact(len(here)),
            "… at which Adam goes the wrong way": exact((data["drift"] > 0).sum()),
        },
        n=1,
        budget=f"exact: float64, beta1 = 0, C from {min(periods)} to {max(periods):,}, {len(grid)} values of beta2",
        data=data,
    )


# --- in practice ----------------------------------------------------------------------------------------------------


@claim(
    "amsgrad-no-better",
    source="adabound",
    says="In practice AMSGrad performs about as Adam",
    conditions={
        "each": "tuned with one budget, on no task is either better: every interval of the paired difference holds "
        "zero (jointly 95 %)",
        "close": "over all tasks and seeds the mean difference, as a share of Adam's metric, lies within 10 % either "
        "way, with its 95 % interval",
    },
    chapter=8,
    recorded={
        "on": ("digits-mlp", "digits-resnet", "docs-lstm", "numbers-transformer"),
        "rates": 7,
        "seeds": 5,
    },
    recipe="a 34-layer residual network on CIFAR-10 and LSTM language models on Penn Treebank, 200 epochs each, Adam "
    "and AMSGrad at 7 rates and 5 seeds each, on GPUs",
)
def amsgrad_no_better(on: Sequence[str] = ("digits-mlp",), rates: int = 3, seeds: int = 2) -> Outcome:
    """Adam and AMSGrad on each task, each at its own best rate of as many; the difference of the task's metric."""
    rows, gains = [], {}
    for task in on:
        runs = tuned(task, ("adam", "amsgrad"), rates=rates, seeds=seeds)
        metric = find_task(task).metric
        gains[task] = gain(runs, "amsgrad", "adam", level=1 - 0.05 / len(on))
        values = runs.chosen_values(metric)
        sign = 1 if metric in find_task(task).larger else -1
        scale = np.mean(list(values["adam"][1].values()))
        rows += [
            (task, metric, seed, a, values["amsgrad"][1][seed], sign * (values["amsgrad"][1][seed] - a) / scale)
            for seed, a in sorted(values["adam"][1].items())
        ]
    data = pd.DataFrame(rows, columns=["task", "metric", "seed", "adam", "amsgrad", "better_by"])
    overall = stats.interval(data["better_by"])
    return Outcome(
        held={"each": holds_zero(gains.values()), "close": inside(overall, 0.1)},
        numbers={
            "AMSGrad better by, as a share of Adam's metric, all tasks and seeds": overall[:3],
            **{f"{task}, AMSGrad better by ({find_task(task).metric})": gains[task][:3] for task in on},
        },
        n=seeds,
        budget=f"{', '.join(on)}; {rates} rates each, poly(2)",
        data=data,
    )


def holds_zero(differences: Iterable[stats.Interval]) -> bool | None:
    """Whether all intervals hold zero; ``None`` where one seed gives none."""
    return both(*(None if math.isnan(d.low) else d.low <= 0 <= d.high for d in differences))


def inside(estimate: stats.Interval, bound: float) -> bool | None:
    """``True`` where the interval lies within ``bound`` of zero, ``False`` where it lies beyond, else ``None``."""
    if -bound < estimate.low and estimate.high < bound:
        return True
    return False if estimate.low >= bound or estimate.high <= -bound else None


@claim(
    "final-stage-rare",
    source="course",
    says="Late in training most gradients are uninformative and rare batches matter",
    conditions={
        "small": "at the end the median batch's gradient is less than a tenth as long as after 20 steps: the 95 % "
        "interval of the ratio lies below",
        "uninformative": "at the end the median batch points less along the full gradient than after 20 steps: the "
        "paired 95 % interval of the cosine lies below 0",
        "rare": "at the end the largest twentieth of the batches holds more than half of the sum of squared lengths",
        "informative": "those batches point more along the full gradient than the median one: the 95 % interval lies "
        "above 0",
        "damped": "v holds them back: per unit of length such a batch moves Adam less than the median one, the 95 % "
        "interval of the ratio lies below 1",
    },
    chapter=8,
    recorded={"seeds": 20, "draws": 400, "steps": 3000},
)
def final_stage_rare(
    task: str = "digits-mlp", seeds: int = 5, steps: int = 600, draws: int = 100, batch: int = 16, early: int = 20
) -> Outcome:
    """Adam at lr 0.003 on batches of 16; the gradients of other batches after 20 steps and at the end."""
    the_task, rule = find_task(task), find("adam")
    starts = [the_task.init(seed) for seed in range(seeds)]
    params = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    states = {name: rule.init(p) for name, p in params.items()}
    random, size = the_task.generator(seeds, "rare"), len(the_task.data["train"][0])

    def gradient(places: Tensor) -> Tensors:
        return the_task.gradient(params, (places,), {})[0]

    rows = []
    for t in range(1, steps + 1):
        grads = gradient(torch.randint(size, (seeds, batch), generator=random))
        for name, p in params.items():
            params[name], *new = rule(p, grads[name], t, *states[name], lr=3e-3)
            states[name] = tuple(new)
        if t in (early, steps):
            whole = _flat(gradient(torch.arange(size).expand(seeds, size)))
            for draw in range(draws):
                grads = gradient(torch.randint(size, (seeds, batch), generator=random))
                alone = {
                    # Its own part of the step: no first moment, and the v that the run has.
                    name: rule(torch.zeros_like(g), g, t + 1, torch.zeros_like(g), states[name][1], lr=1.0)[0]
                    for name, g in grads.items()
                }
                g, step = _flat(grads), _flat(alone)
                cosine = torch.nn.functional.cosine_similarity(g, whole)
                rows += list(zip([t] * seeds, range(seeds), [draw] * seeds, g.norm(dim=1).tolist(), cosine.tolist(),
                                 step.norm(dim=1).tolist(), strict=True))  # fmt: skip
    data = pd.DataFrame(rows, columns=["step", "seed", "draw", "length", "cosine", "moved"])
    told = pd.DataFrame([{"step": t, "seed": seed, **_told(own)} for (t, seed), own in data.groupby(["step", "seed"])])
    first, last = (told[told["step"] == t].set_index("seed") for t in (early, steps))
    shrunk = stats.interval(last["length"] / first["length"])
    turned = stats.paired_difference(last["cosine"], first["cosine"])
    share, clearer, response = (stats.interval(last[name]) for name in ("share", "clearer", "response"))
    return Outcome(
        held={
            "small": _below(shrunk, 0.1),
            "uninformative": _below(turned, 0.0),
            "rare": decided(share, above=0.5),
            "informative": decided(clearer),
            "damped": _below(response, 1.0),
        },
        numbers={
            "length of the median gradient, end / early": shrunk[:3],
            "cosine of the median batch to the full gradient, early": stats.interval(first["cosine"])[:3],
            "… at the end": stats.interval(last["cosine"])[:3],
            "… difference": turned[:3],
            "share of the largest twentieth in the squared lengths, early": stats.interval(first["share"])[:3],
            "share of the largest twentieth, at the end": share[:3],
            "cosine of those batches less the median's, at the end": clearer[:3],
            "what they move Adam per unit of length, over the median's": response[:3],
        },
        n=seeds,
        budget=f"{task}, {steps} steps of Adam at lr 0.003, batches of {batch}; {draws} other batches measured",
        data=data[data["seed"] == 0].drop(columns="seed").reset_index(drop=True),
    )


def _told(batches: pd.DataFrame) -> dict[str, float]:
    """What the batches measured in one run at one step have to say."""
    large = batches.nlargest(max(1, len(batches) // 20), "length")
    per_length = batches["moved"] / batches["length"]
    return {
        "length": batches["length"].median(),
        "cosine": batches["cosine"].median(),
        "share": (large["length"] ** 2).sum() / (batches["length"] ** 2).sum(),
        "clearer": large["cosine"].mean() - batches["cosine"].median(),
        "response": per_length[large.index].mean() / per_length.median(),
    }


def _below(estimate: stats.Interval, bound: float) -> bool | None:
    return decided(stats.Interval(-estimate.mean, -estimate.high, -estimate.low, estimate.n), above=-bound)


def _flat(tensors: Tensors) -> Tensor:
    """All tensors of each run in a row: (runs, numbers)."""
    return torch.cat([x.flatten(1) for x in tensors.values()], dim=1)
