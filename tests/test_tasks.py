"""Tests that hold for every task, and of digits-mlp in particular."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from stepsize import tasks
from stepsize.tasks import TASKS
from torch.nn import functional as F

DIGITS = TASKS["digits-mlp"]


def stacked(task, seeds):
    runs = [task.init(seed) for seed in seeds]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def first_batches(task, seeds):
    drawn = [next(task.batches(seed)) for seed in seeds]
    return tuple(torch.stack(parts) for parts in zip(*drawn, strict=True))


def carries(task, runs):
    return {name: torch.stack([value] * runs) for name, value in task.carry().items()}


@pytest.fixture
def task(name):
    """The task, if what it needs is here and a run is short: one of full size has tests of its own."""
    task = TASKS[name]
    if reason := task.missing():
        pytest.skip(reason)
    if task.seconds > 60:
        pytest.skip(f"a run of {name} takes {task.seconds:g} s")
    return task


@pytest.mark.parametrize("name", TASKS)
class TestEveryTask:
    def test_says_what_it_is_and_what_a_run_costs(self, name):
        task = TASKS[name]
        assert task.name == name
        assert len(task.description) > 20
        assert task.steps >= 1 and task.seconds > 0 and task.metric in task.metrics
        assert set(task.larger) <= set(task.metrics)
        assert len(task.__doc__.splitlines()) > 3

    def test_measures_the_metrics_it_names(self, task):
        measured = task.measure(stacked(task, [0, 1]))
        assert set(measured) == set(task.metrics)
        assert {"train_loss", task.metric} <= set(task.metrics)
        assert all(values.shape == (2,) for values in measured.values())

    def test_same_seed_gives_the_same_start_and_the_same_batches(self, task):
        for p, q in zip(task.init(3).values(), task.init(3).values(), strict=True):
            assert torch.equal(p, q)
        for a, b in itertools.islice(zip(task.batches(3), task.batches(3), strict=True), 20):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    def test_other_seed_gives_another_start_and_other_batches(self, task):
        assert any(not torch.equal(p, q) for p, q in zip(task.init(3).values(), task.init(4).values(), strict=True))
        assert any(not torch.equal(*two) for two in first_batches(task, [3, 4]))

    def test_gradient_of_a_run_is_that_of_its_loss_alone(self, task):
        grads, losses, _ = task.gradient(stacked(task, [0, 1, 2]), first_batches(task, [0, 1, 2]), carries(task, 3))
        leaves = {key: p.requires_grad_() for key, p in task.init(1).items()}
        loss = task.loss(leaves, next(task.batches(1)))
        loss.backward()
        assert losses[1] == pytest.approx(loss.item(), rel=1e-6)
        for key, leaf in leaves.items():
            torch.testing.assert_close(grads[key][1], leaf.grad, rtol=1e-5, atol=1e-7)

    def test_run_that_is_nan_leaves_its_neighbours_as_they_were(self, task):
        params, batch = stacked(task, [0, 1, 2]), first_batches(task, [0, 1, 2])
        before, losses_before, _ = task.gradient(params, batch, carries(task, 3))
        for p in params.values():
            p[1] = torch.nan
        after, losses_after, _ = task.gradient(params, batch, carries(task, 3))
        assert losses_after[1].isnan()
        for run in (0, 2):
            assert losses_after[run] == losses_before[run]
            assert all(torch.equal(after[key][run], before[key][run]) for key in params)


def test_unknown_task_gets_the_nearest_name():
    with pytest.raises(KeyError, match="no task named 'digits-mpl'; did you mean 'digits-mlp'"):
        tasks.find("digits-mpl")


def test_second_task_of_a_name_is_refused():
    with pytest.raises(ValueError, match="a task named 'digits-mlp' exists already"):
        tasks.task(type(DIGITS))


def test_digits_are_the_real_ones_each_in_one_part():
    images, classes = load_digits(return_X_y=True)
    rows = [torch.cat([x * 16, y[:, None]], dim=1) for x, y in DIGITS.data.values()]
    ours = torch.cat(rows).numpy()
    theirs = np.column_stack([images, classes])
    assert [len(part) for part in rows] == [1077, 360, 360]
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_digits_split_holds_every_class_in_its_share():
    for x, y in DIGITS.data.values():
        shares = torch.bincount(y, minlength=10) / len(y)
        assert shares.min() > 0.09 and shares.max() < 0.11
        assert x.min() == 0 and x.max() == 1


def test_digits_epoch_shows_no_image_twice():
    epoch = torch.cat([places for (places,) in itertools.islice(DIGITS.batches(0), 8)])
    assert len(epoch) == 8 * 128
    assert len(epoch.unique()) == len(epoch)


def test_digits_network_is_the_one_of_torch_nn():
    params = DIGITS.init(0)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    layers.load_state_dict(
        {{"hidden": "0", "output": "2"}[key.split(".")[0]] + "." + key.split(".")[1]: p for key, p in params.items()}
    )
    assert sum(p.numel() for p in params.values()) == 4810
    x, y = DIGITS.data["train"]
    (places,) = next(DIGITS.batches(0))
    expected = F.cross_entropy(layers(x[places]), y[places])
    torch.testing.assert_close(DIGITS.loss(params, (places,)), expected)
    measured = DIGITS.evaluate(params)
    for part, (x, y) in DIGITS.data.items():
        error = (layers(x).argmax(1) != y).double().mean().item()
        assert measured[f"{part}_error"].item() == pytest.approx(error)
    torch.testing.assert_close(
        measured["train_loss"], F.cross_entropy(layers(DIGITS.data["train"][0]), DIGITS.data["train"][1])
    )


class TestOptions:
    def test_a_changed_task_has_the_plain_ones_start_and_its_own_batches(self):
        plain, changed = tasks.find("digits-mlp"), tasks.find("digits-mlp:batch=64")
        assert changed.name == "digits-mlp:batch=64" and changed.batch == 64 and plain.batch == 128
        assert all(torch.equal(p, plain.init(3)[name]) for name, p in changed.init(3).items())
        (wide,), (narrow,) = next(plain.batches(0)), next(changed.batches(0))
        assert torch.equal(wide[:64], narrow)

    def test_the_start_can_be_scaled(self):
        plain, changed = tasks.find("digits-mlp"), tasks.find("digits-mlp:init=4,batch=64")
        for name, p in changed.init(3).items():
            assert torch.equal(p, (4 if p.ndim > 1 else 1) * plain.init(3)[name])

    def test_runs_of_a_changed_task_are_runs_of_their_own(self):
        from stepsize import sweep

        names = ["digits-mlp", "digits-mlp:init=4"]
        keys = [sweep(name, {"sgd": {}}, seeds=1, steps=2, progress=False).keys for name in names]
        assert keys[0] != keys[1]

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("digits-mlp:", "ends in a colon"),
            ("digits-mlp:bach=64", "no option 'bach'; did you mean 'batch'"),
            ("digits-mlp:batch=0", "batch of digits-mlp must be a whole number of 1 or more, got '0'"),
            ("digits-mlp:batch=many", "must be a whole number"),
            ("digits-mlp:init=nan", "init of digits-mlp must be a number above 0"),
            ("digits-mlp:target=1", "no option 'target'"),
        ],
    )
    def test_what_cannot_be_is_refused_with_a_sentence(self, name, says):
        with pytest.raises(ValueError, match=says):
            tasks.find(name)

    def test_an_unknown_task_with_options_is_met_with_the_nearest(self):
        with pytest.raises(KeyError, match="did you mean 'digits-mlp'"):
            tasks.find("digits-mpl:batch=64")
