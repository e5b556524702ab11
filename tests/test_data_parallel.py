"""Tests of data-parallel training: two processes on shares of a batch are one process on the whole."""

import json
import subprocess
import sys

import pytest
import torch

COMMAND = ["-m", "stepsize.distributed.data_parallel"]


def run(*words, processes=1, timeout=240):
    """Exit code, stdout and stderr of the command, under torchrun for several processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launch, *COMMAND, *words], capture_output=True, text=True, timeout=timeout, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["novograd", "adam"])
def test_two_processes_on_gloo_are_one_on_the_whole_batch(name, tmp_path):
    files = [tmp_path / "one.pt", tmp_path / "two.pt"]
    metrics = []
    for processes, file in zip((1, 2), files, strict=True):
        words = ["digits-mlp", "-o", name, "--set", "lr=0.01", "--steps", "60", "--save", str(file)]
        code, output, errors = run(*words, processes=processes)
        assert code == 0, errors
        metrics.append(json.loads(output.splitlines()[-1]))
    one, two = (torch.load(file, weights_only=True) for file in files)
    for key, value in one.items():
        # A sum of 128 gradients and a mean of two sums of 64 are rounded differently.
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=2e-6)
    assert metrics[1]["train_loss"] == pytest.approx(metrics[0]["train_loss"], rel=1e-5)
    assert metrics[0]["test_error"] < 0.2


def test_one_process_is_the_sweep_alone():
    from stepsize import sweep
    from stepsize.distributed.data_parallel import train
    from stepsize.search import grid
    from stepsize.tasks import TASKS

    task = TASKS["digits-mlp"]
    (hyper,) = grid("nag", {"lr": 0.1})
    params = train(task, "nag", hyper, seed=3, steps=20)
    runs = sweep("digits-mlp", {"nag": {"lr": 0.1}}, seeds=[3], steps=20, engine="loop")
    loss = task.measure({name: p[None] for name, p in params.items()})["train_loss"].item()
    assert runs.frame()["final_train_loss"][0] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["digits-mpl"], "no task named 'digits-mpl'; did you mean 'digits-mlp'?"),
        (["digits-mlp", "--set", "rate=1"], "adamw has no 'rate'"),
        (["digits-resnet"], "the batches of digits-resnet cannot be shared: its loss is not a mean over their rows"),
    ],
)
def test_mistake_exits_2_with_one_sentence(words, sentence, monkeypatch, capsys):
    from stepsize.distributed import data_parallel

    monkeypatch.setattr(sys, "argv", ["data_parallel", *words])
    assert data_parallel.main() == 2
    assert capsys.readouterr().err.startswith(f"stepsize: {sentence}")
