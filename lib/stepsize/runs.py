"""Runs of a store as tables: one row per run, curves, settings, the summary, and the answer in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import stats
from .rules.base import suggestion
from .store import Store

if TYPE_CHECKING:
    import pandas as pd


class Runs:
    """Runs of a store, as tables. ``done`` were trained by this call, ``found`` were in the store before.

    ``how`` says where and how many at a time those were trained.
    """

    def __init__(self, store: Store, keys: Sequence[str], *, done: int = 0, how: str = "") -> None:
        self.store = store
        self.keys = list(keys)
        self.done = done
        self.found = len(self.keys) - done
        self.how = how

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"<{len(self)} runs: {self.done} trained now, {self.found} found in the store>"

    def frame(self) -> pd.DataFrame:
        """One row per run.

        Columns: ``task``, ``optimizer``, one for each hyper-parameter (defaults filled in; NaN where the
        optimizer has no such one), ``schedule``, ``warmup_steps``, ``seed``, ``steps``, ``final_*`` and
        ``best_*`` of each metric, ``diverged``, ``stopped`` (the step at which a hopeless run was ended; NaN
        for the others), ``seconds`` (its share of the batch's), ``state_bytes``, ``key``. A diverged run's
        ``final_*`` may be NaN; ``best_*`` is the best value measured on the way.
        """
        import pandas as pd

        rows = self.store.rows(self.keys)
        hyper = dict.fromkeys(name for row in rows for name in row["hyper"])
        table = [
            {
                "task": row["task"],
                "optimizer": row["optimizer"],
                **{name: _cell(row["hyper"].get(name)) for name in hyper},
                "seed": row["seed"],
                "steps": row["steps"],
                **{name: value for name, value in row["metrics"].items() if not name.startswith("start_")},
                "diverged": bool(row["diverged"]),
                "stopped": np.nan if row["stopped"] is None else row["stopped"],
                "seconds": row["seconds"],
                "state_bytes": row["state_bytes"],
                "key": row["key"],
            }
            for row in rows
        ]
        return pd.DataFrame(table)

    def curves(self, metric: str) -> pd.DataFrame:
        """The course of one metric, tidy: columns ``key``, ``step``, ``value``.

        ``batch_loss`` is the loss of each batch before its step, at most 400 points; the task's own
        metrics are measured at step 0 and at ten evenly spaced steps. ``ValueError`` for a name never recorded.
        """
        import pandas as pd

        found = [(key, *curve) for key in self.keys if (curve := self.store.curve(key, metric)) is not None]
        if not found:
            raise ValueError(f"no curve named {metric!r}; recorded: {', '.join(self.store.metrics())}")
        return pd.DataFrame(
            {
                "key": np.repeat([key for key, _, _ in found], [len(at) for _, at, _ in found]),
                "step": np.concatenate([at for _, at, _ in found]).astype(int),
                "value": np.concatenate([values for _, _, values in found]).astype(float),
            }
        )

    def settings(self, metric: str = "test_error", interval: str = "t") -> pd.DataFrame:
        """One row per optimizer and setting of its hyper-parameters, in the order they were asked for.

        Columns: ``task``, ``optimizer``, ``steps``, ``setting`` (text), ``lr``, ``mean``, ``low``, ``high``
        (95 % interval over seeds; ``interval`` is its method, ``"t"`` or ``"bootstrap"``), ``n``, ``best_mean``
        (of each run's best moment), ``train_loss``, ``diverged`` (how many), ``score`` (mean validation metric,
        what the choice is made by), ``keys`` (of the runs), ``rank`` (0 for the best of all), ``chosen``.
        A diverged run counts as an untrained one: its values are those of its step 0.
        A setting with a diverged run is chosen only if every setting has as many.
        """
        import pandas as pd

        if not self.keys:
            raise ValueError(f"there are no runs in {self.store.name} yet")
        rows = self.store.rows(self.keys)
        select = selection_metric(metric, rows)
        worse = _worse(select, rows)
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row["task"], row["optimizer"], row["steps"], json.dumps(row["hyper"])), []).append(row)
        table = []
        for (task, optimizer, steps, hyper_text), group in groups.items():
            hyper = json.loads(hyper_text)
            estimate = stats.interval([_value(row, "final", metric) for row in group], method=interval)
            table.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "steps": steps,
                    "setting": _setting(hyper, [json.loads(h) for t, o, _, h in groups if (t, o) == (task, optimizer)]),
                    "lr": hyper.get("lr", np.nan),
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                    "best_mean": float(np.mean([_value(row, "best", metric) for row in group])),
                    "train_loss": float(np.mean([_value(row, "final", "train_loss") for row in group])),
                    "diverged": sum(row["diverged"] for row in group),
                    "score": float(np.mean([_value(row, "final", select) for row in group])),
                    "keys": [row["key"] for row in group],
                }
            )
        frame = pd.DataFrame(table)
        frame["rank"] = _ranks(frame, worse)
        order = frame.sort_values("rank")
        best = order.groupby(["task", "optimizer", "steps"], sort=False).head(1).index
        frame["chosen"] = frame.index.isin(best)
        return frame

    def summary(self, metric: str = "test_error", budget: str | int = "equal", interval: str = "t") -> pd.DataFrame:
        """One row per optimizer, the best first: what its best setting gives.

        The setting is chosen on validation (``val_error`` for ``test_error``) and ``metric`` reported.
        ``budget="equal"`` gives every optimizer as many settings to choose from as the one with the
        fewest had; an integer that many; ``"all"`` all it had. Where an optimizer had more than the
        budget k, its numbers are the exact expectation over which k of its settings were tried.

        Columns: ``task``, ``optimizer``, ``steps``, ``setting``, ``lr``, ``mean``, ``low``, ``high`` (95 %
        interval over seeds by the method ``interval``), ``n``, ``best_mean`` (of each run's best moment;
        ``mean`` is of the final one), ``train_loss``, ``diverged`` (runs of the chosen setting), ``settings``
        (tried), ``budget`` (k), ``grid_edge`` (the chosen rate is the first or last of more than one: widen the grid).
        """
        import pandas as pd

        settings = self.settings(metric, interval)
        worse = _worse(metric, self.store.rows(self.keys))
        groups = list(settings.groupby(["task", "optimizer", "steps"], sort=False))
        fewest = min(len(group) for _, group in groups)
        if budget not in ("equal", "all") and not (isinstance(budget, int) and 1 <= budget <= fewest):
            raise ValueError(f"budget must be 'equal', 'all' or from 1 to {fewest}, got {budget!r}")
        table = []
        for _, group in groups:
            k = len(group) if budget == "all" else fewest if budget == "equal" else int(budget)
            chance = stats.best_of(group["rank"], k)
            estimate = stats.interval(self._expected(group, chance, metric), method=interval)
            chosen = group[group["chosen"]].iloc[0]
            table.append(
                {
                    **{name: chosen[name] for name in ("task", "optimizer", "steps", "setting", "lr")},
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                    "best_mean": float(chance @ group["best_mean"]),
                    "train_loss": float(chance @ group["train_loss"]),
                    "diverged": chosen["diverged"],
                    "settings": len(group),
                    "budget": k,
                    "grid_edge": group["lr"].nunique() > 1 and stats.grid_edge(group["lr"], chosen["lr"]),
                }
            )
        frame = pd.DataFrame(table)
        order = frame.assign(mean=worse * frame["mean"]).sort_values(["task", "steps", "mean"], kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def against_budget(self, metric: str = "test_error", interval: str = "t") -> pd.DataFrame:
        """What each optimizer's best of ``k`` settings gives, for every ``k`` it has: the more tried, the better.

        Columns: ``task``, ``optimizer``, ``steps``, ``budget`` (k), ``mean``, ``low``, ``high``, ``n``: the exact
        expectation over which k of its settings were tried, with the interval over seeds.
        """
        import pandas as pd

        table = []
        for (task, name, steps), group in self.settings(metric).groupby(["task", "optimizer", "steps"], sort=False):
            for k in range(1, len(group) + 1):
                values = self._expected(group, stats.best_of(group["rank"], k), metric)
                estimate = stats.interval(values, method=interval)
                table.append({"task": task, "optimizer": name, "steps": steps, "budget": k, **estimate._asdict()})
        return pd.DataFrame(table)

    def chosen(self, optimizer: str, metric: str = "test_error") -> pd.DataFrame:
        """The rows of :meth:`frame` that belong to the setting :meth:`summary` chose, in the order of the seeds.

        Two optimizers' rows can be paired. ``KeyError`` for an optimizer that has no run here.
        """
        settings = self.settings(metric)
        known = list(dict.fromkeys(settings["optimizer"]))
        if optimizer not in known:
            raise KeyError(f"no run of {optimizer!r}{suggestion(optimizer, known)}")
        keys = settings[settings["chosen"] & (settings["optimizer"] == optimizer)]["keys"].sum()
        frame = self.frame()
        return frame[frame["key"].isin(keys)].sort_values("seed", ignore_index=True)

    def chosen_by(self, metric: str = "test_error") -> str:
        """What the hyper-parameters are chosen by when ``metric`` is reported: its validation twin, if it has one."""
        return selection_metric(metric, self.store.rows(self.keys))

    def answer(self, metric: str = "test_error", level: float = 0.95) -> str:
        """Which optimizer is best, in two sentences of Markdown: its setting, mean and interval, and whom it beats.

        Each is taken at its chosen setting. The leader is compared with every other by the differences paired by
        seed, with intervals that hold together with probability ``level`` (Bonferroni).
        """
        per_seed = self.chosen_values(metric)
        worse = _worse(metric, self.store.rows(self.keys))
        rank = sorted(per_seed, key=lambda name: worse * float(np.mean([*per_seed[name][1].values()])))
        setting, values = per_seed[rank[0]]
        best = stats.interval(list(values.values()), level)
        # Errors are shares of one; other metrics have units of their own.
        spec = ".2%" if metric.endswith("error") else ".4g"
        most, other_way = ("lowest", "higher") if worse > 0 else ("highest", "lower")
        lead = f"**{rank[0]}** ({setting}) has the {most} {metric.replace('_', ' ')} on {self._task()}: {best:{spec}}."
        verdicts: dict[str, list[str]] = {"beaten": [], "close": []}
        for name in rank[1:]:
            other = per_seed[name][1]
            both = sorted(values.keys() & other.keys())
            share = 1 - (1 - level) / (len(rank) - 1)
            pairs = [worse * other[s] for s in both], [worse * values[s] for s in both]
            gap = stats.paired_difference(*pairs, share)
            verdicts["beaten" if gap.low > 0 else "close"].append(
                f"{name} ({gap.mean:+{spec}} [{gap.low:+{spec}}, {gap.high:+{spec}}])"
            )
        if not rank[1:]:
            return f"{lead} There is nothing to compare it with."
        if best.n == 1:
            return f"{lead} That is one seed of each, from which nothing follows."
        beaten = f"It beats {_and(verdicts['beaten'])}." if verdicts["beaten"] else ""
        close = f"It is not distinguishable from {_and(verdicts['close'])}." if verdicts["close"] else ""
        tail = f"In brackets: how much {other_way} theirs is, paired by seed."
        return " ".join(filter(None, [lead, beaten, close, tail]))

    def chosen_values(self, metric: str) -> dict[str, tuple[str, dict[int, float]]]:
        """For each optimizer its chosen setting (text), and the final value of each seed there.

        A diverged run has the value of its step 0. ``ValueError`` for runs of several tasks or lengths.
        """
        settings = self.settings(metric)
        if settings[["task", "steps"]].drop_duplicates().shape[0] > 1:
            raise ValueError("these runs are of several tasks or lengths: compare one at a time")
        return {
            row.optimizer: (
                row.setting,
                {run["seed"]: _value(run, "final", metric) for run in self.store.rows(row.keys)},
            )
            for row in settings[settings["chosen"]].itertuples()
        }

    def _task(self) -> str:
        return str(self.store.rows(self.keys[:1])[0]["task"])

    def budget(self) -> str:
        """What was spent, on what, and how much of it now: three lines of text."""
        rows = self.store.rows(self.keys)
        settings = {(row["optimizer"], json.dumps(row["hyper"])) for row in rows}
        optimizers = {name for name, _ in settings}
        seeds, steps = {row["seed"] for row in rows}, {row["steps"] for row in rows}
        made = rows[-1]["made"]
        engines = " and ".join(sorted({row["made"]["engine"] for row in rows}))
        how = f" ({self.how})" if self.done else ""
        counts = [(len(optimizers), "optimizer"), (len(settings), "setting"), (len(seeds), "seed")]
        spent = ", ".join(_count(number, what) for number, what in counts)
        return (
            f"{spent}, {' or '.join(map(str, sorted(steps)))} steps a run: {_count(len(rows), 'run')}.\n"
            f"{self.done} trained now{how}, {self.found} found in {self.store.name}.\n"
            f"{made['device']}, one thread, {engines} engine, Python {made['python']}, torch {made['torch']}, "
            f"stepsize {made['stepsize']}, {made['date']}."
        )

    def basin(self, optimizer: str, metric: str = "test_error") -> float:
        """How many decades of rates are good for an optimizer, all else as :meth:`summary` chose it; see
        :func:`stepsize.stats.basin_width`. NaN with fewer than three rates.
        """
        frame = self.frame()
        chosen = self.chosen(optimizer, metric).iloc[0]
        frame = frame[frame["optimizer"] == optimizer]
        for name in self.store.rows([chosen["key"]])[0]["hyper"]:
            if name not in ("lr", "base_lr"):
                frame = frame[[value == chosen[name] for value in frame[name]]]
        if frame["lr"].nunique() < 3:
            return float("nan")
        larger = _worse(metric, self.store.rows(self.keys)) < 0
        return stats.basin_width(frame, f"final_{metric}", larger=larger)

    def to_parquet(self, path: str | Path) -> Path:
        """Write :meth:`frame` to ``path``, and all curves (``key``, ``metric``, ``step``, ``value``) beside it.

        The file of the curves is called ``NAME-curves.parquet``; both carry what made the runs in their metadata.
        """
        from .export import to_parquet

        return to_parquet(self, path)

    def to_tensorboard(self, folder: str | Path) -> None:
        """Write every curve as scalars and every run's hyper-parameters, one folder for each run, for TensorBoard."""
        from .export import to_tensorboard

        to_tensorboard(self, folder)

    def to_mlflow(self, uri: str, experiment: str | None = None) -> None:
        """Write every run into the MLflow tracking store at ``uri``, such as ``sqlite:///mlflow.db``; none twice.

        ``experiment`` is the name to put them under (default: the task's).
        """
        from .export import to_mlflow

        to_mlflow(self, uri, experiment)

    def _expected(self, group: pd.DataFrame, chance: np.ndarray, metric: str) -> list[float]:
        """For each seed that all settings have, the final metric expected over the choice of setting."""
        tried = [
            (float(share), {row["seed"]: _value(row, "final", metric) for row in self.store.rows(keys)})
            for share, keys in zip(chance, group["keys"], strict=True)
            if share
        ]
        seeds = set.intersection(*(set(values) for _, values in tried))
        return [sum(share * values[seed] for share, values in tried) for seed in sorted(seeds)]


def _worse(metric: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """1 if a larger value of the metric is worse, -1 if it is better."""
    return -1 if metric in rows[0]["larger"] else 1


def _ranks(settings: pd.DataFrame, worse: int) -> np.ndarray:
    """The place of each setting: fewer diverged runs first, then the better score; 0 is the best."""
    order = np.lexsort([np.nan_to_num(worse * settings["score"], nan=np.inf), settings["diverged"]])
    return np.argsort(order)


def selection_metric(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What hyper-parameters are chosen by when ``metric`` is reported: its validation twin, if there is one."""
    known = {name.removeprefix("final_") for row in rows for name in row["metrics"] if name.startswith("final_")}
    if metric not in known:
        raise ValueError(f"no metric named {metric!r}; recorded: {', '.join(sorted(known))}")
    twin = metric.replace("test_", "val_", 1)
    return twin if twin in known else metric


def _value(row: Mapping[str, Any], moment: str, metric: str) -> float:
    value = row["metrics"][f"{'start' if row['diverged'] else moment}_{metric}"]
    return float("nan") if value is None else float(value)


def _setting(hyper: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """``lr=0.1, momentum=0.9``: the rate, and what differs between the settings of this optimizer."""
    shown = [name for name in hyper if name == "lr" or any(other.get(name) != hyper[name] for other in others)]
    return ", ".join(f"{name}={_short(hyper[name])}" for name in shown)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _cell(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
