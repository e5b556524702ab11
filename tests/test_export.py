"""Tests of what is written for other tools: it holds what the store holds, and nothing twice."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from stepsize import export, sweep

SETTINGS = {"adam": {"lr": [1e-2, 1e30]}, "lookahead": {"base": "sgdm", "lr": 0.1}}


@pytest.fixture(scope="module")
def runs():
    return sweep("digits-mlp", SETTINGS, seeds=2, steps=10)


def test_parquet_holds_every_run_every_curve_and_what_made_them(runs, tmp_path):
    path = runs.to_parquet(tmp_path / "runs.parquet")
    frame, ours = pd.read_parquet(path), runs.frame()
    for name in ("key", "lr", "seed", "final_test_error", "diverged", "seconds"):
        pd.testing.assert_series_equal(frame[name], ours[name], check_dtype=False)
    assert frame["betas"][0] == "(0.9, 0.999)"
    curves = pd.read_parquet(tmp_path / "runs-curves.parquet")
    for metric in ("batch_loss", "test_error"):
        one = curves[curves["metric"] == metric].drop(columns="metric").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, runs.curves(metric))
    header = json.loads(parquet.read_metadata(path).metadata[b"stepsize"])
    assert {made["engine"] for made in header} == {row["made"]["engine"] for row in runs.store.rows(runs.keys)}


def test_missing_folder_is_named(runs, tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere to hold runs\.parquet"):
        runs.to_parquet(tmp_path / "nowhere" / "runs.parquet")


@pytest.mark.slow
def test_tensorboard_reads_every_curve_and_a_second_export_adds_nothing(runs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs.to_tensorboard(tmp_path)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == len(runs) == 6
    key = runs.keys[0]
    (folder,) = [folder for folder in folders if folder.name.endswith(key[:8])]
    events = EventAccumulator(str(folder)).Reload()
    steps, values = runs.store.curve(key, "val_loss")
    scalars = events.Scalars("val_loss")
    assert [event.step for event in scalars] == steps.tolist()
    np.testing.assert_allclose([event.value for event in scalars], values)
    before = {file: file.stat().st_size for file in tmp_path.rglob("*")}
    runs.to_tensorboard(tmp_path)
    assert {file: file.stat().st_size for file in tmp_path.rglob("*")} == before


@pytest.mark.slow
def test_mlflow_holds_every_run_and_a_second_export_adds_nothing(runs, tmp_path):
    logging.disable(logging.INFO)
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):
        runs.to_mlflow(uri)
    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name("digits-mlp").experiment_id
    kept = {run.data.tags["stepsize_key"]: run for run in client.search_runs([place])}
    assert set(kept) == set(runs.keys)
    assert len(client.search_runs([place])) == 6
    run = kept[runs.keys[0]]
    assert run.data.params["lr"] == "0.01" and run.data.params["optimizer"] == "adam"
    history = client.get_metric_history(run.info.run_id, "test_error")
    steps, values = runs.store.curve(runs.keys[0], "test_error")
    assert sorted((m.step, round(m.value, 6)) for m in history) == [
        (s, round(float(v), 6)) for s, v in zip(steps, values, strict=True)
    ]


def test_missing_package_is_named_with_its_mend(runs, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(export, "import_module", missing)
    with pytest.raises(ValueError, match=r"this export needs mlflow-skinny: pip install 'stepsize\[export\]'"):
        runs.to_mlflow("sqlite:///x.db")
