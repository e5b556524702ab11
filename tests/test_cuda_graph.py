"""Tests of recorded steps, as far as a CPU can: the same runs as without, with a recorder that is not CUDA's."""

import numpy as np
import pytest
import torch
from stepsize import sweep
from stepsize.engines import cuda_graph
from stepsize.engines import sweep as engine
from stepsize.rules import RULES
from stepsize.tasks import TASKS

TASK = TASKS["digits-mlp"]


def again(function, inputs):
    """As ``record``, but every time it is played the function is called: on a CPU that is all there is."""
    outputs = function(*inputs)

    def play():
        for old, new in zip(outputs, function(*inputs), strict=True):
            old.copy_(new)

    return outputs, play


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_failed", [])
    monkeypatch.setattr(cuda_graph, "record", again)


def trained(rule, replayed, **options):
    task = cuda_graph.Replayed(TASK) if replayed else TASK
    mover = cuda_graph.ReplayedMoves if replayed else engine.Batched
    hypers = [RULES[rule].defaults | {"lr": lr} for lr in (0.01, 1e30, 0.003)]
    results = engine.train(
        task, [0, 0, 1], 12, torch.device("cpu"), lambda params: mover(RULES[rule], hypers, params), **options
    )
    return [result.curves for _, result in sorted(results, key=lambda pair: pair[0])]


@pytest.mark.parametrize("rule", RULES)
def test_recorded_runs_are_the_plain_ones(rule):
    factors = torch.linspace(1, 0, 12, dtype=torch.float64)[:, None].expand(12, 3)
    for options in ({}, {"factors": factors}, {"early_stop": True}):
        ours, plain = trained(rule, True, **options), trained(rule, False, **options)
        for mine, other in zip(ours, plain, strict=True):
            for name, (steps, values) in other.items():
                assert mine[name][0] == steps
                np.testing.assert_allclose(mine[name][1], values, rtol=1e-5, atol=1e-6)


def test_it_is_recorded_once_and_played_from_then_on():
    calls = []
    function = cuda_graph.Recorded(lambda x: [calls.append(1) or 2 * x])
    results = [float(function(torch.tensor(float(i)))[0]) for i in range(6)]
    assert results == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert len(function.records) == 1
    function(torch.ones(2))
    assert len(function.records) == 1, "another shape is begun anew"


def test_result_is_not_overwritten_by_the_next_one():
    function = cuda_graph.Recorded(lambda x: [x + 1])
    first, second = [function(torch.tensor(float(i)))[0] for i in range(6)][-2:]
    assert (float(first), float(second)) == (5.0, 6.0)


def test_what_cannot_be_recorded_is_launched_with_one_warning(monkeypatch):
    def fails(function, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graph, "record", fails)
    function = cuda_graph.Recorded(lambda x: [2 * x])
    with pytest.warns(RuntimeWarning, match="a step cannot be recorded .operation not permitted") as warned:
        assert [float(function(torch.tensor(3.0))[0]) for _ in range(6)] == [6.0] * 6
    assert len(warned) == 1


def test_on_a_cpu_nothing_is_recorded(monkeypatch):
    monkeypatch.setattr(cuda_graph, "Recorded", None)
    assert sweep("digits-mlp", {"sgd": {}}, seeds=1, steps=5, device="cpu", engine="batched").done == 1
