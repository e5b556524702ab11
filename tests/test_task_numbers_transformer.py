"""Tests of numbers-transformer: the words are num2words', the network is torch.nn's, the decoder sees no future."""

import math

import pytest
import torch
from num2words import num2words
from stepsize.tasks import TASKS
from stepsize.tasks.numbers_transformer import END, PAD, START, score, split

NUMBERS = TASKS["numbers-transformer"]
WIDTH, HEADS, INNER = NUMBERS.width, NUMBERS.heads, NUMBERS.inner


@pytest.fixture(scope="module")
def params():
    """Far enough from the start for the outputs to differ from example to example."""
    random = torch.Generator().manual_seed(0)
    return {name: p + 0.3 * torch.randn(p.shape, generator=random) for name, p in NUMBERS.init(0).items()}


def module(kind, params, at, attentions):
    """A layer of torch.nn with our parameters: its attention has the biases that ours does without."""
    layer = kind(WIDTH, HEADS, INNER, dropout=0.0, batch_first=True)
    state = {name: torch.zeros_like(value) for name, value in layer.state_dict().items()}
    for i, (ours, theirs) in enumerate(attentions.items(), 1):
        parts = [params[f"{at}.{ours}.{part}.weight"] for part in ("query", "key", "value")]
        state[f"{theirs}.in_proj_weight"] = torch.cat(parts)
        state[f"{theirs}.out_proj.weight"] = params[f"{at}.{ours}.out.weight"]
        state |= {f"norm{i}.{part}": params[f"{at}.{ours}.norm.{part}"] for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        state[f"linear1.{part}"] = params[f"{at}.feed.inner.{part}"]
        state[f"linear2.{part}"] = params[f"{at}.feed.out.{part}"]
        state[f"norm{len(attentions) + 1}.{part}"] = params[f"{at}.feed.norm.{part}"]
    layer.load_state_dict(state)
    return layer


def embedded(params, numbers):
    """Torch's look-up, and the paper's formula for the places, one entry at a time."""
    angles = [[t / 10_000 ** ((i - i % 2) / WIDTH) for i in range(WIDTH)] for t in range(numbers.shape[1])]
    places = torch.tensor([[(math.cos if i % 2 else math.sin)(a) for i, a in enumerate(row)] for row in angles])
    return torch.nn.functional.embedding(numbers, params["embedding"]) * WIDTH**0.5 + places


def logits(params, english, german):
    return NUMBERS.decode(params, german, NUMBERS.encode(params, english))[0]


def test_german_pieces_make_the_words_of_num2words():
    for n in [*range(1000), *(n for part in NUMBERS.numbers.values() for n in part[:100])]:
        assert "".join(split("", num2words(n, lang="de"))[1]) == num2words(n, lang="de")


def test_tens_and_units_change_places():
    english, german = split(num2words(42_066), num2words(42_066, lang="de"))
    assert " ".join(english) == "forty two thousand and sixty six"
    assert " ".join(german) == "zwei und vier zig tausend sechs und sech zig"


def test_rows_of_the_data_read_as_the_numbers_do():
    for part, (english, german) in NUMBERS.data.items():
        assert len(english) == len(german) == len(NUMBERS.numbers[part])
        for row, target, n in list(zip(english.tolist(), german.tolist(), NUMBERS.numbers[part], strict=True))[:128]:
            words = [NUMBERS.vocabulary[x] for x in row if x != PAD]
            assert words == num2words(n).replace("-", " ").replace(",", "").split()
            assert target[0] == START and "".join(NUMBERS.read(target[1:])) == num2words(n, lang="de")


def test_no_number_is_in_two_parts_and_no_word_is_new_in_the_test():
    numbers = [n for part in NUMBERS.numbers.values() for n in part]
    assert len(set(numbers)) == len(numbers) == 2048 + 128 + 128
    assert max(numbers) < 1_000_000
    known = set(torch.cat([x.flatten() for x in NUMBERS.data["train"]]).tolist())
    assert {x for part in ("val", "test") for side in NUMBERS.data[part] for x in side.flatten().tolist()} <= known


def test_network_is_the_post_norm_transformer_of_torch_nn(params):
    english, german = (x[:16] for x in NUMBERS.data["test"])
    hidden = english == PAD
    future = torch.nn.Transformer.generate_square_subsequent_mask(german.shape[1])
    x, y = embedded(params, english), embedded(params, german)
    for i in range(NUMBERS.layers):
        layer = module(torch.nn.TransformerEncoderLayer, params, f"encoder.{i}", {"self": "self_attn"})
        x = layer(x, src_key_padding_mask=hidden)
    for i in range(NUMBERS.layers):
        attentions = {"self": "self_attn", "cross": "multihead_attn"}
        layer = module(torch.nn.TransformerDecoderLayer, params, f"decoder.{i}", attentions)
        y = layer(y, x, tgt_mask=future, memory_key_padding_mask=hidden)
    expected = y @ params["embedding"].T
    torch.testing.assert_close(logits(params, english, german), expected, rtol=1e-4, atol=1e-4)
    loss = torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), german[:, 1:].flatten(), ignore_index=PAD)
    torch.testing.assert_close(NUMBERS.cross_entropy(params, english, german), loss)


def test_start_has_sixty_thousand_parameters_and_knows_nothing():
    start = NUMBERS.init(0)
    assert sum(p.numel() for p in start.values()) == 60_352
    # A uniform guess among 54 costs 4.0 nats; the first outputs are of order 1.
    assert NUMBERS.evaluate(start)["val_loss"].item() == pytest.approx(4.0, abs=1.5)


def test_decoder_does_not_see_the_pieces_to_come(params):
    english, german = (x[:8] for x in NUMBERS.data["test"])
    other = german.clone()
    other[:, 6:] = german.flip(0)[:, 6:]
    before, after = logits(params, english, german), logits(params, english, other)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert (after[:, 6:] - before[:, 6:]).abs().max() > 0.01


def test_padding_changes_nothing(params):
    english, german = (x[:8] for x in NUMBERS.data["test"])
    longer = torch.nn.functional.pad(english, (0, 3), value=PAD)
    torch.testing.assert_close(logits(params, longer, german), logits(params, english, german), rtol=1e-4, atol=1e-5)
    more = torch.nn.functional.pad(german, (0, 3), value=PAD)
    loss = NUMBERS.cross_entropy(params, english, german)
    torch.testing.assert_close(NUMBERS.cross_entropy(params, english, more), loss)


def test_each_piece_said_is_the_likeliest_after_those_before_it(params):
    english = NUMBERS.data["test"][0][:32]
    said = NUMBERS.translate(params, english)
    assert len(said.unique()) > 5
    begun = torch.cat([torch.full_like(said[:, :1], START), said[:, :-1]], 1)
    assert torch.equal(logits(params, english, begun).argmax(-1), said)


def test_what_follows_the_first_end_is_not_read():
    hundred = NUMBERS.vocabulary.index("hundert")
    assert NUMBERS.read([hundred, START, END, hundred, END]) == ["hundert", "<start>"]
    assert NUMBERS.read([hundred, hundred]) == ["hundert", "hundert"]
    assert NUMBERS.read([END]) == []


def test_bleu_is_over_pieces_and_exact_over_whole_numbers():
    right = [["ein", "und", "zwan", "zig", "tausend"]]
    assert score(right, right) == pytest.approx((100, 1))
    # Four of five pieces, three of four pairs, two of three triples, one of two quadruples are right.
    assert score([["ein", "und", "zwan", "zig", "hundert"]], right) == pytest.approx((100 * 0.2**0.25, 0))
    assert score([[]], right) == (0, 0)
    assert score([right[0], ["acht"]], [right[0], ["neun"]])[1] == 0.5


def test_measure_scores_each_run_by_what_it_says(params):
    runs = [NUMBERS.init(0), params]
    measured = NUMBERS.measure({name: torch.stack([run[name] for run in runs]) for name in params})
    for i, run in enumerate(runs):
        for part in ("val", "test"):
            said = [NUMBERS.read(row) for row in NUMBERS.translate(run, NUMBERS.data[part][0]).tolist()]
            bleu, exact = score(said, [split("", num2words(n, lang="de"))[1] for n in NUMBERS.numbers[part]])
            assert measured[f"{part}_bleu"][i].item() == pytest.approx(bleu)
            assert measured[f"{part}_exact"][i].item() == exact
        torch.testing.assert_close(measured["val_loss"][i], NUMBERS.evaluate(run)["val_loss"])
    assert measured["test_bleu"][0] != measured["test_bleu"][1]
