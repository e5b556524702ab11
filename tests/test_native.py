"""Tests of the native engine: what torch does for one run, as C, is what torch does for many, in any company."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from stepsize import sweep
from stepsize.engines import compiled, native
from stepsize.engines import sweep as engine
from stepsize.engines.capture import Unsupported
from stepsize.rules import RULES
from stepsize.store import Store
from stepsize.sweep import log_grid, plan
from stepsize.tasks import TASKS, Task

TASK = "digits-mlp"
TAKEN = ("digits-mlp", "sparse-logistic")

pytestmark = pytest.mark.skipif(not compiled.available(), reason="there is no C compiler here: nothing is native")


def stacked(task, runs, batch=None):
    """Parameters and a batch of so many runs, of ``batch`` examples each."""
    params = [task.init(seed) for seed in range(runs)]
    batches = [tuple(x[:batch] for x in next(task.batches(seed))) for seed in range(runs)]
    return (
        {name: torch.stack([p[name] for p in params]) for name in params[0]},
        tuple(torch.stack(parts) for parts in zip(*batches, strict=True)),
    )


def close(ours, theirs):
    """To the rounding of float32, relative to the largest of the tensor."""
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        scale = float(x.abs().max()) if x.isfinite().all() else 1.0
        torch.testing.assert_close(ours[name], x, rtol=2e-5, atol=2e-6 * scale, equal_nan=True, msg=name)


def program(function, *inputs):
    return native.Program(lambda *given: [function(*given)], inputs)


class TestGradient:
    @pytest.mark.parametrize("batch", [1, 7, None])
    @pytest.mark.parametrize("name", TAKEN)
    def test_is_torchs_for_batches_of_any_size_along_a_path(self, name, batch):
        task = TASKS[name]
        fast = native.Native(task)
        params, places = stacked(task, 3, batch)
        for _ in range(4):
            grads, losses, carry = task.gradient(params, places, {})
            ours, our_losses, our_carry = fast.gradient(params, places, {})
            assert carry == our_carry == {}
            close(ours | {"loss": our_losses}, grads | {"loss": losses})
            params = {key: p - 0.1 * grads[key] for key, p in params.items()}
        assert all(fast.programs.values())

    @pytest.mark.parametrize("name", TAKEN)
    def test_measures_are_torchs(self, name):
        params, _ = stacked(TASKS[name], 3)
        close(native.Native(TASKS[name]).measure(params), TASKS[name].measure(params))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
    @pytest.mark.parametrize("name", TAKEN)
    def test_run_that_is_no_number_is_so_as_in_torch_and_disturbs_no_other(self, name, bad):
        task = TASKS[name]
        params, places = stacked(task, 3)
        for p in params.values():
            p[1].view(-1)[::3] = bad
        fast = native.Native(task)
        ours, losses, _ = fast.gradient(params, places, {})
        theirs, their_losses, _ = task.gradient(params, places, {})
        close({"loss": losses}, {"loss": their_losses})
        for key, g in theirs.items():
            close({key: ours[key][::2]}, {key: g[::2]})
            assert torch.equal(ours[key][1].isfinite(), g[1].isfinite()), key
        close(
            {key: x[::2] for key, x in fast.measure(params).items()},
            {key: x[::2] for key, x in task.measure(params).items()},
        )

    def test_place_that_does_not_exist_is_an_error_and_no_look_elsewhere(self):
        params, (places,) = stacked(TASKS[TASK], 2)
        fast = native.Native(TASKS[TASK])
        places[1, 5] = 1077
        with pytest.raises(IndexError, match="a batch of the task names a place that does not exist"):
            fast.gradient(params, (places,), {})
        places[1, 5] = -1
        ours, _, _ = fast.gradient(params, (places,), {})
        close(ours, TASKS[TASK].gradient(params, (places,), {})[0])

    def test_what_is_carried_is_carried(self):
        class Average(Line):
            """A loss that reaches for the average of what it was fed."""

            def carry(self):
                return {"mean": torch.zeros(4)}

            def advance(self, params, batch, carry):
                mean = 0.5 * carry["mean"] + 0.5 * batch[0].mean(0)
                return self.loss(params, batch) + (params["w"] * mean).sum(), {"mean": mean}

        task = Average()
        params, batch = stacked(task, 3)
        fast, carry = native.Native(task), {"mean": torch.randn(3, 4)}
        ours, theirs = fast.gradient(params, batch, carry), task.gradient(params, batch, carry)
        assert next(iter(fast.programs.values()))
        close(ours[0] | {"loss": ours[1]} | ours[2], theirs[0] | {"loss": theirs[1]} | theirs[2])


class Line(Task):
    """A line through points, without data."""

    name, metric, metrics, target = "line", "train_loss", ("train_loss",), 0.1

    def init(self, seed):
        return {"w": torch.randn(4, generator=self.generator(seed, "init")), "b": torch.zeros(())}

    def batches(self, seed):
        random = self.generator(seed, "order")
        while True:
            yield (torch.randn(8, 4, generator=random),)

    def loss(self, params, batch):
        return ((batch[0] * params["w"]).sum(1) + params["b"] - 1).tanh().exp().mean()

    def evaluate(self, params):
        return {"train_loss": params["w"].abs().max()}


class TestOperations:
    """Each operation with C of its own, on tensors of all layouts."""

    x, y = torch.randn(3, 5, 7), torch.randn(5, 7)

    @pytest.mark.parametrize(
        "function",
        [
            lambda x, y: x.exp() + y,
            lambda x, y: (x - 2 * y) / (3 + y.exp()),
            lambda x, y: torch.sub(x, y, alpha=3).relu().tanh(),
            lambda x, y: (x.permute(2, 0, 1) * x[1, :, 2:3].T).sum(),
            lambda x, y: x.sum((0, 2)),
            lambda x, y: x.transpose(0, 2).mean((0, 1), keepdim=True),
            lambda x, y: x[0].sum(0) + y.mean(0),
            lambda x, y: x.transpose(1, 2).logsumexp(-1),
            lambda x, y: x.transpose(0, 2).argmax(-1),
            lambda x, y: (x > y).float() + (x.argmax(-1) != 3)[..., None].float() + (y == y),
            lambda x, y: x[1].T @ y,
            lambda x, y: y @ x[2].T,
            lambda x, y: torch.addmm(y[0, :5], x[0], y.T),
            lambda x, y: x[0] @ torch.ones(7, 40) + torch.arange(40).float(),
            lambda x, y: x[torch.tensor([2, 0, -1, 2])].neg(),
            lambda x, y: x.gather(1, torch.tensor([[[4, 0], [1, 1]]] * 2)),
            lambda x, y: y.scatter_add(0, torch.tensor([[3, 3, 0], [3, 1, 4]]), x[0]),
            lambda x, y: x.transpose(0, 1).contiguous().clone(),
        ],
    )
    def test_is_torchs(self, function):
        made = program(function, self.x, self.y)
        torch.manual_seed(0)
        x, y = torch.randn(4, *self.x.shape), torch.randn(4, *self.y.shape)
        (ours,) = made([x, y])
        assert torch.equal(ours, ours.clone())
        theirs = torch.stack([function(a, b) for a, b in zip(x, y, strict=True)])
        assert ours.dtype is theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    def test_exponential_is_right_to_the_last_bits_everywhere(self):
        x = torch.cat([torch.linspace(-110, 95, 200_001), torch.tensor([0.0, -math.inf, math.inf, math.nan])])
        (ours,) = program(torch.exp, x)([x[None]])
        exact = x.double().exp()
        error = (ours[0].double() - exact).abs() / torch.clamp(exact, min=2.0**-126)
        assert error[exact < 3.4e38].max() < 2e-7
        assert torch.equal(ours[0][exact > 3.41e38], exact[exact > 3.41e38].float())
        assert ours[0][-1].isnan()

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.relu_(),
            lambda x: x * torch.rand(3),
            lambda x: x.double().sum(),
            lambda x: x * x.max().item(),
            lambda x: x.int(),
            lambda x: (x > 0) + (x > 1),
            lambda x: x.logsumexp(0, keepdim=True),
            lambda x: torch.div(x, 2, rounding_mode="floor"),
            lambda x: x * math.inf,
        ],
    )
    def test_what_has_no_c_is_refused(self, function):
        with pytest.raises((Unsupported, TypeError)):
            program(function, torch.randn(3, 4)[:, 0])


class TestChoice:
    def test_those_tasks_are_taken_and_no_others(self):
        cheap = [name for name, task in TASKS.items() if task.seconds / task.steps <= native.LONG]
        assert tuple(name for name in cheap if native.takes(TASKS[name])) == TAKEN

    def test_short_runs_those_of_other_tasks_and_of_no_rule_are_what_they_were(self):
        def engines(task, name, steps):
            return {run.engine for run in plan(task, {name: {}}, seeds=1, steps=steps).values()}

        assert engines(TASK, "adam", 100) == {"native"}
        assert engines(TASK, "adam", 99) == {"compiled"}
        assert engines(TASK, "swats", 100) == {"loop"}
        assert engines("digits-resnet", "adam", 100) == {"compiled"}

    def test_it_is_refused_by_name_where_it_cannot_be(self):
        with pytest.raises(ValueError, match="engine must be 'compiled' or 'auto' for digits-resnet, got 'native'"):
            sweep("digits-resnet", {"adam": {}}, seeds=1, steps=1, engine="native")

    def test_task_with_a_gradient_of_its_own_or_a_secret_is_not_taken(self):
        class Own(Line):
            def gradient(self, params, batch, carry):
                return super().gradient(params, batch, carry)

        class Secret(Line):
            def loss(self, params, batch):
                return params["w"].sum() * float(batch[0].numpy().sum())

        assert native.takes(Line())
        assert not native.takes(Own())
        assert not native.takes(Secret())

    def test_measures_without_c_are_torchs_and_the_gradient_is_still_native(self):
        task = Line()
        fast = native.Native(task)
        params, batch = stacked(task, 2)
        fast.gradient(params, batch, {})
        assert [found is None for found in fast.programs.values()] == [False, True]
        assert torch.equal(fast.measure(params)["train_loss"], task.measure(params)["train_loss"])

    def test_compiler_that_fails_costs_a_warning_and_speed(self, monkeypatch):
        def fails(text):
            raise compiled.CompilerError("the C compiler fails")

        monkeypatch.setattr(compiled, "load", fails)
        monkeypatch.setattr(compiled, "_warned", False)
        task = TASKS[TASK]
        params, places = stacked(task, 2)
        with pytest.warns(RuntimeWarning, match="the C compiler fails: the engine is 'loop' and not 'compiled'"):
            grads, _, _ = native.Native(task).gradient(params, places, {})
        assert all(torch.equal(g, task.gradient(params, places, {})[0][name]) for name, g in grads.items())

    def test_torchs_compiler_is_not_imported_for_it(self):
        code = (
            "import sys; from stepsize import sweep; "
            "sweep('digits-mlp', {'adam': {}}, seeds=1, steps=2, engine='native', progress=False); "
            "print('torch._dynamo' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"


def everything(runs):
    curves = {metric: runs.curves(metric)["value"].to_numpy() for metric in runs.store.metrics()}
    return {**curves, "diverged": runs.frame()["diverged"].to_numpy()}


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


class TestSweep:
    @pytest.mark.parametrize("name", RULES)
    def test_every_rule_is_its_optimizer_alone(self, name):
        settings = {name: {"lr": [0.003, 0.01], "schedule": "cosine", "warmup_steps": 3}}
        ours = sweep(TASK, settings, seeds=2, steps=20, engine="native")
        alone = sweep(TASK, settings, seeds=2, steps=20, engine="loop")
        losses = [runs.curves("batch_loss")["value"].to_numpy() for runs in (ours, alone)]
        np.testing.assert_allclose(*losses, rtol=1e-4, atol=1e-6)
        assert not set(ours.keys) & set(alone.keys)

    @pytest.mark.parametrize("task", TAKEN)
    def test_bits_depend_on_neither_company_nor_threads(self, task, monkeypatch):
        rates = [0.01, 0.001, 1e30, 0.03, 0.1]
        options = {"seeds": [3], "steps": 24, "engine": "native"}
        together = everything(sweep(task, {"novograd": {"lr": rates}}, **options))
        monkeypatch.setattr(engine, "RUNS", 2)
        same(everything(sweep(task, {"novograd": {"lr": rates}}, **options)), together)
        alone = sweep(task, {"novograd": {"lr": rates[:1]}}, **options).curves("train_loss")["value"]
        np.testing.assert_array_equal(alone, together["train_loss"][: len(alone)])

    def test_hopeless_runs_end_and_the_others_go_on_as_they_would(self):
        settings = {"sgd": {"lr": [0.3, 1e30, 1e-9, 0.1]}}
        whole = sweep(TASK, {"sgd": {"lr": [0.3, 0.1]}}, seeds=[4], steps=60, engine="native")
        ours = sweep(TASK, settings, seeds=[4], steps=60, engine="native", early_stop=True)
        frame = ours.frame().set_index("lr")
        assert frame["stopped"].notna().to_dict() == {0.3: False, 1e30: True, 1e-9: True, 0.1: False}
        for lr, loss in whole.frame().set_index("lr")["final_train_loss"].items():
            assert frame["final_train_loss"][lr] == loss

    @pytest.mark.parametrize("name", ["adam", "novograd", "adafactor"])
    def test_run_resumed_from_its_middle_is_the_unbroken_one(self, name, tmp_path, monkeypatch):
        arguments = {"task": TASK, "optimizers": {name: {"schedule": "poly"}}, "seeds": 2, "steps": 30}
        arguments["engine"] = "native"
        whole = everything(sweep(**arguments))
        gradient, taken = native.Native.gradient, []

        def stop_in_the_middle(*given):
            taken.append(1)
            if len(taken) == 16:
                raise KeyboardInterrupt
            return gradient(*given)

        monkeypatch.setattr(engine, "CHECKPOINT_SHARE", 1e9)
        with monkeypatch.context() as patch:
            patch.setattr(native.Native, "gradient", stop_in_the_middle)
            with pytest.raises(KeyboardInterrupt):
                sweep(**arguments, store=tmp_path / "runs.db", checkpoint=0.0)
        begun = Store(tmp_path / "runs.db").checkpoints(plan(**arguments))
        assert set(begun.values()) == {15}
        same(everything(sweep(**arguments, store=tmp_path / "runs.db")), whole)

    def test_keys_of_the_other_engines_do_not_know_of_it(self):
        names = [name for engine, names in sweep.CODE.items() for name in names if engine != "native"]
        assert not [name for name in names if name.split(".")[-1] in ("native", "capture", "print_tape")]

    def test_many_threads_build_one_kernel_once(self, monkeypatch):
        built = []
        monkeypatch.setattr(
            compiled, "_compile", lambda *given, real=compiled._compile: (built.append(1), real(*given))
        )
        with compiled.empty_cache():
            rates = log_grid(1e-3, 1e-1, 24)
            runs = sweep(TASK, {"adam": {"lr": rates}}, seeds=1, steps=100)
        assert len(runs) == 24
        assert len(built) == 5, "gradient, measures, steps of matrices and of vectors, and what calls these"
