"""Tests of the task sparse-logistic: real text, a split by the text alone, and sparse gradients."""

import itertools
from pydoc_data.topics import topics

import pytest
import torch
from stepsize.tasks import TASKS
from stepsize.tasks.sparse_logistic import CHAPTERS, paragraphs, part_of
from torch.nn import functional as F

TASK = TASKS["sparse-logistic"]


def test_paragraphs_are_those_of_the_documentation_each_once():
    texts = paragraphs()
    everything = " ".join(" ".join(topics[name].split()) for names in CHAPTERS.values() for name in names.split())
    assert all(text in everything for text in texts)
    assert 1300 < len(texts) < 1900
    assert set(texts.values()) == set(range(9))
    assert_text = next(text for text in texts if text.startswith("Assert statements are a convenient way to insert"))
    assert list(CHAPTERS)[texts[assert_text]] == "simple statements"


def test_split_puts_a_fifth_each_aside_and_depends_on_the_text_alone():
    parts = [part_of(text) for text in paragraphs()]
    assert [len(TASK.data[part][0]) for part in ("train", "val", "test")] == [
        parts.count(part) for part in ("train", "val", "test")
    ]
    assert 0.55 < parts.count("train") / len(parts) < 0.65
    assert 0.17 < parts.count("val") / len(parts) < 0.25
    assert part_of("The same text, for ever in the same part.") == "train"


def test_features_are_the_words_of_the_training_paragraphs_that_are_found_twice():
    for x, y in TASK.data.values():
        assert set(x.unique().tolist()) == {0, 1}
        assert y.min() == 0 and y.max() == 8
    x = TASK.data["train"][0]
    assert x.sum(0).min() == 2
    assert 4000 < x.shape[1] < 6000
    assert (x.sum(0) <= 3).float().mean() > 0.5


def test_most_of_a_batch_gradient_is_zero():
    shares = []
    for batch in itertools.islice(TASK.batches(0), 5):
        params = {name: p.requires_grad_() for name, p in TASK.init(0).items()}
        TASK.loss(params, batch).backward()
        shares.append((params["weight"].grad == 0).float().mean())
    assert sum(shares) / 5 > 0.8


def test_model_is_a_linear_layer_under_a_cross_entropy():
    params = TASK.init(0)
    x, y = TASK.data["test"]
    linear = torch.nn.Linear(x.shape[1], 9)
    linear.load_state_dict(params)
    error = (linear(x).argmax(1) != y).double().mean().item()
    assert TASK.evaluate(params)["test_error"].item() == pytest.approx(error)
    (places,) = next(TASK.batches(0))
    x, y = (part[places] for part in TASK.data["train"])
    torch.testing.assert_close(TASK.loss(params, (places,)), F.cross_entropy(linear(x), y))


def test_loss_is_convex():
    batch = next(TASK.batches(0))
    one, other = ({k: p * 100 for k, p in TASK.init(seed).items()} for seed in (0, 1))
    ends = (TASK.loss(one, batch) + TASK.loss(other, batch)) / 2
    assert TASK.loss({k: (one[k] + other[k]) / 2 for k in one}, batch) < ends


def test_naming_the_largest_chapter_is_wrong_most_of_the_time():
    largest = torch.bincount(TASK.data["train"][1]).argmax()
    assert (TASK.data["test"][1] != largest).float().mean() > 0.7 > TASK.target + 0.2
