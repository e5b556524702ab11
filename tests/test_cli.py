"""Tests of the ``stepsize`` command: its output, its exit codes and its one sentence for a mistake."""

import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
from stepsize import cli, store
from stepsize.rules import RULES
from stepsize.tasks import TASKS

ISSUE = "sweep digits-mlp -o sgd --lr 1e-3:1:7 --seeds 5 --steps 300 --store"


def run(text, capsys, *more):
    """Exit code, stdout and stderr of ``stepsize TEXT MORE…``."""
    try:
        code = cli.main([*text.split(), *more])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


class TestSweep:
    def test_shows_progress_prints_a_table_and_does_no_run_twice(self, tmp_path, capsys):
        path = str(tmp_path / "runs.db")
        code, first, progress = run(ISSUE, capsys, path)
        assert code == 0
        assert "training: 100%" in progress and "step/s" in progress
        rows = [line for line in first.splitlines() if "lr=" in line and "edge" not in line]
        assert [re.search(r"lr=(\S+)", row).group(1) for row in rows] == [
            "0.001", "0.003162", "0.01", "0.03162", "0.1", "0.3162", "1",
        ]  # fmt: skip
        assert [row.startswith("*") for row in rows].count(True) == 1
        assert "1 optimizer, 7 settings, 5 seeds, 300 steps a run: 35 runs." in first
        trained = re.search(
            r"35 trained now \(up to \d+ runs at a time, in this process(?:, \d threads)?\), 0 found in \S+\.", first
        )[0]
        assert "lr=1 is at the edge of its grid" in first
        code, second, progress = run(ISSUE, capsys, path)
        assert code == 0
        assert progress == ""
        assert second == first.replace(trained, f"0 trained now, 35 found in {path}.")

    def test_table_holds_what_the_store_holds(self, tmp_path, capsys):
        path = str(tmp_path / "runs.db")
        _, output, _ = run(
            "sweep digits-mlp -o sgdm -o nag:torch --lr 0.03,0.1 --seeds 3 --steps 40", capsys, "--store", path
        )
        for row in store.open(path).settings().itertuples():
            between = f"{row.low:.4f} to {row.high:.4f} +{row.best_mean:.4f}"
            line = f"{row.setting} +{row.mean:.4f} +{between} +3 +{row.train_loss:.4g} +0\n"
            assert re.search(line, output)
        assert "best of each optimizer" in output
        assert re.search(r"\n(sgdm|nag:torch) \(lr=0.1\) has the lowest test error on digits-mlp", output)

    def test_settings_in_the_name_of_the_optimizer_are_a_grid(self, tmp_path, capsys):
        words = ["-o", "adam:betas=[(0.9,0.99),(0.8,0.9)],weight_decay=1e-3", "-o", "sgdm:lr=0.5"]
        run("sweep digits-mlp --lr 0.01 --seeds 1 --steps 2 --store", capsys, str(tmp_path / "runs.db"), *words)
        frame = store.open(tmp_path / "runs.db").frame()
        adam = frame[frame["optimizer"] == "adam"]
        assert sorted(adam["betas"]) == [(0.8, 0.9), (0.9, 0.99)]
        assert set(adam["weight_decay"]) == {1e-3} and set(adam["lr"]) == {0.01}
        assert frame[frame["optimizer"] == "sgdm"]["lr"].tolist() == [0.5]

    def test_one_seed_gets_no_interval_and_another_metric_may_be_asked_for(self, capsys):
        code, output, _ = run("sweep digits-mlp -o sgd --lr 0.1 --seeds 1 --steps 5 --metric val_loss", capsys)
        assert code == 0
        assert "none (n=1)" in output and "val_loss" in output and "found in memory" in output

    def test_run_that_diverges_is_a_result(self, capsys):
        code, output, _ = run("sweep digits-mlp -o sgd --lr 0.1,1e30 --seeds 2 --steps 10", capsys)
        assert code == 0
        assert re.search(r"lr=1e\+30 .* 2\n", output)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sweep digits-mlp -o sgd --lr -1:1:3", "lr must be positive on a log grid, got -1"),
        ("sweep digits-mlp -o sgd --lr 0:1:3", "lr must be positive on a log grid, got 0"),
        ("sweep digits-mlp -o sgd --lr 1e-3:inf:3", "lr must be positive on a log grid, got inf"),
        ("sweep digits-mlp -o sgd --lr 0.1:1:0", "a grid must have 1 or more rates, got 0"),
        ("sweep digits-mlp -o sgd --lr -0.1", "lr must be 0 or more and finite, got -0.1"),
        (
            "sweep digits-mlp -o sgd --lr 1:2",
            "budget must say how many settings to draw, since lr of sgd is a range",
        ),
        ("sweep digits-mpl -o sgd", "no task named 'digits-mpl'; did you mean 'digits-mlp'?"),
        ("sweep digits-mlp -o sdg", "no optimizer named 'sdg'; did you mean 'sgd'?"),
        ("sweep digits-mlp -o sgdm:torhc", "sgdm has no deviation 'torhc'; did you mean 'torch'?"),
        ("sweep digits-mlp -o sgdm:momentun=0.9", "sgdm has no 'momentun'; did you mean 'momentum'?"),
        ("sweep digits-mlp -o sgdm:momentum=1.5", "momentum must be in [0, 1), got 1.5"),
        (
            "sweep digits-mlp -o sgd:lr=(",
            "the settings of 'sgd:lr=(' must be K=V,K=V with numbers, such as momentum=0.9",
        ),
        (
            "sweep digits-mlp -o sgd --lr 1:2:x",
            "lr must be LO:HI:N such as 1e-3:1:7, LO:HI to draw from, a list such as 0.1,0.3, or auto, got '1:2:x'",
        ),
        (
            "sweep digits-mlp -o sgd --lr 2:1 --budget 3",
            "a range to draw from on a log scale must be 0 < LO < HI, got 2 and 1",
        ),
        ("sweep digits-mlp -o sgd --interval z", "interval must be t or bootstrap, got z"),
        ("sweep digits-mlp -o sgd --schedule cosin", "no schedule named 'cosin'; did you mean 'cosine'?"),
        ("sweep digits-mlp -o sgd --steps 5 --warmup 5", "warmup_steps must be less than steps, 5, got 5"),
        ("sweep digits-mlp -o sgd --workers many", "workers must be a whole number, 1 or more, got many"),
        ("sweep digits-mlp -o sgd --checkpoint soon", "checkpoint must be a number of seconds, got soon"),
        (
            "sweep digits-mlp -o sgdm:momentum=[0.5,0.9] --lr auto",
            "lr of sgdm must be numbers, or 'auto' with one value of all else, "
            "got {'lr': 'auto', 'momentum': [0.5, 0.9]}",
        ),
        ("export nowhere.db --parquet x.parquet", "there is no store nowhere.db"),
        ("export nowhere.db", "nothing to write: give --parquet FILE, --tensorboard DIR or --mlflow URI"),
        ("sweep digits-mlp -o sgd --seeds 0", "seeds must be a whole number, 1 or more, got 0"),
        ("sweep digits-mlp -o sgd --steps x", "steps must be a whole number, 1 or more, got x"),
        (
            "sweep digits-mlp -o sgd --metric tset_error",
            "digits-mlp has no metric 'tset_error'; did you mean 'test_error'?",
        ),
        ("sweep digits-mlp -o sgd --device tpu", "device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
        (
            "sweep digits-mlp -o sgd --engine fast",
            "engine must be one of 'auto', 'native', 'compiled', 'batched', 'loop', got 'fast'",
        ),
        ("sweep digits-mlp -o sgd --sees 3", "unrecognized arguments: --sees 3 (see stepsize --help)"),
        ("sweep digits-mlp", "the following arguments are required: -o/--optimizer (see stepsize sweep --help)"),
        ("list optimizer", "there is no list of 'optimizer'; did you mean 'optimizers'?"),
        ("swep", "there is no command 'swep'; did you mean 'sweep'?"),
        ("", "the following arguments are required: COMMAND (see stepsize --help)"),
    ],
)
def test_mistake_in_the_input_exits_2_with_one_sentence(text, sentence, capsys):
    code, output, errors = run(text, capsys)
    assert code == 2
    assert output == ""
    assert errors == f"stepsize: {sentence}\n"


def test_file_that_is_no_store_exits_2_and_is_left_alone(tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 100)
    code, _, errors = run("sweep digits-mlp -o sgd --lr 0.1 --seeds 1 --steps 1 --store", capsys, str(path))
    assert code == 2
    assert errors == f"stepsize: {path} is not a store of stepsize; nothing was changed\n"
    assert path.read_text() == "my notes\n" * 100


@pytest.mark.parametrize("command", ["", "list", "sweep", "export", "doctor"])
def test_help_teaches_by_example(command, capsys):
    code, output, _ = run(f"{command} --help", capsys)
    assert code == 0
    examples = output.partition("examples:")[2].strip().splitlines()
    assert examples[0].strip().startswith(f"stepsize {command}".strip())
    for line in examples:
        if line.strip().startswith("stepsize ") and "sweep" in line:
            words = shlex.split(line)[1:]
            given = cli._parser().parse_args(words)
            assert cli._optimizers(given.optimizer, cli._rates(given.lr))


class TestLists:
    def test_optimizers_are_listed_with_paper_year_memory_and_variants(self, capsys):
        _, output, _ = run("list optimizers", capsys)
        lines = {line.split()[0]: line for line in output.splitlines() if line.strip()}
        for name, rule in RULES.items():
            assert str(rule.year) in lines[name] and rule.memory in lines[name]
        assert "Robbins & Monro" in lines["sgd"]
        assert lines["sgdm"].split()[-2:] == ["torch,", "average"]
        assert "weight_rescaling" in lines

    def test_tasks_are_listed_with_metric_and_time(self, capsys):
        _, output, _ = run("list tasks", capsys)
        for task in TASKS.values():
            assert {task.name, f"    {task.description}"} <= set(output.splitlines())
            assert task.metric in output
            if not task.name.endswith("@full"):
                better = "at least" if task.metric in task.larger else "at most"
                assert f"{task.steps} steps take about {task.seconds:g} s" in output
                assert f"{task.metric} {better} {task.target:g}" in output

    def test_reports_are_listed_with_question_and_parameters(self, capsys):
        _, output, _ = run("list reports", capsys)
        assert "compare\n    Which optimizer is best" in output
        assert '    optimizers = "sgd,sgdm,nag"' in output

    def test_claims_are_listed_with_their_source(self, capsys):
        _, output, _ = run("list claims", capsys)
        assert "sgd-lr-dilemma\n    A fixed rate is too slow" in output


class TestDoctor:
    def test_healthy_machine_exits_0_and_names_the_versions(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, output, _ = run("doctor", capsys)
        assert code == 0
        for package in ("torch", "numpy", "pandas", "scikit-learn"):
            assert re.search(rf"^ok +{package} +{re.escape(metadata.version(package))}", output, re.MULTILINE)
        assert "threads" in output and "GPU" in output and "can be written to" in output
        assert not list(tmp_path.iterdir())

    def test_what_is_missing_is_named_with_its_mend(self, capsys, monkeypatch):
        monkeypatch.setattr(cli.shutil, "which", lambda name: None)
        code, output, _ = run("doctor", capsys)
        assert code == 0
        assert re.search(r"^without +chromium +needed only for PDF: apt install chromium$", output, re.MULTILINE)
        assert re.search(r"^without +bubblewrap +needed only to grade safely: ", output, re.MULTILINE)

    def test_lack_that_stops_the_chapters_exits_1(self, capsys, monkeypatch):
        def missing(package):
            raise metadata.PackageNotFoundError(package)

        monkeypatch.setattr(cli.metadata, "version", missing)
        code, output, _ = run("doctor", capsys)
        assert code == 1
        assert re.search(r"^MISSING +numpy +not installed: pip install numpy$", output, re.MULTILINE)


def test_output_cut_short_by_its_reader_is_no_error():
    command = f"{sys.executable} -m stepsize.cli list optimizers | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("name")
    assert done.stderr == ""
