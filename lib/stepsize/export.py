"""Runs for other tools: Parquet files, TensorBoard's event files, MLflow's tracking store."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runs import Runs

# MLflow takes no more of a kind in one call.
AT_ONCE = 1000


def to_parquet(runs: Runs, path: str | Path) -> Path:
    """See :meth:`stepsize.runs.Runs.to_parquet`."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    path = _in_a_folder(path)
    made = {json.dumps(row["made"], sort_keys=True) for row in runs.store.rows(runs.keys)}
    header = {b"stepsize": json.dumps([json.loads(text) for text in sorted(made)]).encode()}
    frame = runs.frame()
    for name in [name for name in frame if frame[name].dtype == "object"]:
        # Parquet has one type a column: a tuple in one row and nothing in another is text.
        frame[name] = [None if value is None or value != value else str(value) for value in frame[name]]
    curves = pd.concat(
        [runs.curves(metric).assign(metric=metric) for metric in runs.store.metrics()], ignore_index=True
    )
    for table, file in [(frame, path), (curves, path.with_name(f"{path.stem}-curves.parquet"))]:
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        parquet.write_table(arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **header}), file)
    return path


def to_tensorboard(runs: Runs, folder: str | Path) -> None:
    """See :meth:`stepsize.runs.Runs.to_tensorboard`."""
    writer = _needs("torch.utils.tensorboard", "tensorboard").SummaryWriter
    for row, curves in _each(runs):
        place = Path(folder) / f"{row['task']}-{row['optimizer'].replace(':', '-')}-seed{row['seed']}-{row['key'][:8]}"
        if place.exists():
            continue
        with writer(str(place)) as board:
            for metric, (at, values) in curves.items():
                for step, value in zip(at, values, strict=True):
                    board.add_scalar(metric, float(value), int(step))
            board.add_hparams(_parameters(row), _finals(row), run_name=".")


def to_mlflow(runs: Runs, uri: str, experiment: str | None = None) -> None:
    """See :meth:`stepsize.runs.Runs.to_mlflow`."""
    # A course reports nothing about its readers to anybody.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    client = _needs("mlflow.tracking", "mlflow-skinny").MlflowClient(tracking_uri=uri)
    entities = import_module("mlflow.entities")
    for row, curves in _each(runs):
        name = experiment or row["task"]
        known = client.get_experiment_by_name(name)
        place = known.experiment_id if known else client.create_experiment(name)
        if client.search_runs([place], f"tags.stepsize_key = '{row['key']}'", max_results=1):
            continue
        tags = {"stepsize_key": row["key"], **{f"made_{what}": text for what, text in row["made"].items()}}
        run = client.create_run(place, tags=tags, run_name=f"{row['optimizer']} seed {row['seed']}")
        points = [
            entities.Metric(metric, float(value), 0, int(step))
            for metric, (at, values) in curves.items()
            for step, value in zip(at, values, strict=True)
            if math.isfinite(value)
        ]
        parameters = [entities.Param(name, str(value)) for name, value in _parameters(row).items()]
        client.log_batch(run.info.run_id, params=parameters)
        for i in range(0, len(points), AT_ONCE):
            client.log_batch(run.info.run_id, metrics=points[i : i + AT_ONCE])
        client.set_terminated(run.info.run_id)


def _each(runs: Runs) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    from tqdm import tqdm

    for row in tqdm(runs.store.rows(runs.keys), desc="exporting", unit="run", disable=None):
        curves = {metric: runs.store.curve(row["key"], metric) for metric in runs.store.metrics()}
        yield row, {metric: curve for metric, curve in curves.items() if curve is not None}


def _parameters(row: dict[str, Any]) -> dict[str, Any]:
    plain = {"task": row["task"], "optimizer": row["optimizer"], "seed": row["seed"], "steps": row["steps"]}
    return plain | {name: x if isinstance(x, (int, float, str)) else str(x) for name, x in row["hyper"].items()}


def _finals(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row["metrics"].items() if name.startswith("final_") and value is not None}


def _in_a_folder(path: str | Path) -> Path:
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"there is no folder {Path(path).absolute().parent} to hold {Path(path).name}")
    return Path(path)


def _needs(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ValueError(f"this export needs {package}: pip install 'stepsize[export]'") from None
