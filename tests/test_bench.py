"""Tests of the benchmark: every line of the table is there and is measured. Its times are judged by a reader."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stepsize import bench, cli
from stepsize.bench import step, sweep

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(monkeypatch):
    """The same code on less: one model, two optimizers, short sweeps."""
    monkeypatch.setattr(step, "MODELS", {"mlp": step.MODELS["mlp"], "resnet18": step.MODELS["mlp"]})
    monkeypatch.setattr(step, "NAMESAKES", {name: step.NAMESAKES[name] for name in ("AdamW", "RAdam")})
    medians = step._medians
    monkeypatch.setattr(step, "_medians", lambda makers, shapes, seconds: medians(makers, shapes, 0.01))
    monkeypatch.setattr(sweep, "STEPS", 50)
    monkeypatch.setattr(sweep, "_cores", lambda: 1)


@pytest.mark.slow
def test_quick_benchmark_prints_every_line_and_writes_a_record(small, tmp_path, capsys):
    before = torch.get_num_threads()
    path = tmp_path / "speed.json"
    assert cli.main(["bench", "--quick", "-o", str(path)]) == 0
    printed = capsys.readouterr().out
    record = json.loads(path.read_text())
    assert {line["id"] for line in record["lines"]} == bench.TARGETS.keys()
    for line in record["lines"]:
        assert line["what"] in printed
        assert line["ratio"] is None or line["ratio"] > 0
        assert (line["reached"] is None) == (line["ratio"] is None)
    (state,) = [line for line in record["lines"] if line["id"] == "state"]
    assert state["ratio"] == pytest.approx(0.5, abs=0.01)
    assert printed.count("not run on a GPU here") == len(bench.GPU)
    assert {"torch", "python", "machine", "cores", "compiler", "date"} <= record["made"].keys()
    assert torch.get_num_threads() == before


def test_missing_folder_of_the_record_is_named_before_anything_is_measured(capsys):
    assert cli.main(["bench", "-o", "nowhere/speed.json"]) == 2
    assert capsys.readouterr().err.endswith("nowhere to hold speed.json\n")


def test_reached_is_judged_on_the_printed_figure():
    assert bench._reached({"id": "step", "ratio": 1.004}) is True
    assert bench._reached({"id": "step", "ratio": 1.006}) is False
    assert bench._reached({"id": "cold", "ratio": 7.99}) is False
    assert bench._reached({"id": "jax", "ratio": None}) is None


def test_recorded_benchmark_is_a_whole_one_on_which_the_page_is_made():
    path = ROOT / "book" / "results" / "bench.json"
    if not path.exists():
        pytest.skip("there is no record of the benchmark: make bench writes it")
    record = json.loads(path.read_text())
    assert not record["quick"]
    assert {line["id"] for line in record["lines"]} == bench.TARGETS.keys()
    assert all(line["ratio"] is not None for line in record["lines"])
    assert {"parameters", "runs", "batch"} == record["growth"].keys()


def test_growth_with_runs_and_batch_size_is_measured():
    runs = sweep.growth(counts=(1, 4), steps=5)
    assert [row["runs"] for row in runs] == [1, 4]
    batches = sweep.batch_growth(sizes=(8, 128), runs=2, steps=5)
    assert all(row["examples_per_second"] > 0 for row in batches)
    assert all(row["compiled"] > 0 for row in step.growth(sizes=(160,), seconds=0.01))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU: make gpu runs everything")
def test_without_a_gpu_it_says_so_and_runs_nothing(capsys, monkeypatch):
    record = ROOT / "book" / "results" / "gpu.json"
    before = record.read_bytes() if record.exists() else None
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "gpu.py"), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out == "No GPU here: nothing was run, and no record was written.\n"
    assert (record.read_bytes() if record.exists() else None) == before


@pytest.mark.slow
def test_gpu_script_runs_with_torch_and_numpy_alone():
    """Rehearsed on the CPU, in a process in which nothing else can be imported."""
    absent = ["sklearn", "pandas", "tqdm", "scipy", "matplotlib", "PIL", "loky", "gymnasium", "jiwer", "babel"]
    code = (
        f"import runpy, sys\nfor name in {absent}: sys.modules[name] = None\n"
        f"sys.argv = ['gpu.py', '--rehearse']\nrunpy.run_path({str(ROOT / 'tools' / 'gpu.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stdout
    assert "ok       sweep" in done.stdout


def test_first_optimizer_does_not_pay_for_torchs_compiler():
    code = (
        "import sys, torch, stepsize.optim as optim\np = torch.nn.Parameter(torch.zeros(3))\n"
        "o = optim.Adam([p]); p.grad = torch.ones(3); o.step(); o.zero_grad(); o.load_state_dict(o.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
