"""Tests that a sweep survives: kills at random moments, processes that die, a cluster that loses a worker."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from stepsize import store, sweep
from stepsize.engines import sweep as engine
from stepsize.store import Store
from stepsize.sweep import plan
from stepsize.tasks import TASKS

TASK = "digits-mlp"
# All that a checkpoint must hold: rules with one and two states, wrappers, a schedule, runs that are ended early.
SWEEP = {
    "adam": {"lr": [1e-3, 1e-2, 1e30], "schedule": "cosine", "warmup_steps": 5},
    "novograd": {"lr": [1e-2, 1e-1]},
    "lookahead": {"base": "adam", "lr": 1e-2},
    "swats": {"lr": 1e-3},
}
OPTIONS = {"seeds": 3, "steps": 240, "early_stop": True}


def everything(path):
    """All that a store keeps of its runs but the time they took."""
    runs = store.open(path)
    # The columns follow the order in which the runs were kept, and of two processes either may be the first.
    frame = runs.frame().drop(columns="seconds").sort_values("key", ignore_index=True).sort_index(axis=1)
    curves = {
        metric: runs.curves(metric).sort_values(["key", "step"], ignore_index=True) for metric in runs.store.metrics()
    }
    return frame, curves


def same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    assert one[1].keys() == other[1].keys()
    for metric, curve in one[1].items():
        pd.testing.assert_frame_equal(curve, other[1][metric], check_exact=True)


# Forks before it trains: a process that only has to begin is at work at once, so twenty lives are short.
LIVES = """
import json, os, random, signal, sys, time
import stepsize.sweep, stepsize.tasks, torch._dynamo, sklearn.datasets, sklearn.model_selection
path, sweeps, options, seed = sys.argv[1], *map(json.loads, sys.argv[2:])
stepsize.tasks.TASKS["digits-mlp"].data
drawn, killed = random.Random(seed), 0
while True:
    child = os.fork()
    if child == 0:
        stepsize.sweep("digits-mlp", sweeps, store=path, checkpoint=0.0, workers=1, progress=False, **options)
        os._exit(0)
    began, life = time.monotonic(), drawn.uniform(0.05, 0.5) if killed < 20 else float("inf")
    while time.monotonic() - began < life:
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.005)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        continue
    print(json.dumps({"killed": killed, "code": code}))
    break
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "runs.db"
    sweep(TASK, SWEEP, store=path, workers=1, **OPTIONS)
    return everything(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork, and a kill needs many short lives")
def test_sweep_killed_twenty_times_at_random_moments_ends_bit_for_bit_as_an_unbroken_one(tmp_path, unbroken):
    path = tmp_path / "runs.db"
    words = [str(path), json.dumps(SWEEP), json.dumps(OPTIONS), "0"]
    done = subprocess.run(
        [sys.executable, "-c", LIVES, *words], capture_output=True, text=True, timeout=600, check=True
    )
    outcome = json.loads(done.stdout)
    assert outcome == {"killed": 20, "code": 0}, done.stderr
    same(everything(path), unbroken)
    assert not Store(path)._db.execute("SELECT count(*) FROM checkpoints").fetchone()[0]


class TestCheckpoints:
    @pytest.mark.parametrize(
        "name", ["adam", "novograd", "adafactor", "lookahead", "swats", "ranger", "weight_rescaling"]
    )
    def test_run_resumed_from_its_middle_is_the_unbroken_one(self, name, tmp_path, monkeypatch):
        """Stopped after step 15, whose checkpoint is the last that is written."""
        path, whole = tmp_path / "runs.db", tmp_path / "whole.db"
        arguments = {"task": TASK, "optimizers": {name: {"schedule": "poly"}}, "seeds": 2, "steps": 30}
        sweep(**arguments, store=whole)
        gradient, taken = TASKS[TASK].gradient, []

        def stop_in_the_middle(*given):
            taken.append(given)
            if len(taken) == 16:
                raise KeyboardInterrupt
            return gradient(*given)

        monkeypatch.setattr(engine, "CHECKPOINT_SHARE", 1e9)
        with monkeypatch.context() as patch:
            patch.setattr(TASKS[TASK], "gradient", stop_in_the_middle)
            with pytest.raises(KeyboardInterrupt):
                sweep(**arguments, store=path, checkpoint=0.0)
        begun = Store(path).checkpoints(plan(**arguments))
        assert set(begun.values()) == {15}
        seen = []
        monkeypatch.setattr(TASKS[TASK], "gradient", lambda *given: (seen.append(1), gradient(*given))[1])
        sweep(**arguments, store=path)
        steps = 15 + (30 if name in ("lookahead", "swats", "ranger", "weight_rescaling") else 0)
        assert len(seen) == steps, "it began anew"
        same(everything(path), everything(whole))

    def test_damaged_checkpoint_costs_time_and_nothing_else(self, tmp_path):
        path = tmp_path / "runs.db"
        arguments = {"task": TASK, "optimizers": {"sgd": {"lr": 0.1}}, "seeds": 2, "steps": 10}
        (one, two) = plan(**arguments)
        Store(path).checkpoint({one: (5, b"not what torch wrote"), two: (5, b"")})
        assert sweep(**arguments, store=path).done == 2
        assert not Store(path).checkpoints([one, two])

    def test_checkpoint_holds_no_code(self, tmp_path):
        import io
        import pickle

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "sprung"),)

        file = io.BytesIO()
        torch.save({"step": Trap()}, file)
        with pytest.raises((pickle.UnpicklingError, RuntimeError)):
            engine.Checkpoint.from_bytes(file.getvalue())
        assert not (tmp_path / "sprung").exists()


class TestEarlyStop:
    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls):
        return sweep(TASK, {"sgd": {"lr": [0.3, 1e30, 1e-9, 20.0]}}, seeds=[4, 7], steps=200, early_stop=True)

    def test_hopeless_runs_end_and_say_when(self, runs):
        frame = runs.frame()
        stopped = frame.groupby("lr")["stopped"].first()
        assert stopped[1e30] == 20
        assert frame[frame["lr"] == 1e30]["diverged"].all()
        assert frame[frame["lr"] == 0.3]["stopped"].isna().all()
        assert 50 <= frame[frame["lr"] == 20.0]["stopped"].min() <= 200

    def test_the_others_are_what_they_are_alone(self, runs):
        alone = sweep(TASK, {"sgd": {"lr": [0.3]}}, seeds=[4, 7], steps=200)
        ours = runs.frame().query("lr == 0.3").drop(columns=["seconds", "key"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(ours, alone.frame().drop(columns=["seconds", "key"]))

    def test_it_is_another_run_than_one_that_goes_its_whole_way(self):
        arguments = {"task": TASK, "optimizers": {"sgd": {}}, "seeds": 1, "steps": 5}
        assert not plan(**arguments).keys() & plan(**arguments, early_stop=True).keys()


@pytest.mark.slow
class TestProcesses:
    def test_two_processes_train_what_one_trains(self, tmp_path, unbroken):
        path = tmp_path / "runs.db"
        runs = sweep(TASK, SWEEP, store=path, workers=2, **OPTIONS)
        assert runs.done == 21
        assert runs.how.endswith("2 processes")
        same(everything(path), unbroken)

    def test_without_a_file_the_rows_come_back(self):
        runs = sweep(TASK, {"sgd": {"lr": [0.1, 0.3]}}, seeds=8, steps=10, workers=2)
        here = sweep(TASK, {"sgd": {"lr": [0.1, 0.3]}}, seeds=8, steps=10, workers=1)
        columns = ["key", "final_train_loss", "diverged"]
        pd.testing.assert_frame_equal(runs.frame()[columns], here.frame()[columns])

    def test_process_that_is_killed_gets_a_sentence_and_the_sweep_goes_on_from_there(self, tmp_path):
        path = tmp_path / "runs.db"
        words = "sweep digits-mlp -o adam --lr 1e-3:1e-1:16 --seeds 4 --steps 6000 --workers 2 --checkpoint 0.2"
        command = [sys.executable, "-m", "stepsize.cli", *words.split(), "--store", str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait(lambda: path.exists() and Store(path).checkpoints(plan_of(words)))
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        workers = [int(pid) for pid in children.stdout.split() if "loky" in command_of(int(pid))]
        os.kill(workers[-1], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert errors.splitlines()[-1].startswith("stepsize: a process of the sweep was killed, perhaps for want of")
        assert Store(path).checkpoints(plan_of(words)) or Store(path).keys()
        for pid in workers:
            wait(lambda pid=pid: not command_of(pid))


def plan_of(words):
    from stepsize.sweep import log_grid

    return plan(TASK, {"adam": {"lr": log_grid(1e-3, 1e-1, 16)}}, seeds=4, steps=6000)


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def wait(condition, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"nothing happened within {seconds} s")


@pytest.mark.slow
class TestCluster:
    @pytest.fixture
    @classmethod
    def cluster(cls):
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster:
            yield cluster

    def test_sweep_loses_nothing_and_does_nothing_twice_when_a_worker_is_killed(self, cluster, tmp_path):
        path = tmp_path / "runs.db"
        lr = [1e-3, 1e-2, 0.1, 1.0]
        arguments = {"task": TASK, "optimizers": {"adam": {"lr": lr}, "sgd": {"lr": lr}}, "seeds": 4, "steps": 100}
        kept, killed = Store.add, []

        def add_and_kill(self, rows):
            kept(self, rows)
            if not killed:
                # In the middle: one piece is in the store, others are in training on both workers.
                victim = next(iter(cluster.workers.values()))
                killed.append(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "add", add_and_kill)
            runs = sweep(**arguments, store=path, cluster=cluster.scheduler_address)
        assert killed
        assert "a cluster of 2 workers" in runs.how
        assert (runs.done, len(runs)) == (32, 32)
        sweep(**arguments, store=tmp_path / "here.db", workers=1)
        same(everything(path), everything(tmp_path / "here.db"))
        again = sweep(**arguments, store=path, cluster=cluster)
        assert (again.done, again.found) == (0, 32)

    def test_client_is_taken_and_left_open(self, cluster):
        from distributed import Client

        with Client(cluster, set_as_default=False) as client:
            assert sweep(TASK, {"sgd": {}}, seeds=1, steps=3, cluster=client).done == 1
            assert client.status == "running"


def test_address_at_which_nothing_answers_gets_a_sentence(monkeypatch):
    from stepsize.distributed import executors

    monkeypatch.setattr(executors, "PATIENCE", 0.5)
    with pytest.raises(
        ValueError, match="cluster must be the address of a dask scheduler such as tcp://host:8786"
    ) as caught:
        sweep(TASK, {"sgd": {}}, seeds=1, steps=1, cluster="tcp://127.0.0.1:9")
    assert "\n" not in str(caught.value)
