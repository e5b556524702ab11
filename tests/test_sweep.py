"""Tests of the sweep: the same runs as a plain loop, the same bits in any company, and each run once."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import stepsize
import torch
from scipy.stats import loguniform
from stepsize import schedules, store, sweep
from stepsize.distributed import executors
from stepsize.engines import sweep as engine
from stepsize.fingerprint import rule_hash
from stepsize.optim import OPTIMIZERS
from stepsize.rules import RULES
from stepsize.runs import Runs
from stepsize.sweep import WRAPPERS, grid, log_grid, plan
from stepsize.tasks import TASKS, Task
from torch.nn import functional as F

TASK = "digits-mlp"
each_rule = pytest.mark.parametrize("name", RULES)


def losses(runs):
    """The batch losses, one row per run, in the order of the runs."""
    curves = runs.curves("batch_loss")
    return np.stack([curves[curves["key"] == key]["value"].to_numpy() for key in runs.keys])


class TestAgainstAPlainLoop:
    def test_sgd_is_what_anyone_would_write_with_torch(self):
        """Nothing of ours but the start and the order of the images."""
        task = TASKS[TASK]
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        for p, start in zip(model.parameters(), task.init(2).values(), strict=True):
            p.data.copy_(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        x, y = task.data["train"]
        expected = []
        for (places,) in itertools.islice(task.batches(2), 50):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[places]), y[places])
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
        runs = sweep(TASK, {"sgd": {"lr": [0.1, 0.3]}}, seeds=[0, 2], steps=50)
        assert losses(runs)[3] == pytest.approx(expected, rel=2e-5)
        x, y = task.data["test"]
        error = (model(x).argmax(1) != y).double().mean().item()
        assert runs.frame()["final_test_error"][3] == pytest.approx(error, abs=1e-6)

    @pytest.mark.parametrize("engine", ["compiled", "batched"])
    @each_rule
    def test_every_rule_in_a_batch_is_its_optimizer_alone(self, name, engine):
        settings = {name: {"lr": [0.003, 0.01]}}
        batched = sweep(TASK, settings, seeds=2, steps=20, engine=engine)
        alone = sweep(TASK, settings, seeds=2, steps=20, engine="loop")
        np.testing.assert_allclose(losses(batched), losses(alone), rtol=1e-4, atol=1e-6)
        assert batched.frame()["state_bytes"].tolist() == alone.frame()["state_bytes"].tolist()
        assert not set(batched.keys) & set(alone.keys)

    @pytest.mark.parametrize("engine", ["compiled", "batched"])
    def test_every_number_may_differ_between_the_runs_of_a_batch(self, engine):
        settings = {"adam": {"betas": [(0.9, 0.999), (0.5, 0.9)], "eps": [1e-8, 1e-3], "weight_decay": [0, 0.1]}}
        together = sweep(TASK, settings, seeds=1, steps=10, engine=engine)
        alone = sweep(TASK, settings, seeds=1, steps=10, engine="loop")
        np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-4)
        assert len({tuple(row) for row in losses(together)}) == 8

    @pytest.mark.parametrize("engine", ["compiled", "batched", "loop"])
    def test_schedule_is_torchs_scheduler(self, engine):
        """Two warm-ups in one batch, against a plain loop with ``LambdaLR``."""
        task, x, y = TASKS[TASK], *TASKS[TASK].data["train"]
        runs = sweep(
            TASK, {"adam": {"lr": 0.01, "warmup_steps": [0, 5]}}, seeds=[1], steps=20, schedule="cosine", engine=engine
        )
        for row, warmup in zip(losses(runs), (0, 5), strict=True):
            params = {key: p.requires_grad_() for key, p in task.init(1).items()}
            optimizer = torch.optim.Adam(params.values(), lr=0.01)
            scheduler = schedules.scheduler(optimizer, "cosine", 20, warmup_steps=warmup)
            expected = []
            for (places,) in itertools.islice(task.batches(1), 20):
                optimizer.zero_grad()
                loss = F.cross_entropy(task.forward(params, x[places]), y[places])
                loss.backward()
                optimizer.step()
                scheduler.step()
                expected.append(loss.item())
            assert row == pytest.approx(expected, rel=2e-5)

    @pytest.mark.parametrize("name", WRAPPERS)
    def test_optimizers_that_are_no_rule_run_too(self, name):
        runs = sweep(TASK, {name: {"lr": [0.01]}}, seeds=2, steps=40)
        frame = runs.frame()
        assert (frame["final_train_loss"] < runs.curves("train_loss")["value"].max()).all()
        assert runs.store.rows(runs.keys)[0]["made"]["engine"] == "loop"


class TestBits:
    @each_rule
    def test_run_is_the_same_alone_and_beside_seven_others_one_of_them_nan(self, name):
        lrs = [0.01, 0.001, 0.003, 1e30, 0.02, 0.03, 0.1, 0.3]
        together = losses(sweep(TASK, {name: {"lr": lrs}}, seeds=[5], steps=20))
        alone = losses(sweep(TASK, {name: {"lr": lrs[:1]}}, seeds=[5], steps=20))
        assert np.array_equal(together[0], alone[0], equal_nan=True)
        assert np.isfinite(together[0][0])

    def test_threads_train_what_one_trains(self, monkeypatch):
        settings = {"novograd": {"lr": log_grid(0.001, 0.1, 8)}}
        here = sweep(TASK, settings, seeds=3, steps=30, workers=1)
        monkeypatch.setattr(executors, "_cores", lambda: 2)
        threads = sweep(TASK, settings, seeds=3, steps=30)
        assert threads.how == "up to 12 runs at a time, in this process, 2 threads"
        assert np.array_equal(losses(threads), losses(here))

    def test_pieces_give_what_the_whole_gives(self, monkeypatch):
        settings = {"nag": {"lr": log_grid(0.01, 1, 5)}}
        whole = losses(sweep(TASK, settings, seeds=2, steps=20))
        monkeypatch.setattr(engine, "RUNS", 4)
        assert np.array_equal(whole, losses(sweep(TASK, settings, seeds=2, steps=20)))

    def test_threads_are_one_inside_and_as_before_outside(self, monkeypatch):
        before = torch.get_num_threads()
        seen = []
        measure = Task.measure
        monkeypatch.setattr(
            Task, "measure", lambda *arguments: (seen.append(torch.get_num_threads()), measure(*arguments))[1]
        )
        try:
            torch.set_num_threads(2)
            sweep(TASK, {"sgd": {"lr": [0.1]}}, seeds=1, steps=2)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert set(seen) == {1}

    def test_memory_bounds_how_many_runs_are_trained_at_once(self, monkeypatch):
        task, rule = TASKS[TASK], RULES["adam"]
        assert engine.chunk_size(task, rule) == engine.RUNS
        monkeypatch.setattr(engine, "MEMORY", 3 * 4 * 4810 * 8)
        assert engine.chunk_size(task, rule) == 3
        monkeypatch.setattr(engine, "MEMORY", 1)
        assert engine.chunk_size(task, rule) == 1


class TestDivergence:
    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls):
        return sweep(TASK, {"sgd": {"lr": [1e30, 0.3, 30.0]}}, seeds=3, steps=40)

    def test_it_is_recorded_and_nothing_crashes(self, runs):
        frame = runs.frame()
        assert frame[frame["lr"] == 1e30]["diverged"].all()
        assert not frame[frame["lr"] == 0.3]["diverged"].any()
        assert frame[frame["lr"] == 1e30]["final_test_error"].isna().all()

    def test_it_ranks_last_and_counts_as_untrained(self, runs):
        settings = runs.settings("test_error").set_index("lr")
        assert settings["chosen"].to_dict() == {1e30: False, 0.3: True, 30.0: False}
        assert settings["diverged"][1e30] == 3
        start = runs.curves("test_error").query("step == 0")["value"]
        assert settings["mean"][1e30] == pytest.approx(start.iloc[:3].mean())
        assert runs.summary("test_error")["lr"].tolist() == [0.3]

    def test_ending_far_above_the_start_is_divergence_too(self):
        frame = sweep(TASK, {"sgd:ascent": {"lr": [0.3]}}, seeds=1, steps=40).frame()
        assert math.isfinite(frame["final_train_loss"][0])
        assert frame["diverged"].all()

    @each_rule
    def test_no_rule_diverges_at_its_defaults(self, name):
        frame = sweep(TASK, {name: {}}, seeds=2, steps=30).frame()
        assert not frame["diverged"].any()


class TestTables:
    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls):
        return sweep(
            task=TASK,
            optimizers={"adam": {"lr": [1e-3, 1e-2]}, "novograd": {"lr": [1e-2]}},
            seeds=range(5),
            steps=60,
            store=None,
            device="auto",
            engine="auto",
            progress=True,
            cluster=None,
        )

    def test_frame_has_one_row_per_run_and_the_promised_columns(self, runs):
        frame = runs.frame()
        assert len(frame) == 15
        promised = {"task", "optimizer", "lr", "seed", "diverged", "seconds", "state_bytes", "key"}
        promised |= {f"{moment}_{metric}" for moment in ("final", "best") for metric in TASKS[TASK].metrics}
        assert promised <= set(frame.columns)
        assert frame["key"].is_unique
        assert frame[frame["optimizer"] == "adam"]["betas"].tolist() == [(0.9, 0.999)] * 10
        assert (frame["best_val_error"] <= frame["final_val_error"]).all()
        assert frame.groupby("optimizer")["state_bytes"].first()["adam"] == 2 * 4 * 4810

    def test_curves_are_tidy_and_end_at_the_final_value(self, runs):
        curves = runs.curves("test_error")
        assert curves.columns.tolist() == ["key", "step", "value"]
        ends = curves[curves["step"] == 60].set_index("key")["value"]
        finals = runs.frame().set_index("key")["final_test_error"]
        pd.testing.assert_series_equal(ends.sort_index(), finals.sort_index(), check_names=False)

    def test_curve_of_a_long_run_stays_small(self):
        runs = sweep(TASK, {"sgd": {"lr": [0.1]}}, seeds=1, steps=1000)
        assert 200 <= len(runs.curves("batch_loss")) <= 400
        assert len(runs.curves("test_error")) == engine.EVALUATIONS + 1

    def test_choice_is_made_on_validation_and_reported_on_test(self, runs):
        frame = runs.frame()
        means = frame.groupby(["optimizer", "lr"])[["final_val_error", "final_test_error"]].mean()
        summary = runs.summary("test_error", budget="all").set_index("optimizer")
        chosen = means["final_val_error"]["adam"].idxmin()
        assert summary["lr"]["adam"] == chosen
        assert summary["mean"]["adam"] == pytest.approx(means["final_test_error"]["adam"][chosen])
        assert summary["grid_edge"].to_dict() == {"adam": True, "novograd": False}

    def test_equal_budget_lets_none_choose_among_more_than_another(self, runs):
        frame = runs.frame()
        summary = runs.summary("test_error", budget="equal").set_index("optimizer")
        adam = frame[frame["optimizer"] == "adam"]
        assert summary["budget"].tolist() == [1, 1]
        assert summary["settings"]["adam"] == 2
        assert summary["mean"]["adam"] == pytest.approx(adam["final_test_error"].mean())
        with pytest.raises(ValueError, match="budget must be 'equal', 'all' or from 1 to 1, got 2"):
            runs.summary("test_error", budget=2)

    def test_final_and_best_are_kept_apart(self, runs):
        summary = runs.summary("test_error", budget="all")
        assert (summary["best_mean"] <= summary["mean"]).all()
        assert (summary["best_mean"] < summary["mean"]).any()

    def test_answer_names_the_leader_and_whom_it_beats(self, runs):
        answer = runs.answer("test_error")
        assert answer.startswith("**adam** (lr=0.01) has the lowest test error on digits-mlp")
        assert "It beats novograd (+" in answer

    def test_answer_on_one_seed_concludes_nothing(self):
        runs = sweep(TASK, {"sgd": {"lr": [0.1]}, "nag": {"lr": [0.1]}}, seeds=1, steps=20)
        assert runs.answer("test_error").endswith("That is one seed of each, from which nothing follows.")
        assert runs.summary("test_error")["low"].isna().all()

    def test_answer_in_another_metric_is_in_its_unit(self, runs):
        mean = runs.summary("val_loss", budget="all")["mean"][0]
        assert f"has the lowest val loss on digits-mlp: {mean:.4g} [" in runs.answer("val_loss")

    def test_expectation_is_over_the_seeds_that_every_setting_has(self):
        few = sweep(TASK, {"sgd": {"lr": [0.1]}, "nag": {"lr": [0.1]}}, seeds=3, steps=5)
        more = sweep(TASK, {"sgd": {"lr": [0.3]}}, seeds=2, steps=5)
        few.store.add([row | {"curves": {}} for row in more.store.rows(more.keys)])
        runs = Runs(few.store, few.keys + more.keys)
        summary = runs.summary("train_loss", budget=1).set_index("optimizer")
        assert summary["n"].to_dict() == {"sgd": 2, "nag": 3}
        both = runs.frame().query("optimizer == 'sgd' and seed < 2")["final_train_loss"]
        assert summary["mean"]["sgd"] == pytest.approx(both.mean())

    def test_answer_between_twins_is_that_they_cannot_be_told_apart(self):
        runs = sweep(TASK, {"nag": {"lr": [0.1]}, "nag:torch": {"lr": [0.1]}}, seeds=3, steps=40)
        assert "It is not distinguishable from nag" in runs.answer("test_error")

    def test_unknown_metric_gets_the_names_there_are(self, runs):
        with pytest.raises(ValueError, match="no curve named 'accuracy'; recorded: batch_loss, test_error"):
            runs.curves("accuracy")
        with pytest.raises(ValueError, match="no metric named 'accuracy'; recorded: test_error"):
            runs.summary("accuracy")


class TestGrid:
    def test_lists_multiply_and_mappings_unite(self):
        settings = [{"lr": [0.1, 1.0], "momentum": [0.5, 0.9]}, {"lr": 3.0}]
        hypers = grid("sgdm", settings)
        assert [(h["lr"], h["momentum"]) for h in hypers] == [
            (0.1, 0.5),
            (0.1, 0.9),
            (1.0, 0.5),
            (1.0, 0.9),
            (3.0, 0.9),
        ]

    def test_arrays_are_lists_and_tuples_are_values(self):
        assert [h["lr"] for h in grid("adam", {"lr": np.array([0.1, 0.2]), "betas": (0.5, 0.6)})] == [0.1, 0.2]
        assert [h["lr"] for h in grid("adam", {"lr": torch.tensor([0.5, 0.25])})] == [0.5, 0.25]

    def test_rate_to_begin_with_is_filled_in(self):
        assert {h["base_lr"] for h in grid("adabound", {"lr": [0.1]})} == {0.1}

    def test_wrapper_takes_the_settings_of_what_it_wraps(self):
        (hyper,) = grid("lookahead", {"base": "sgdm", "momentum": 0.5, "k": 7})
        assert (hyper["base"], hyper["momentum"], hyper["k"]) == ("sgdm", 0.5, 7)
        assert "betas" not in hyper

    def test_run_asked_for_twice_is_one_run(self):
        settings = {"sgdm": [{"lr": 0.1}, {"lr": [0.1], "momentum": 0.9}]}
        assert len(plan(TASK, settings, seeds=2, steps=5)) == 2

    def test_log_grid_is_even_and_can_be_typed(self):
        assert log_grid(1e-3, 1, 7) == [0.001, 0.003162, 0.01, 0.03162, 0.1, 0.3162, 1.0]
        assert log_grid(0.1, 1, 1) == [0.1]

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"task": "digits"}, KeyError, "no task named 'digits'; did you mean 'digits-mlp'"),
            ({"optimizers": {"adan": {}}}, KeyError, "no optimizer named 'adan'; did you mean 'adam'"),
            ({"optimizers": {"sgd": {"rate": 1}}}, TypeError, "sgd has no 'rate'; known: lr, weight_decay"),
            ({"optimizers": {"sgdm": {"momentum": [0.9, 1.5]}}}, ValueError, r"momentum must be in \[0, 1\), got 1.5"),
            ({"optimizers": {"lookahead": {"k": 0}}}, ValueError, "k must be a whole number, 1 or more, got 0"),
            ({"optimizers": {}}, ValueError, "optimizers must name at least one"),
            ({"seeds": []}, ValueError, r"seeds must be 1 or more, got \[\]"),
            ({"steps": 0}, ValueError, "steps must be a whole number, 1 or more, got 0"),
            ({"steps": 2.5}, ValueError, "steps must be a whole number, 1 or more, got 2.5"),
            (
                {"engine": "fast"},
                ValueError,
                "engine must be one of 'auto', 'native', 'compiled', 'batched', 'loop', got 'fast'",
            ),
            ({"device": "tpu"}, ValueError, "device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
            ({"progress": "maybe"}, ValueError, "progress must be True, False or 'always', got 'maybe'"),
            ({"workers": 0}, ValueError, "workers must be a whole number, 1 or more, got 0"),
            ({"budget": 0}, ValueError, "budget must be a whole number, 1 or more, got 0"),
            ({"checkpoint": -1}, ValueError, "checkpoint must be a number of seconds, 0 or more, got -1"),
            ({"schedule": "cosin"}, KeyError, "no schedule named 'cosin'; did you mean 'cosine'"),
            ({"schedule": "poly(pow=1)"}, TypeError, "poly has no 'pow'; did you mean 'power'"),
            ({"schedule": "poly(power"}, ValueError, "schedule must be a name such as cosine or poly"),
            ({"warmup_steps": 1}, ValueError, "warmup_steps must be less than steps, 1, got 1"),
            ({"optimizers": {"sgd": {"lr": "best"}}}, ValueError, "lr of sgd must be numbers, or 'auto'"),
            (
                {"optimizers": {"sgdm": {"lr": "auto", "momentum": [0.5, 0.9]}}},
                ValueError,
                "lr of sgdm must be numbers, or 'auto' with one value of all else",
            ),
            (
                {"optimizers": {"sgd": {"lr": loguniform(0.1, 1)}}},
                ValueError,
                "budget must say how many settings to draw, since lr of sgd is a range",
            ),
            (
                {"optimizers": {"swats": {}}, "engine": "batched"},
                ValueError,
                "engine must be 'loop' or 'auto' for swats, which is not a rule, got 'batched'",
            ),
            (
                {"optimizers": {"swats": {}}, "engine": "compiled"},
                ValueError,
                "engine must be 'loop' or 'auto' for swats, which is not a rule, got 'compiled'",
            ),
        ],
    )
    def test_wrong_input_gets_one_sentence(self, change, error, message):
        arguments = {"task": TASK, "optimizers": {"sgd": {"lr": [0.1]}}, "seeds": 1, "steps": 1, **change}
        with pytest.raises(error, match=message) as caught:
            sweep(**arguments)
        assert "\n" not in str(caught.value)


class TestKeys:
    def key(self, **changes):
        arguments = {"task": TASK, "optimizers": {"sgdm": {"lr": 0.1}}, "seeds": [0], "steps": 5, **changes}
        return next(iter(plan(**arguments)))

    def test_what_makes_a_run_makes_its_key(self):
        keys = [
            self.key(),
            self.key(seeds=[1]),
            self.key(steps=6),
            self.key(engine="loop"),
            self.key(optimizers={"sgdm": {"lr": 0.2}}),
            self.key(optimizers={"sgdm:torch": {"lr": 0.1}}),
            self.key(optimizers={"nag": {"lr": 0.1}}),
        ]
        assert len(set(keys)) == len(keys)
        assert self.key(optimizers={"sgdm": {"lr": 0.1, "momentum": 0.9}}) == keys[0]

    def test_rule_is_known_by_its_code_and_not_by_its_layout(self):
        rule = RULES["sgdm"]
        same = rule.changed("sgdm", {"+ lr * (1 - dampening) * g": "+ lr *   (1 - dampening) * g  # a velocity"})
        other = rule.changed("sgdm", {"momentum * momentum_buffer": "momentum * 2 * momentum_buffer"})
        assert "a velocity" in same.source
        assert rule_hash(same) == rule_hash(rule)
        assert rule_hash(other) != rule_hash(rule)

    def test_helper_of_a_rule_is_part_of_its_code(self, monkeypatch):
        before = rule_hash(RULES["novograd"])
        monkeypatch.setitem(RULES["novograd"].function.__globals__, "norm", another_norm)
        another_norm.__module__ = "stepsize.rules.base"
        assert rule_hash(RULES["novograd"]) != before


def another_norm(x):
    return x.abs().sum()


class TestOtherTasks:
    """What a task of another kind may do: its own gradient, its own measures, no data."""

    def test_task_may_bring_its_own_gradient_and_measures(self, monkeypatch):
        class Bowl(Task):
            """One number on a parabola, with a gradient by hand."""

            name, metric, metrics, target = "bowl", "train_loss", ("train_loss",), 0.1
            loss = evaluate = None

            def init(self, seed):
                return {"x": torch.tensor(float(seed + 1))}

            def batches(self, seed):
                return itertools.repeat((torch.zeros(()),))

            def gradient(self, params, batch, carry):
                return {"x": 2 * params["x"]}, params["x"] ** 2, carry

            def measure(self, params):
                return {"train_loss": params["x"] ** 2}

        monkeypatch.setitem(TASKS, "bowl", Bowl())
        for how in ("batched", "loop"):
            runs = sweep("bowl", {"sgd": {"lr": [0.25, 0.5]}}, seeds=2, steps=2, engine=how)
            assert runs.frame()["final_train_loss"].tolist() == [1 / 16, 4 / 16, 0, 0]
            assert runs.settings("train_loss")["chosen"].tolist() == [False, True]


class TestPackage:
    def test_sweep_is_a_function_and_a_module(self):
        import stepsize.sweep as module

        assert module is sweep and sweep is stepsize.sweep
        assert module.sweep.__doc__ == sweep.__call__.__doc__
        assert store.open is stepsize.store.open

    def test_unknown_name_lists_what_there_is(self):
        with pytest.raises(AttributeError, match="stepsize has no 'sweeps'; it has check, claims"):
            stepsize.sweeps  # noqa: B018

    def test_importing_stepsize_imports_nothing_else(self):
        code = "import sys, stepsize; print([m for m in ('torch', 'numpy', 'pandas', 'tqdm') if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_importing_sweep_leaves_pandas_and_the_compiler_for_later(self):
        code = (
            "import sys, stepsize.sweep; print([m for m in ('pandas', 'torch._dynamo', 'sklearn') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_every_optimizer_of_the_library_can_be_swept(self):
        assert set(OPTIMIZERS) <= set(RULES) | set(WRAPPERS)
