"""Tests of spans-bert: its facts, its split, its network and SQuAD's metric."""

import itertools
import re
from collections import Counter

import pytest
import torch
from stepsize.tasks import TASKS, spans_bert
from stepsize.tasks.countries import WORDINGS, countries
from torch import nn

TASK = TASKS["spans-bert"]


@pytest.fixture(scope="module")
def known():
    return countries()


def test_facts_are_the_real_ones(known):
    assert len(known) > 200
    assert known["Switzerland"]["currency"] == "Swiss Franc" and known["Switzerland"]["code"] == "CHF"
    assert known["Italy"]["former currency"] == "Italian Lira" and known["Italy"]["since"] == "1999"
    assert known["Colombia"]["clock"] == "Bogota" and known["Colombia"]["week"] == "Sunday"
    assert known["Cameroon"]["official"] == "French and English"
    assert known["Brazil"]["spoken"] == "Portuguese" and known["Brazil"]["share"].endswith(" percent")


def test_passage_tells_four_facts_and_the_answer_is_one_of_them(known):
    for part in TASK.examples.values():
        for x in part[:200]:
            said = [
                kind
                for kind, fact in known[x.country].items()
                if any(wording.format(fact) in x.passage for wording in WORDINGS[kind][0])
            ]
            assert len(said) == 4 and x.answer in [known[x.country][kind] for kind in said]
            assert x.passage.startswith(f"{x.country}. ") and x.country in x.question


def test_question_asks_for_the_kind_of_fact_that_is_the_answer(known):
    for x in TASK.examples["test"]:
        kinds = [kind for kind, (_, asked) in WORDINGS.items() if x.question in [q.format(x.country) for q in asked]]
        assert [known[x.country][kind] for kind in kinds] == [x.answer]


def test_no_country_is_in_two_parts():
    parts = [{x.country for x in part} for part in TASK.examples.values()]
    assert [len(part) for part in TASK.examples.values()] == [4096, 200, 200]
    assert all(not a & b for a, b in itertools.combinations(parts, 2))
    assert len(parts[0]) > 140 and all(len(part) > 40 for part in parts[1:])


def test_tokens_between_the_places_of_the_answer_are_the_answer():
    for part, examples in TASK.examples.items():
        tokens, segments, first, last = TASK.data[part]
        assert tokens.shape == segments.shape == (len(examples), 48)
        for i, x in enumerate(examples):
            assert spans_bert.extract(x, int(first[i]), int(last[i])) == x.answer
        assert (segments.gather(1, torch.stack([first, last], 1)) == 1).all()
        assert ((last - first >= 0) & (last - first < spans_bert.ANSWER)).all()


def test_vocabulary_holds_what_five_countries_of_the_training_part_share_and_nothing_else():
    texts = {}
    for x in TASK.examples["train"]:
        texts.setdefault(x.country, set()).update(re.findall(r"\w+|[^\w\s]", f"{x.question} {x.passage}".lower()))
    counts = Counter(word for text in texts.values() for word in text)
    assert set(TASK.vocabulary) - set(spans_bert.MARKS) == {word for word, count in counts.items() if count >= 5}
    assert {"currency", "pay", "euro", "percent", "?"} < set(TASK.vocabulary)
    forms = [TASK.token(word) for word in ("Liechtenstein", "1799", "CHF")]
    assert forms == [spans_bert.UNKNOWN, spans_bert.NUMBER, spans_bert.CAPITALS]


def test_network_is_the_encoder_of_torch_nn():
    random = torch.Generator().manual_seed(0)
    params = {name: p + 0.1 * torch.randn(p.shape, generator=random) for name, p in TASK.init(0).items()}
    layer = nn.TransformerEncoderLayer(
        32, 2, 64, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    names = {
        "self_attn.in_proj_": "qkv.",
        "self_attn.out_proj.": "joined.",
        "linear1.": "inner.",
        "linear2.": "outer.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    encoder.load_state_dict(
        {
            f"layers.{i}.{theirs}{kind}": params[f"{i}.{ours}{kind}"]
            for i in range(2)
            for theirs, ours in names.items()
            for kind in ("weight", "bias")
        }
    )
    tokens, segments, first, last = (x[:7] for x in TASK.data["val"])
    x = params["token"][tokens] + params["position"] + params["segment"][segments]
    x = nn.functional.layer_norm(x, (32,), params["embedding.weight"], params["embedding.bias"], 1e-12)
    x = encoder(x, src_key_padding_mask=tokens == spans_bert.PAD)
    expected = nn.functional.linear(x, params["span.weight"], params["span.bias"])
    logits = spans_bert.forward(params, tokens, segments)
    inside = logits.isfinite()
    assert torch.equal(inside[..., 0], (segments == 1) & (tokens != spans_bert.END))
    torch.testing.assert_close(logits[inside], expected[inside], rtol=1e-4, atol=1e-5)

    masked = expected.masked_fill(~inside, -torch.inf)
    both = [nn.functional.cross_entropy(masked[..., i], right) for i, right in enumerate((first, last))]
    torch.testing.assert_close(spans_bert.cross_entropy(logits, first, last), sum(both) / 2)


def test_padding_changes_nothing():
    tokens, segments = (x[:20] for x in TASK.data["val"][:2])
    params = TASK.init(0)
    logits = spans_bert.forward(params, tokens, segments)
    used = int((tokens[3] != spans_bert.PAD).sum())
    params["token"][spans_bert.PAD] += 1.0
    again = spans_bert.forward(params, tokens, segments)
    assert used < 48 and torch.equal(logits, again)


def test_best_span_is_the_one_that_a_search_through_all_finds():
    logits = torch.randn(20, 48, 2, generator=torch.Generator().manual_seed(0))
    logits[:, :10] = -torch.inf
    logits[:, 40:] = -torch.inf
    for row, i, j in zip(logits, *spans_bert.best(logits), strict=True):
        spans = [(i, j) for i in range(10, 40) for j in range(i, min(i + 8, 40))]
        assert (i, j) == max(spans, key=lambda span: row[span[0], 0] + row[span[1], 1])


@pytest.mark.parametrize(
    ("said", "right", "f1", "exact"),
    [
        ("the Swiss Franc.", "Swiss franc", 1, 1),
        ("Franc", "Swiss Franc", 2 / 3, 0),
        ("the Euro. Clocks follow Rome", "Euro", 2 / 5, 0),
        ("German, French and Italian", "German and French", 6 / 7, 0),
        ("New New Shekel", "Israeli New Shekel", 2 / 3, 0),
        ("Porto Novo", "Porto-Novo", 0, 0),
        ("a euro", "Euro", 1, 1),
        ("An", "the", 1, 1),
        ("An", "Euro", 0, 0),
        ("anthem", "them", 0, 0),
    ],
)
def test_score_is_the_one_worked_out_by_hand(said, right, f1, exact):
    assert spans_bert.score(said, right) == (pytest.approx(f1), exact)


def test_right_spans_score_one_and_the_text_is_read_from_the_passage(monkeypatch):
    def right(params, tokens, segments):
        rows = next(columns for columns in TASK.data.values() if torch.equal(columns[0][: len(tokens)], tokens))
        first, last = (x[: len(tokens), None] for x in rows[2:])
        places = torch.arange(48)
        return torch.stack([places == first, places == last], -1).float().where((segments == 1)[..., None], -torch.inf)

    monkeypatch.setattr(spans_bert, "forward", right)
    measured = TASK.evaluate({})
    assert all(measured[name] == 1 for name in TASK.larger)


def test_words_are_whole_and_marks_stand_alone():
    text = "Côte d’Ivoire. St. Lucia & 100 percent"
    assert spans_bert.words(text) == ["Côte", "d", "’", "Ivoire", ".", "St", ".", "Lucia", "&", "100", "percent"]
    assert re.sub(r"\s", "", text) == "".join(spans_bert.words(text))
