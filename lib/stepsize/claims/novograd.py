"""The claims on what NovoGrad's rule does: memory, start, clip, maximum, decay and scale. Chapter 14."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import landscapes, stats
from ..rules import RULES, Rule
from .base import Outcome, claim, decided, exact, train

LAYER = 64


@claim(
    "novograd-half-memory",
    source="novograd",
    says="NovoGrad needs half of Adam's memory",
    conditions={"half": "on every net the bytes of state are 0.50 +/- 0.01 of Adam's"},
    chapter=14,
    recorded={"nets": ("digits-mlp", "digits-resnet", "docs-lstm", "docs-transformer-xl", "numbers-transformer")},
)
def novograd_half_memory(nets: Sequence[str] = ("digits-mlp", "digits-resnet")) -> Outcome:
    """Bytes of state after one step, of every method that walks with a moment, on nets of several kinds."""
    import pandas as pd

    methods = ("sgdm", "adam", "amsgrad", "adafactor", "novograd")
    frames = [train(net, {name: {} for name in methods}, seeds=1, steps=1).frame() for net in nets]
    table = pd.concat(frames)[["task", "optimizer", "state_bytes"]]
    bytes_of = table.pivot(index="task", columns="optimizer", values="state_bytes")
    share = bytes_of["novograd"] / bytes_of["adam"]
    return Outcome(
        held={"half": bool((abs(share - 0.5) <= 0.01).all())},
        numbers={f"{net}: NovoGrad's bytes / Adam's": exact(share[net]) for net in nets},
        n=1,
        budget="exact: bytes of all state tensors after one step",
        data=table,
    )


@claim(
    "novograd-init-moments",
    source="novograd",
    says="Starting v at the first norm avoids a biased start",
    conditions={
        "first": "the first step is as long as the rate, to one part in ten thousand, for gradients of any size",
        "unbiased": "over noisy gradients of one strength, the mean of v_t lies within 5 % of the true squared norm at "
        "each of the first ten steps",
        "zero start": "with a zero start it does not",
    },
    chapter=14,
    recorded={"seeds": 20_000},
)
def novograd_init_moments(seeds: int = 2_000, steps: int = 10, lr: float = 1e-2) -> Outcome:
    """Gradients drawn afresh at each step for a layer of 4 weights; v and the displacement of each step."""
    import pandas as pd

    starts = {"first norm": RULES["novograd"], "zero": RULES["novograd"].deviations["zero-start"].rule}
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(steps, seeds, 4, dtype=torch.float64, generator=random)
    first = [
        float((walk(starts["first norm"], drawn[:1, 0] * size, lr=lr)[0][-1]).norm()) / lr for size in (1e-3, 1, 1e3)
    ]
    rows = []
    for start, rule in starts.items():
        paths, v = torch.func.vmap(lambda g, rule=rule: walk(rule, g, lr=lr), in_dims=1, out_dims=1)(drawn)
        lengths = paths.diff(dim=0, prepend=torch.zeros_like(paths[:1])).norm(dim=-1)
        for t in range(steps):
            mean, low, high, _ = stats.interval(v[t] / 4)
            rows.append(
                {"start": start, "step": t + 1, "v": mean, "low": low, "high": high, "spread": float(v[t].std())}
            )
            rows[-1]["length"] = float(lengths[t].median()) / lr
    # Adam's way to a start without bias: the zero start, divided by what is missing.
    zero = [row for row in rows if row["start"] == "zero"]
    beta2 = RULES["novograd"].defaults["betas"][1]
    for row in zero:
        missing = 1 - beta2 ** row["step"]
        each = {name: row[name] / missing for name in ("v", "low", "high", "spread")}
        rows.append({"start": "zero, divided by 1 - beta2^t", "step": row["step"], **each, "length": np.nan})
    table = pd.DataFrame(rows).set_index(["start", "step"])
    near = (table["v"] - 1).abs() <= 0.05
    last = table.xs(steps, level="step")
    return Outcome(
        held={
            "first": max(abs(length - 1) for length in first) <= 1e-4,
            "unbiased": bool(near["first norm"].all()),
            "zero start": not bool(near["zero"].any()),
        },
        numbers={
            "length of the first step in rates, zero start (median)": exact(table.loc[("zero", 1), "length"]),
            f"v_{steps} / true squared norm, first norm": tuple(last.loc["first norm", ["v", "low", "high"]]),
            f"v_{steps} / true squared norm, zero start": tuple(last.loc["zero", ["v", "low", "high"]]),
            f"spread of v_{steps}, first norm, as a multiple of the debiased zero start's": exact(
                last.loc["first norm", "spread"] / last.loc["zero, divided by 1 - beta2^t", "spread"]
            ),
        },
        n=seeds,
        budget=f"float64, {steps} steps of a layer of 4 weights, normal gradients",
        data=table.reset_index(),
    )


def walk(rule: Rule, gradients: Tensor, p: Tensor | None = None, **hyper: Any) -> tuple[Tensor, Tensor]:
    """The points after each of ``gradients`` (steps, d) from ``p`` (default the origin), and v after each."""
    p = torch.zeros_like(gradients[0]) if p is None else p
    state = rule.init(p)
    points, seconds = [], []
    for t, g in enumerate(gradients, start=1):
        p, *new_state = rule(p, g, t, *state, **hyper)
        state = tuple(new_state)
        points.append(p)
        seconds.append(state[0])
    return torch.stack(points), torch.stack(seconds)


@claim(
    "novograd-decay",
    source="novograd",
    says="Decay inside the moment or after it is equivalent",
    conditions={
        "same": "with one weight_decay, the weights decayed inside and after stay within 1 % of each other",
        "rescaled": "they do if the decay after is 1 / (1 - beta1) times as strong",
    },
    chapter=14,
)
def novograd_decay(steps: int = 500, lr: float = 1e-3, weight_decay: float = 0.05, dimensions: int = LAYER) -> Outcome:
    """A layer of 64 weights with zero gradients, so that decay alone moves it; beta1 as NovoGrad's default."""
    import pandas as pd

    inside, after = RULES["novograd"], RULES["novograd"].deviations["decay-outside-the-moment"].rule
    beta1 = inside.defaults["betas"][0]
    start = torch.ones(dimensions, dtype=torch.float64)
    still = torch.zeros(steps, dimensions, dtype=torch.float64)
    paths = {
        "inside the moment": walk(inside, still, start, lr=lr, weight_decay=weight_decay)[0],
        "after, the same": walk(after, still, start, lr=lr, weight_decay=weight_decay)[0],
        "after, / (1 - beta1)": walk(after, still, start, lr=lr, weight_decay=weight_decay / (1 - beta1))[0],
    }
    size = {name: path.norm(dim=1) / start.norm() for name, path in paths.items()}
    lost = {name: -float(torch.log(values[-1])) for name, values in size.items()}
    apart = {name: float((values - size["inside the moment"]).abs().max()) for name, values in size.items()}
    return Outcome(
        held={"same": apart["after, the same"] <= 0.01, "rescaled": apart["after, / (1 - beta1)"] <= 0.01},
        numbers={
            "decay inside, as a multiple of the decay after": exact(
                lost["inside the moment"] / lost["after, the same"]
            ),
            "1 / (1 - beta1)": exact(1 / (1 - beta1)),
            "largest distance at one weight_decay, share of the start": exact(apart["after, the same"]),
            "largest distance after rescaling, share of the start": exact(apart["after, / (1 - beta1)"]),
        },
        n=1,
        budget=f"exact: float64, {steps} steps, lr {lr}, weight_decay {weight_decay}",
        data=pd.DataFrame({"step": range(1, steps + 1), **{name: values.numpy() for name, values in size.items()}}),
    )


@claim(
    "novograd-scale",
    source="novograd",
    says="Layer-wise normalisation makes the step independent of the gradient's scale",
    conditions={
        "scale": "the path for gradients times 1000, and for gradients / 1000, is the same to 1e-6 of its length",
        "not sgdm": "that of SGD with momentum is not",
    },
    chapter=14,
)
def novograd_scale(steps: int = 100, lr: float = 1e-2) -> Outcome:
    """The condition-25 bowl with noise, float64, and the same with every gradient scaled."""
    surface = landscapes.noisy_valley()
    numbers, apart = {}, {}
    for name, rate in {"novograd": lr, "adam": lr, "sgdm": lr / 10}.items():
        paths = {scale: _scaled(RULES[name], surface, scale, steps, rate) for scale in (1.0, 1e3, 1e-3)}
        length = paths[1.0].diff(dim=0).norm(dim=1).sum()
        apart[name] = max(
            float((paths[scale] - paths[1.0]).norm(dim=1).nan_to_num(torch.inf).max() / length) for scale in (1e3, 1e-3)
        )
        numbers[f"{name}: largest distance, share of the path's length"] = exact(apart[name])
    return Outcome(
        held={"scale": apart["novograd"] <= 1e-6, "not sgdm": apart["sgdm"] > 1e-2},
        numbers=numbers,
        n=1,
        budget=f"exact: noisy valley, float64, {steps} steps, lr {lr}",
    )


def _scaled(rule: Rule, surface: landscapes.Landscape, scale: float, steps: int, lr: float) -> Tensor:
    p = torch.tensor(surface.start, dtype=torch.float64)
    state, points = rule.init(p), [p]
    for t in range(1, steps + 1):
        p, *new_state = rule(p, scale * landscapes.gradient(surface, p, step=t), t, *state, lr=lr)
        state = tuple(new_state)
        points.append(p)
    return torch.stack(points)


@claim(
    "novograd-ams",
    source="novograd",
    says="The AMSGrad-like maximum mends the counterexample",
    conditions={
        "without": "without it the weight ends on the wrong side: the interval of its end over seeds lies above 0",
        "with": "with it, on the right side: the interval lies below 0",
        "online": "on the periodic counterexample with C = 3, likewise without above 0 and with below",
    },
    chapter=14,
    recorded={"steps": 100_000, "seeds": 20, "online_steps": 20_000},
)
def novograd_ams(steps: int = 3_000, seeds: int = 3, online_steps: int = 1_000, lr: float = 1e-3) -> Outcome:
    """Slope 1010 with probability 0.01, else -10, on [-1, 1], where -1 is best; and Reddi's periodic example."""
    import pandas as pd

    problem, example = landscapes.rare_spike(random=True), landscapes.counterexample(3.0)
    ends, rows = {}, []
    at = np.unique(np.linspace(0, steps, 201).astype(int))
    for amsgrad in (False, True):
        paths, _ = landscapes.play(
            "novograd", problem, steps, seed=range(seeds), lr=lr, betas=(0.9, 0.99), amsgrad=amsgrad
        )
        ends[amsgrad] = paths[:, -max(1, steps // 20) :].mean(1).tolist()
        for seed, x in enumerate(paths):
            rows.append(pd.DataFrame({"amsgrad": amsgrad, "seed": seed, "step": at, "x": x[at].numpy()}))
    # The theorem's beta2 for C = 3, no momentum, and its falling rate.
    online = {
        amsgrad: float(
            landscapes.play(
                "novograd", example, online_steps, lr=lambda t: 0.5 / t**0.5, betas=(0.0, 0.1), amsgrad=amsgrad
            )[0][-online_steps // 20 :].mean()
        )
        for amsgrad in (False, True)
    }
    estimates = {amsgrad: stats.interval(values) for amsgrad, values in ends.items()}
    below = stats.Interval(-estimates[True].mean, -estimates[True].high, -estimates[True].low, seeds)
    return Outcome(
        held={
            "without": decided(estimates[False]),
            "with": decided(below),
            "online": online[False] > 0 > online[True],
        },
        numbers={
            "end of the weight, stochastic, without": estimates[False][:3],
            "end of the weight, stochastic, with": estimates[True][:3],
            "end of the weight, C = 3, without": exact(online[False]),
            "end of the weight, C = 3, with": exact(online[True]),
        },
        n=seeds,
        budget=f"{steps:,} steps stochastic at lr {lr}, betas (0.9, 0.99); {online_steps:,} steps periodic; float64",
        data=pd.concat(rows),
    )


@claim(
    "novograd-clip",
    source="novograd",
    says="Clipping the layer's rate steadies large rates",
    conditions={
        "steadier": "over the grid of rates, a smaller share of runs fails (diverges, or ends above its start) with "
        "the clip than without: the paired 95 % interval over seeds lies above 0",
        "no price": "the best rate's test error is not more than one point above that without the clip: so says "
        "the paired interval",
    },
    chapter=14,
    recorded={"rates": 13, "seeds": 10, "steps": 300},
)
def novograd_clip(rates: int = 5, seeds: int = 3, steps: int = 100, clip: float = 1e-2) -> Outcome:
    """digits-mlp over rates from 1e-3 to 1e3, with layer_lr_clip and without; poly decay."""
    grid = np.logspace(-3, 3, rates).tolist()
    frames = {}
    for name, value in {"without": None, "with": clip}.items():
        settings = {"novograd": {"lr": grid, "layer_lr_clip": value}}
        runs = train("digits-mlp", settings, seeds=seeds, steps=steps, schedule="poly")
        starts = {row["key"]: row["metrics"]["start_train_loss"] for row in runs.store.rows(runs.keys)}
        frames[name] = runs.frame()
        below = frames[name]["final_train_loss"] < frames[name]["key"].map(starts)
        frames[name]["fails"] = frames[name]["diverged"] | ~below
    fails = {name: frame.groupby("seed")["fails"].mean().to_numpy(dtype=float) for name, frame in frames.items()}
    best = {}
    for name, frame in frames.items():
        at = frame.fillna({"final_val_error": 1.0}).groupby("lr")["final_val_error"].mean().idxmin()
        best[name] = (at, frame[frame["lr"] == at].sort_values("seed")["final_test_error"].to_numpy())
    fewer = stats.paired_difference(fails["without"], fails["with"])
    gained = stats.paired_difference(best["without"][1], best["with"][1])
    import pandas as pd

    table = pd.concat([frame.assign(clip=name) for name, frame in frames.items()])
    return Outcome(
        held={"steadier": decided(fewer), "no price": decided(gained, above=-0.01)},
        numbers={
            "share of runs that fail, without": stats.interval(fails["without"])[:3],
            "share of runs that fail, with": stats.interval(fails["with"])[:3],
            f"test error, without, lr {best['without'][0]:.2g}": stats.interval(best["without"][1])[:3],
            f"test error, with, lr {best['with'][0]:.2g}": stats.interval(best["with"][1])[:3],
        },
        n=seeds,
        budget=f"digits-mlp, {steps} steps, {rates} rates from 1e-3 to 1e3, layer_lr_clip {clip:g}",
        data=table[["clip", "lr", "seed", "fails", "diverged", "final_train_loss", "final_test_error"]],
    )
