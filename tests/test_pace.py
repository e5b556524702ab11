"""Tests of how a sweep chooses how many runs to train at once, and where: by what it measures."""

import pytest
from stepsize.distributed import executors
from stepsize.engines import pace
from stepsize.engines.pace import Pace
from stepsize.sweep import log_grid, plan, sweep
from stepsize.tasks import TASKS, Task


def measured(monkeypatch, seconds, task="digits-mlp", most=32):
    """What is chosen where a step of so many runs takes ``seconds(runs)``, and what was asked for that."""
    asked = []
    monkeypatch.setattr(pace, "_work", lambda task, native, runs: runs)
    monkeypatch.setattr(pace, "_seconds", lambda runs: (asked.append(runs), seconds(runs))[1])
    return pace.measure(TASKS[task], False, most), asked


def test_more_runs_at_once_are_tried_unless_each_costs_more(monkeypatch):
    found, asked = measured(monkeypatch, lambda runs: 1 + 0.1 * runs)
    assert found == Pace(32, pytest.approx(4.2 / 32))
    assert asked == [4, 8, 16, 32]
    found, asked = measured(monkeypatch, lambda runs: runs * (1.0 if runs <= 8 else 2.0))
    assert found == Pace(8, 1.0)
    assert asked == [4, 8, 16]
    found, asked = measured(monkeypatch, lambda runs: runs, most=6)
    assert (found, asked) == (Pace(6, 1.0), [4, 6])


def test_runs_that_go_one_after_another_anyway_are_measured_alone(monkeypatch):
    found, asked = measured(monkeypatch, lambda runs: 3.0, task="digits-resnet")
    assert found == Pace(32, 3.0)
    assert asked == [1]


def test_measurement_is_of_the_task_itself_and_not_of_its_neighbours():
    found = pace.measure(TASKS["digits-mlp"], False, 8)
    assert found.size in (4, 8)
    assert 1e-5 < found.seconds < 1e-2


def test_no_more_is_measured_than_is_said(monkeypatch):
    taken = []
    gradient = Task.gradient
    monkeypatch.setattr(
        Task, "gradient", lambda self, p, *rest: (taken.append(len(p["hidden.bias"])), gradient(self, p, *rest))[1]
    )
    monkeypatch.setattr(pace, "LOSS", 1e9)
    pace.measure(TASKS["digits-mlp"], False, 32)
    assert 4 * 32 < sum(taken) <= pace.run_steps(32)


def todo(task, steps, runs, engine="batched"):
    return list(plan(task, {"adam": {"lr": log_grid(1e-3, 1e-1, runs)}}, seeds=1, steps=steps, engine=engine).values())


@pytest.mark.parametrize(
    ("engine", "seconds", "chosen"),
    [
        ("batched", 0.4e-3, "in this process, 2 threads"),
        ("batched", 0.5e-3, "2 processes"),
        ("native", 1.0, "in this process, 2 threads"),
    ],
)
def test_processes_are_for_work_that_was_measured_to_be_long(monkeypatch, engine, seconds, chosen):
    monkeypatch.setattr(executors, "_cores", lambda: 2)
    runs = todo("digits-mlp", 1000, 32, engine)
    paces = {("digits-mlp", engine): Pace(32, seconds)}
    assert str(executors.here_or_in_processes("auto", runs, paces)) == chosen
    assert str(executors.here_or_in_processes(1, runs, paces)) == "in this process"
    assert str(executors.here_or_in_processes(3, runs, paces)) == "3 processes"


def test_short_sweeps_pay_for_no_measurement(monkeypatch):
    monkeypatch.setattr(executors, "measure", lambda *given: pytest.fail("it measures"))
    assert executors.paces(todo("digits-mlp", 300, 8)) == {}
    assert executors.paces(todo("digits-resnet", 3, 8)) == {}
    monkeypatch.setattr(executors, "measure", lambda *given: Pace(8, 1.0))
    assert executors.paces(todo("digits-mlp", 3000, 32)) == {("digits-mlp", "batched"): Pace(8, 1.0)}


def test_choice_changes_no_bits(monkeypatch):
    runs = {"sgd": {"lr": log_grid(0.01, 1, 12)}}
    plain = sweep("digits-mlp", runs, seeds=1, steps=20, engine="batched")
    monkeypatch.setattr(executors, "LONG", 0.0)
    monkeypatch.setattr(executors, "SHARE", 0)
    monkeypatch.setattr(executors, "measure", lambda *given: Pace(5, 1e-3))
    monkeypatch.setattr(executors, "_cores", lambda: 1)
    ours = sweep("digits-mlp", runs, seeds=1, steps=20, engine="batched")
    assert ours.how == "up to 4 runs at a time, in this process"
    assert ours.frame()["final_train_loss"].tolist() == plain.frame()["final_train_loss"].tolist()
