"""Tests of the tasks on Python's documentation: their text, their batches, the LSTM and the Transformer-XL."""

import itertools
import math
from pydoc_data.topics import topics

import pytest
import torch
from stepsize.tasks import TASKS, docs
from stepsize.tasks.docs_transformer_xl import HEADS, LAYERS, MEMORY, WIDTH, heads, scores, waves
from torch.nn import functional as F

LSTM, XL = TASKS["docs-lstm"], TASKS["docs-transformer-xl"]
LANGUAGE_MODELS = ["docs-lstm", "docs-lstm-2", "docs-lstm-3", "docs-transformer-xl"]


def paragraphs(part):
    return " ".join(docs.tokens()[part]).split(f" {docs.NEWLINE}")[:-1]


def some_words(streams, length, seed=0):
    return torch.randint(docs.WORDS, (streams, length), generator=torch.Generator().manual_seed(seed))


def perturbed(task, seed=0):
    """Parameters with no entry at a special value."""
    random = torch.Generator().manual_seed(seed)
    return {name: p + 0.3 * torch.randn(p.shape, generator=random) for name, p in task.init(seed).items()}


class TestText:
    def test_is_the_documentation_of_this_python(self):
        said = " ".join(token for part in docs.tokens().values() for token in part if token != docs.NEWLINE)
        for topic in ("assert", "calls", "execmodel", "truth"):
            first = topics[topic].lower().split("\n\n")[1]
            assert " ".join(docs.split(first)) in said

    def test_tokens_are_words_numbers_and_marks(self):
        assert docs.split('if x>=10: "__init__" ...') == [
            "if",
            "x",
            ">",
            "=",
            "10",
            ":",
            '"',
            "__",
            "init",
            "__",
            '"',
            "...",
        ]
        assert docs.split("+-------+") == ["+", "---", "+"]

    def test_no_paragraph_is_told_twice_in_all_parts(self):
        every = [p for part in docs.tokens() for p in paragraphs(part)]
        assert len(every) > 1500
        assert len(set(every)) == len(every)

    def test_parts_are_long_enough_to_be_measured(self):
        streams, length = docs.MEASURED
        for (text,) in LSTM.data.values():
            assert len(text) // streams > length
        assert len(LSTM.data["train"][0]) > 60_000

    def test_vocabulary_is_that_of_the_training_topics_and_covers_the_others(self):
        words = LSTM.vocabulary
        assert len(set(words)) == len(words) == docs.WORDS
        assert words[0] == docs.UNKNOWN
        assert {"the", '"', "class", "if"} <= set(words[:100])
        assert set(words[1:]) <= set(docs.tokens()["train"])
        unknown = {part: (text == 0).double().mean().item() for part, (text,) in LSTM.data.items()}
        assert 0.02 < unknown["train"] < min(unknown["val"], unknown["test"])
        assert max(unknown.values()) < 0.2

    def test_numbers_turn_back_into_the_tokens(self):
        (text,) = LSTM.data["val"]
        for number, token in zip(text.tolist(), docs.tokens()["val"], strict=True):
            assert LSTM.vocabulary[number] == token or (number == 0 and token not in LSTM.vocabulary)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
class TestLanguageModel:
    def test_readers_read_on_where_they_stopped(self, name):
        task = TASKS[name]
        (text,) = task.data["train"]
        now, then = (docs.read(text, places, task.length) for (places,) in itertools.islice(task.batches(0), 2))
        assert now.shape == (task.streams, task.length + 1)
        assert torch.equal(then[:, 0], now[:, -1])

    def test_epoch_reads_nearly_the_whole_text_and_nothing_twice(self, name):
        task = TASKS[name]
        n = len(task.data["train"][0])
        epoch = n // task.streams // task.length
        places = torch.cat([p for (p,) in itertools.islice(task.batches(0), epoch)])
        read = ((places[:, None] + torch.arange(task.length)) % n).flatten()
        assert len(read.unique()) == len(read) > 0.98 * n

    def test_carry_changes_the_loss_and_keeps_its_shapes(self, name):
        task = TASKS[name]
        params = task.init(0)
        first, second = itertools.islice(task.batches(0), 2)
        _, carry = task.advance(params, first, task.carry())
        carried, _ = task.advance(params, second, carry)
        assert abs(carried.item() - task.loss(params, second).item()) > 1e-5
        shapes = {key: value.shape for key, value in carry.items()}
        assert shapes == {key: value.shape for key, value in task.carry().items()}

    def test_later_words_do_not_change_earlier_logits(self, name):
        task = TASKS[name]
        params, words = perturbed(task), some_words(2, 12)
        other = words.clone()
        other[:, 7] = (other[:, 7] + 1) % docs.WORDS
        (a, _), (b, _) = (task.forward(params, x, task.start(2)) for x in (words, other))
        torch.testing.assert_close(a[:, :7], b[:, :7])
        assert (a[:, 7:] - b[:, 7:]).abs().amax(-1).min() > 1e-4

    def test_without_weights_the_perplexity_is_that_of_the_frequencies(self, name):
        task = TASKS[name]
        params = task.init(0)
        params["output.weight"].zero_()
        streams, length = docs.MEASURED
        (train,), (test,) = task.data["train"], task.data["test"]
        right = docs.read(test, docs.spread(len(test), streams), length)[:, 1:]
        shares = torch.bincount(train, minlength=docs.WORDS).double() / len(train)
        measured = task.evaluate(params)
        assert measured["test_perplexity"].item() == pytest.approx(
            shares[right].log().mean().neg().exp().item(), rel=1e-4
        )
        assert measured["val_perplexity"].item() == pytest.approx(math.exp(measured["val_loss"]), rel=1e-5)

    def test_memory_is_carried_through_the_evaluation(self, name):
        task = TASKS[name]
        params = task.init(0)
        streams, length = docs.MEASURED
        (text,) = task.data["val"]
        words = docs.read(text, docs.spread(len(text), streams), length)
        losses, memory = [], task.start(streams)
        with torch.no_grad():
            for i in range(0, length, task.length):
                logits, memory = task.forward(params, words[:, i : i + task.length], memory)
                losses.append(F.cross_entropy(logits.mT, words[:, i + 1 : i + task.length + 1]))
        assert task.evaluate(params)["val_loss"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_lstm_is_the_one_of_torch_nn(layers):
    task = TASKS["docs-lstm" if layers == 1 else f"docs-lstm-{layers}"]
    params = perturbed(task)
    assert sum(p.numel() for p in params.values()) == 162_280 + 33_280 * (layers - 1)
    reference = torch.nn.LSTM(64, 64, layers, batch_first=True)
    names = {
        "input.weight": "weight_ih",
        "hidden.weight": "weight_hh",
        "input.bias": "bias_ih",
        "hidden.bias": "bias_hh",
    }
    reference.load_state_dict({f"{names[n]}_l{i}": params[f"{i}.{n}"] for i in range(layers) for n in names})
    first, second = some_words(3, 9), some_words(3, 5, seed=1)
    memory = task.start(3)
    ours = []
    for words in (first, second):
        logits, memory = task.forward(params, words, memory)
        ours.append(logits)
    states, (hidden, cell) = reference(params["embedding"][torch.cat([first, second], 1)])
    torch.testing.assert_close(torch.cat(ours, 1), F.linear(states, params["output.weight"], params["output.bias"]))
    torch.testing.assert_close(memory, {"hidden": hidden, "cell": cell})


def test_lstm_forgets_little_at_first():
    for name, p in TASKS["docs-lstm-2"].init(0).items():
        if name.endswith("input.bias"):
            assert p.tolist() == [0.0] * 64 + [1.0] * 64 + [0.0] * 128


class TestTransformerXL:
    def test_has_the_parameters_it_tells(self):
        assert sum(p.numel() for p in XL.init(0).values()) == 203_880

    @pytest.mark.parametrize("cut", [1, 7, 16, 31])
    def test_with_its_memory_it_sees_what_one_longer_segment_sees(self, cut):
        params, words = perturbed(XL), some_words(2, MEMORY)
        whole, remembered = XL.forward(params, words, XL.start(2))
        first, memory = XL.forward(params, words[:, :cut], XL.start(2))
        second, memory = XL.forward(params, words[:, cut:], memory)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(memory, remembered, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("segments, reached", [(LAYERS + 1, True), (LAYERS + 2, False)])
    def test_memory_reaches_back_one_segment_a_layer(self, segments, reached):
        params, words = perturbed(XL), some_words(1, segments * MEMORY)
        changed = words.clone()
        changed[:, 0] = (changed[:, 0] + 1) % docs.WORDS

        def last(words):
            memory = XL.start(1)
            for segment in words.split(MEMORY, 1):
                logits, memory = XL.forward(params, segment, memory)
            return logits

        assert torch.equal(last(words), last(changed)) != reached

    def test_empty_memory_is_not_looked_at(self):
        params, words = perturbed(XL), some_words(2, 6)
        rubbish = {**XL.start(2), "states": torch.full((LAYERS, 2, MEMORY, WIDTH), 3.0)}
        torch.testing.assert_close(XL.forward(params, words, rubbish)[0], XL.forward(params, words, XL.start(2))[0])

    def test_memory_takes_no_gradient(self):
        params = {name: p.requires_grad_() for name, p in XL.init(0).items()}
        _, memory = XL.forward(params, some_words(2, 6), XL.start(2))
        assert not memory["states"].requires_grad

    def test_scores_are_the_four_terms_of_each_pair(self):
        params = perturbed(XL)
        p = {name.removeprefix("0."): value for name, value in params.items()}
        random = torch.Generator().manual_seed(1)
        x, memory = torch.randn(2, 5, WIDTH, generator=random), torch.randn(2, 4, WIDTH, generator=random)
        seen = torch.cat([memory, x], 1)
        measured = scores(p, x, seen, waves(9))
        size = WIDTH // HEADS
        query, key = (heads(x @ p["query"].T), heads(seen @ p["key"].T))
        for head, i in itertools.product(range(HEADS), range(5)):
            u, v = p["u"][head, 0], p["v"][head, 0]
            for j in range(4 + i + 1):
                position = (waves(4 + i - j + 1)[0] @ p["position"].T)[head * size : (head + 1) * size]
                q, k = query[:, head, i], key[:, head, j]
                expected = (q * k).sum(-1) + q @ position + k @ u + position @ v
                torch.testing.assert_close(measured[:, head, i, j], expected / size**0.5, rtol=1e-4, atol=1e-4)

    def test_shifting_all_places_changes_nothing(self):
        p = {name.removeprefix("0."): value for name, value in perturbed(XL).items()}
        same = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(1)).expand(1, 12, WIDTH)
        measured = scores(p, same[:, :8], same, waves(12))[0]
        for i, j in itertools.product(range(7), range(11)):
            if j <= 4 + i:
                torch.testing.assert_close(measured[:, i, j], measured[:, i + 1, j + 1], rtol=1e-4, atol=1e-4)
        assert (measured[:, 0, 0] - measured[:, 0, 1]).abs().max() > 1e-3

    def test_runs_can_be_mapped_too(self):
        runs, words = [XL.init(seed) for seed in (0, 1)], some_words(8, 32)
        params = {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
        mapped = torch.func.vmap(lambda p: XL.forward(p, words, XL.start(8))[0])(params)
        torch.testing.assert_close(mapped[1], XL.forward(runs[1], words, XL.start(8))[0], rtol=1e-4, atol=1e-4)
