"""The claims on how well NovoGrad trains: five tasks, warm-up, rates, initial scales, batch sizes. Chapter 14."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import stats, tasks
from ..runs import Runs
from ..search import log_grid
from .base import Outcome, claim, decided, exact, gain, train, tuned

if TYPE_CHECKING:
    import pandas as pd

FIVE = ("digits-resnet", "numbers-transformer", "speech-jasper", "docs-transformer-xl", "spans-bert")
RIVALS = ("sgdm", "adam", "adamw")
NAMES = {"sgdm": "SGD with momentum", "adam": "Adam", "adamw": "AdamW"}
TUNED = {"rates": 7, "seeds": 5, "steps": None, "warmups": (0.0, 0.1)}


def on_par(margin: str) -> dict[str, str]:
    """The conditions of a comparison on one task."""
    return {
        rival: f"not worse than {name} by more than {margin}: the paired 95 % interval lies above that"
        for rival, name in NAMES.items()
    }


@claim(
    "novograd-vision",
    source="novograd",
    says="On par or better than SGD, Adam, AdamW: image classification (ResNet-50 v2, ImageNet)",
    conditions=on_par("one point of test error"),
    chapter=14,
    recorded=TUNED,
    recipe="digits-resnet@full is ResNet-50 v2 on ImageNet: 100 epochs at batch 128 a GPU on 8 GPUs, poly(2), NovoGrad "
    "lr 0.03, betas (0.95, 0.98), weight_decay 4e-3 (the authors' configuration), SGDM lr 0.1 a 256, AdamW tuned",
)
def novograd_vision(
    rates: int = 1, seeds: int = 2, steps: int | None = 2, warmups: Sequence[float] = (0.0,)
) -> Outcome:
    """A pre-activation residual net with batch norm on handwritten digits."""
    return beside("digits-resnet", 0.01, rates, seeds, steps, warmups)


@claim(
    "novograd-translation",
    source="novograd",
    says="The same on translation (Transformer-big, WMT14 En-De)",
    conditions=on_par("2 BLEU"),
    chapter=14,
    recorded=TUNED,
    recipe="Transformer-big on WMT14 En-De, 600,000 steps of 128 sentence pairs a GPU, poly(2), NovoGrad lr 0.04, "
    "betas (0.95, 0.99), weight_decay 1e-5 (the authors' configuration); Adam with its warm-up",
)
def novograd_translation(
    rates: int = 1, seeds: int = 2, steps: int | None = 2, warmups: Sequence[float] = (0.0,)
) -> Outcome:
    """An encoder-decoder transformer that translates English number words to German."""
    return beside("numbers-transformer", 2.0, rates, seeds, steps, warmups)


@claim(
    "novograd-speech",
    source="novograd",
    says="The same on speech (Jasper 10x5, LibriSpeech)",
    conditions=on_par("two points of word error rate"),
    chapter=14,
    recorded=TUNED,
    recipe="Jasper 10x5 on LibriSpeech, 400 epochs at batch 256, poly(2), NovoGrad lr 0.02, betas (0.95, 0.98), "
    "weight_decay 1e-3 (the authors' configuration); SGDM with LARC",
)
def novograd_speech(
    rates: int = 1, seeds: int = 2, steps: int | None = 2, warmups: Sequence[float] = (0.0,)
) -> Outcome:
    """A small Jasper with CTC on synthesised digits."""
    return beside("speech-jasper", 0.02, rates, seeds, steps, warmups)


@claim(
    "novograd-lm",
    source="novograd",
    says="The same on language modelling (Transformer-XL, WikiText-103)",
    conditions=on_par("3 of perplexity"),
    chapter=14,
    recorded=TUNED,
    recipe="Transformer-XL on WikiText-103 with the paper's 16 layers, on 8 GPUs for days; the paper's settings for "
    "NovoGrad were not found, so lr must be tuned for each",
)
def novograd_lm(rates: int = 1, seeds: int = 2, steps: int | None = 2, warmups: Sequence[float] = (0.0,)) -> Outcome:
    """A small Transformer-XL with recurrence on the Python documentation."""
    return beside("docs-transformer-xl", 3.0, rates, seeds, steps, warmups)


@claim(
    "novograd-qa",
    source="novograd",
    says="The same on question answering (BERT-large, SQuAD 1.1)",
    conditions=on_par("two points of F1"),
    chapter=14,
    recorded=TUNED,
    recipe="BERT-large fine-tuned on SQuAD 1.1, 2 to 3 epochs at batch 32 on one GPU of 32 GB, lr tuned for each",
)
def novograd_qa(rates: int = 1, seeds: int = 2, steps: int | None = 2, warmups: Sequence[float] = (0.0,)) -> Outcome:
    """A small BERT that finds the answer's span in facts about countries."""
    return beside("spans-bert", 0.02, rates, seeds, steps, warmups)


def beside(
    task: str, margin: float, rates: int, seeds: int, steps: int | None, warmups: Sequence[float] = (0.0,)
) -> Outcome:
    """NovoGrad against its three rivals on a task, tuned with one budget; the verdict is on runs without warm-up."""
    import pandas as pd

    metric = tasks.find(task).metric
    numbers: dict[str, tuple[float, float, float]] = {}
    held: dict[str, bool | None] = {}
    tables = []
    for warmup in warmups:
        runs = tuned(task, (*RIVALS, "novograd"), rates=rates, seeds=seeds, steps=steps, warmup=warmup)
        table = runs.summary(metric).assign(warmup=warmup)
        tables.append(table)
        words = f", warm-up over {warmup:.0%}" if warmup else ""
        for row in table.itertuples():
            edge = ", at the edge of its grid" if row.grid_edge else ""
            numbers[f"{metric}, {row.optimizer}, lr {row.lr:.3g}{edge}{words}"] = (row.mean, row.low, row.high)
        gains = {rival: gain(runs, "novograd", rival) for rival in RIVALS}
        numbers |= {f"NovoGrad better than {rival} by{words}": found[:3] for rival, found in gains.items()}
        if not warmup:
            held = {rival: decided(found, above=-margin) for rival, found in gains.items()}
    length = int(tables[0]["steps"].iloc[0])
    budget = f"{task}, {length} steps, {rates} rates each, poly(2), decay 1e-3 for AdamW and NovoGrad"
    kept = ["task", "optimizer", "warmup", "lr", "mean", "low", "high", "n", "best_mean", "diverged", "grid_edge"]
    return Outcome(held=held, numbers=numbers, n=seeds, budget=budget, data=pd.concat(tables)[kept])


def loss_share(runs: Runs, optimizer: str) -> dict[int, dict[float, float]]:
    """For each seed and rate, the share of the attainable fall of the validation loss that is missed.

    0 is the best end any optimizer had on that seed, 1 the start; a diverged run counts as untrained.
    """
    rows = runs.store.rows(runs.keys)
    found: dict[int, dict[float, float]] = {}
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        best = min(_end(row) for row in own)
        start = own[0]["metrics"]["start_val_loss"]
        mine = [row for row in own if row["optimizer"] == optimizer]
        found[seed] = {row["hyper"]["lr"]: min(1.0, (_end(row) - best) / (start - best)) for row in mine}
    return found


def _end(row: Mapping[str, Any]) -> float:
    end = row["metrics"]["start_val_loss" if row["diverged"] else "final_val_loss"]
    return math.inf if end is None else float(end)


def at_rates(missed: Mapping[float, float], grid: np.ndarray) -> np.ndarray:
    """What is missed at the rates of a grid, by straight lines in log10 of the rate; 1 beyond the rates tried."""
    rates = sorted(missed)
    values = [missed[rate] for rate in rates]
    return np.interp(np.log10(grid), np.log10(rates), values, left=1.0, right=1.0)


@claim(
    "novograd-one-policy",
    source="novograd",
    says="One learning-rate policy serves all tasks",
    conditions={
        "adam": "the regret of one shared rate, in shares of the fall of the validation loss and averaged over the "
        "tasks, is smaller for NovoGrad than for Adam: the paired 95 % interval lies below 0",
        "sgdm": "and smaller than for SGD with momentum",
        "small": "and below 0.05: so says its interval",
    },
    chapter=14,
    recorded={"rates": 7, "seeds": 5, "steps": None, "on": FIVE},
)
def novograd_one_policy(
    rates: int = 4, seeds: int = 2, steps: int | None = 100, on: Sequence[str] = ("digits-mlp", "sparse-logistic")
) -> Outcome:
    """The runs tuned for each task, read at one rate shared by all: what that costs beside each task's own best."""
    import pandas as pd

    grid = np.logspace(-6, 2, 321)
    methods = (*RIVALS, "novograd")
    missed = {name: np.zeros((seeds, len(on), len(grid))) for name in methods}
    for number, task in enumerate(on):
        runs = tuned(task, methods, rates=rates, seeds=seeds, steps=steps)
        for name in methods:
            for seed, own in loss_share(runs, name).items():
                missed[name][seed, number] = at_rates(own, grid)
    regret, shared, rows = {}, {}, []
    for name, values in missed.items():
        over = values - values.min(axis=2, keepdims=True)
        at = int(over.mean(axis=(0, 1)).argmin())
        shared[name], regret[name] = grid[at], over[:, :, at].mean(axis=1)
        for task, curve in zip(on, over.mean(axis=0), strict=True):
            rows.append(pd.DataFrame({"optimizer": name, "task": task, "lr": grid, "regret": curve})[::8])
    less = {rival: stats.paired_difference(regret[rival], regret["novograd"]) for rival in ("adam", "sgdm")}
    own_regret = stats.interval(regret["novograd"])
    numbers = {f"regret of one rate, {n}, lr {shared[n]:.2g}": stats.interval(v)[:3] for n, v in regret.items()}
    numbers |= {f"NovoGrad's regret smaller than {rival}'s by": found[:3] for rival, found in less.items()}
    return Outcome(
        held={
            **{rival: decided(found) for rival, found in less.items()},
            "small": decided(stats.Interval(-own_regret.mean, -own_regret.high, -own_regret.low, seeds), above=-0.05),
        },
        numbers=numbers,
        n=seeds,
        budget=f"{len(on)} tasks, {rates} rates each on each task, poly(2), read between by straight lines in log10 lr",
        data=pd.concat(rows),
    )


@claim(
    "novograd-lr-robust",
    source="abstracts",
    says="Robust to the choice of learning rate",
    conditions={
        rival: f"its good rates (validation loss within 10 % of its own best) span more decades than those of {name}, "
        "averaged over the tasks: the paired 95 % interval lies above 0"
        for rival, name in NAMES.items()
    },
    chapter=14,
    recorded={"rates": 7, "seeds": 5, "steps": None, "on": FIVE},
)
def novograd_lr_robust(
    rates: int = 4, seeds: int = 2, steps: int | None = 50, on: Sequence[str] = ("digits-mlp",)
) -> Outcome:
    """Width in decades of the good rates of each optimizer, seed by seed, from the tuned runs of each task."""
    import pandas as pd

    rows = []
    for task in on:
        frame = tuned(task, (*RIVALS, "novograd"), rates=rates, seeds=seeds, steps=steps).frame()
        for (name, seed), own in frame.groupby(["optimizer", "seed"]):
            width = stats.basin_width(own, "final_val_loss")
            rows.append({"task": task, "optimizer": name, "seed": seed, "decades": width})
    return _wider(pd.DataFrame(rows), seeds, f"{len(on)} tasks, {rates} rates each, poly(2)")


@claim(
    "novograd-init-robust",
    source="abstracts",
    says="Robust to weight initialisation",
    conditions={
        rival: "the initial scales at which its tuned rate still comes within 10 % of its best validation loss span "
        f"more factors of two than those of {name}: the paired 95 % interval lies above 0"
        for rival, name in NAMES.items()
    },
    chapter=14,
    recorded={"rates": 9, "seeds": 6, "steps": 300},
)
def novograd_init_robust(rates: int = 4, seeds: int = 2, steps: int = 50, task: str = "digits-mlp") -> Outcome:
    """All weights of the start times 1/16 to 16, at the rate that was best for the usual start."""
    import pandas as pd

    methods = (*RIVALS, "novograd")
    metric = tasks.find(task).metric
    best = tuned(task, methods, rates=rates, seeds=seeds, steps=steps).summary(metric).set_index("optimizer")["lr"]
    settings = {n: {"lr": [best[n]]} | ({"weight_decay": 1e-3} if n in ("adamw", "novograd") else {}) for n in methods}
    frames = []
    for factor in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16):
        runs = train(f"{task}:init={factor}", settings, seeds=seeds, steps=steps, schedule="poly")
        frames.append(runs.frame().assign(scale=factor))
    table = pd.concat(frames)
    rows = [
        {
            "task": task,
            "optimizer": n,
            "seed": s,
            "decades": stats.basin_width(f, "final_val_loss", over="scale") / LOG2,
        }
        for (n, s), f in table.groupby(["optimizer", "seed"])
    ]
    found = _wider(pd.DataFrame(rows), seeds, f"{task}, {steps} steps, 9 scales at the tuned of {rates} rates, poly(2)")
    kept = table[["optimizer", "scale", "seed", "lr", "final_val_loss", "final_test_error", "diverged"]]
    return Outcome(found.held, found.numbers, found.n, found.budget, {"widths": found.data, "runs": kept})


LOG2 = math.log10(2)


def _wider(widths: pd.DataFrame, seeds: int, budget: str) -> Outcome:
    """Whether NovoGrad's widths, averaged over the tasks, exceed each rival's."""
    per_seed = widths.groupby(["optimizer", "seed"])["decades"].mean().unstack()
    more = {rival: stats.paired_difference(per_seed.loc["novograd"], per_seed.loc[rival]) for rival in RIVALS}
    numbers = {f"width, {name}": stats.interval(per_seed.loc[name])[:3] for name in (*RIVALS, "novograd")}
    numbers |= {f"NovoGrad's width exceeds {rival}'s by": found[:3] for rival, found in more.items()}
    return Outcome({rival: decided(found) for rival, found in more.items()}, numbers, seeds, budget, widths)


@claim(
    "novograd-no-warmup",
    source="novograd",
    says="Stable from the start without warm-up",
    conditions={
        "stable": "over the grid of rates, no larger share of NovoGrad's runs fails (diverges, or ends above its "
        "start) without warm-up than with it, by 5 points or more: so says the paired 95 % interval",
        "no gain": "at the best rate of each, warm-up lowers NovoGrad's training loss by less than a tenth: so says "
        "the paired interval of the relative gain",
        "unlike Adam": "at the best rate of each, warm-up lowers Adam's by more than NovoGrad's: the paired interval "
        "lies above 0",
    },
    chapter=14,
    recorded={"rates": 5, "seeds": 5, "steps": 200},
    recipe="Transformer-big without layer norm before the blocks, where Adam needs 4,000 to 16,000 steps of warm-up",
)
def novograd_no_warmup(rates: int = 2, seeds: int = 2, steps: int = 2, share: float = 0.2) -> Outcome:
    """The post-norm transformer on number words at a constant rate, from a tenth to thirty times each default rate.

    The later version of the paper's abstract no longer makes this claim.
    """
    import pandas as pd

    frames, curves = [], []
    for name, middle in {"novograd": 1e-2, "adam": 1e-3}.items():
        grid = log_grid(middle / 10, middle * 30, rates)
        for warmup in (0.0, share):
            over = round(warmup * steps)
            runs = train("numbers-transformer", {name: {"lr": grid}}, seeds=seeds, steps=steps, warmup_steps=over)
            starts = {row["key"]: row["metrics"]["start_train_loss"] for row in runs.store.rows(runs.keys)}
            frame = runs.frame().assign(warmup=warmup)
            frame["start"] = frame["key"].map(starts)
            frames.append(frame)
            curve = runs.curves("batch_loss")
            curves.append(curve[curve["step"] <= 100].merge(frame[["key", "optimizer", "lr", "seed", "warmup"]]))
    table = pd.concat(frames)
    table["fails"] = table["diverged"] | ~(table["final_train_loss"] < table["start"])
    table["end"] = table["final_train_loss"].where(~table["diverged"], table["start"])
    fails = table.groupby(["optimizer", "warmup", "seed"])["fails"].mean()
    mean = table.groupby(["optimizer", "warmup", "lr"])["end"].mean()
    ends, numbers = {}, {}
    for name in ("novograd", "adam"):
        for warmup in (0.0, share):
            best = mean[name, warmup].idxmin()
            own = table[(table.optimizer == name) & (table.warmup == warmup) & (table.lr == best)]
            ends[name, warmup] = own.sort_values("seed")["end"].to_numpy()
            words = f"warm-up over {warmup:.0%}" if warmup else "no warm-up"
            numbers[f"training loss, {name}, {words}, lr {best:.2g}"] = stats.interval(ends[name, warmup])[:3]
            numbers[f"share that fails, {name}, {words}"] = stats.interval(fails[name, warmup])[:3]
    more = stats.paired_difference(fails["novograd", 0.0], fails["novograd", share])
    relative = {name: 1 - ends[name, share] / ends[name, 0.0] for name in ("novograd", "adam")}
    gained = {name: stats.interval(values) for name, values in relative.items()}
    unlike = stats.paired_difference(relative["adam"], relative["novograd"])
    numbers |= {f"share of the training loss that warm-up saves, {name}": x[:3] for name, x in gained.items()}
    # First losses at the rate best without warm-up: a mean over the seeds each.
    first = pd.concat(curves)
    keep = [first[(first.optimizer == n) & (first.lr == mean[n, 0.0].idxmin())] for n in ("novograd", "adam")]
    losses = pd.concat(keep).groupby(["optimizer", "warmup", "step"], as_index=False)["value"].mean()
    shares = table.groupby(["optimizer", "warmup", "lr"], as_index=False)[["fails", "end"]].mean()
    return Outcome(
        held={
            "stable": decided(stats.Interval(-more.mean, -more.high, -more.low, seeds), above=-0.05),
            "no gain": decided(
                stats.Interval(-gained["novograd"].mean, -gained["novograd"].high, -gained["novograd"].low, seeds),
                above=-0.1,
            ),
            "unlike Adam": decided(unlike),
        },
        numbers=numbers,
        n=seeds,
        budget=f"numbers-transformer, {steps} steps, {rates} rates each, warm-up over {share:.0%}",
        data={"losses": losses, "rates": shares.assign(fails=shares["fails"].astype(float))},
    )


@claim(
    "novograd-large-batch",
    source="novograd",
    says="Better than SGD variants at very large batch",
    conditions={
        "sgdm": "at the largest batch its test error is lower than that of SGD with momentum: the paired 95 % interval "
        "lies above 0",
        "lars": "and lower than that of LARS",
        "lamb": "and lower than that of LAMB",
    },
    chapter=14,
    recorded={"rates": 9, "seeds": 6, "epochs": 20, "batches": (32, 128, 512, 1077)},
    recipe="digits-resnet@full (ResNet-50 v2, ImageNet) at batches 1,024 to 32,768 and 90 epochs, each tuned",
)
def novograd_large_batch(
    rates: int = 3, seeds: int = 2, epochs: int = 2, batches: Sequence[int] = (128, 1077)
) -> Outcome:
    """digits-mlp at equal epochs, each optimizer tuned at each batch size; the largest is the whole training set."""
    import pandas as pd

    methods = ("sgdm", "lars", "lamb", "adam", "novograd")
    size, rows = len(tasks.find("digits-mlp").data["train"][0]), []
    numbers = {}
    for batch in batches:
        steps = max(1, epochs * (size // batch))
        runs = tuned(f"digits-mlp:batch={batch}", methods, rates=rates, seeds=seeds, steps=steps)
        rows.append(runs.summary("test_error").assign(batch=batch))
        for name in ("sgdm", "lars", "lamb"):
            numbers[f"NovoGrad better than {name} at batch {batch} by"] = gain(runs, "novograd", name)[:3]
    last = {name: gain(runs, "novograd", name) for name in ("sgdm", "lars", "lamb")}
    table = pd.concat(rows)
    own = table[table["optimizer"] == "novograd"]
    numbers |= {f"test error, novograd, batch {row.batch}": (row.mean, row.low, row.high) for row in own.itertuples()}
    numbers["share of the training set in the largest batch"] = exact(max(batches) / size)
    return Outcome(
        held={name: decided(found) for name, found in last.items()},
        numbers=numbers,
        n=seeds,
        budget=f"digits-mlp, {epochs} epochs, {rates} rates each at each batch size, poly(2)",
        data=table[["optimizer", "batch", "steps", "lr", "mean", "low", "high", "best_mean", "diverged", "grid_edge"]],
    )
