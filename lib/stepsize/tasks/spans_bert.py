"""Where in the passage is the answer? A small BERT reads real facts about countries it has never seen."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property
from importlib.metadata import version
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Data, Task, Tensors, task
from .countries import Example, countries, example

SIZES = {"train": 4096, "val": 200, "test": 200}
BATCH = 32
# Words of question, passage and marks; the longest answer; how many training countries must know a word.
LENGTH, ANSWER, KNOWN = 48, 8, 5
PAD, START, END, NUMBER, CAPITALS, UNKNOWN = range(6)
MARKS = ("[PAD]", "[CLS]", "[SEP]", "[NUMBER]", "[CAPITALS]", "[UNK]")
WIDTH, HEADS, INNER, LAYERS = 32, 2, 64, 2
DEVIATION = 0.1


@task
class SpansBERT(Task):
    """Answers to questions about countries, as spans of the passage, by a BERT of two layers trained from scratch.

    Data: real are the facts, which babel carries from Unicode's CLDR: currency, its code, its first year
    and the one before it; languages, official and most spoken, and the share who speak that one; the
    city of the time zone; the first day of the week. Ours are the sentences: two or three for each kind
    of fact, and two for its question. A passage is four facts about one country or territory in any
    order and wording; the question asks for one. 4,096 questions on 154 countries to train, 200 on 50
    to validate, 200 on 50 to test: no country is in two parts, so the answers cannot be learned by
    heart. Tokens: lower-case words and marks; a word that fewer than 5 training countries share, so
    nearly every name and number, is a number, capitals, or unknown, and nothing else: what it is must
    be read from the words around it.

    Model: BERT's encoder, shrunk: [CLS] question [SEP] passage [SEP], 48 tokens; embeddings of token,
    place and segment, layer norm; two layers of width 32, two heads, 64 GELU units, layer norm after
    each sum; one logit of each token to be the answer's first, one to be its last; no dropout, no
    pretraining; 22,210 parameters (babel 2.18, CLDR 47). Weights and embeddings begin normal with
    deviation 0.1. Loss: the mean of the two cross entropies in nats over the places in the passage;
    batches of 32.

    The answer is the likeliest span of at most 8 tokens. Metrics: ``train_loss``, on 200 questions,
    ``val_loss``; ``val_f1`` and ``test_f1``, F1 of the words shared with the right answer, and
    ``val_em`` and ``test_em``, the share of exact answers, by SQuAD's rules. The same model trained
    with the questions hidden reaches a ``test_f1`` of 0.22.
    """

    name = "spans-bert"
    description = (
        "answers as spans in passages about countries, BERT of 2 layers, batch 32; F1 of the words, as in SQuAD"
    )
    metric = "test_f1"
    metrics = ("train_loss", "val_loss", "val_f1", "val_em", "test_f1", "test_em")
    larger = ("val_f1", "val_em", "test_f1", "test_em")
    steps, seconds, target = 300, 6.0, 0.65
    batched = False
    divisible = True
    packages = ("babel",)

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """Every part's questions, passages and answers. No country is in two parts."""
        random = self.generator(0, "examples")
        known = countries()
        names = [sorted(known)[i] for i in torch.randperm(len(known), generator=random).tolist()]
        parts = {"test": names[:50], "val": names[50:100], "train": names[100:]}
        return {part: [short_example(known, parts[part], random) for _ in range(size)] for part, size in SIZES.items()}

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The number of every token: the marks, and the words that at least ``KNOWN`` training countries share."""
        texts = {(word.lower(), x.country) for x in self.examples["train"] for word in words(x.question + x.passage)}
        counts = Counter(word for word, _ in texts)
        common = sorted(word for word, count in counts.items() if count >= KNOWN)
        return {word: i for i, word in enumerate([*MARKS, *common])}

    @property
    def source(self) -> str:
        # Countries and their words change with the release of CLDR that babel carries.
        return version("babel")

    def load(self) -> Data:
        """Tokens and segments, (rows, ``LENGTH``), and the places of each answer's first and last token."""
        return {
            part: tuple(torch.tensor(column) for column in zip(*map(self.encode, examples), strict=True))
            for part, examples in self.examples.items()
        }

    def encode(self, x: Example) -> tuple[list[int], list[int], int, int]:
        """One row of :meth:`load`."""
        question, places = words(x.question), spans(x.passage)
        passage = [x.passage[i:j] for i, j in places]
        tokens = [START, *map(self.token, question), END, *map(self.token, passage), END]
        segments = [0] * (len(question) + 2) + [1] * (len(passage) + 1)
        first = [i for i, _ in places].index(x.start)
        last = [j for _, j in places].index(x.start + len(x.answer))
        pad, before = [PAD] * (LENGTH - len(tokens)), len(question) + 2
        return tokens + pad, segments + pad, before + first, before + last

    def token(self, word: str) -> int:
        """The number of a word; one that is not in the vocabulary is told by its form alone."""
        if (known := self.vocabulary.get(word.lower())) is not None:
            return known
        return NUMBER if word.isdigit() else CAPITALS if word.isupper() else UNKNOWN

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random) * DEVIATION

        params = {
            "token": normal(len(self.vocabulary), WIDTH),
            "position": normal(LENGTH, WIDTH),
            "segment": normal(2, WIDTH),
            "span.weight": normal(2, WIDTH),
            "span.bias": torch.zeros(2),
        }
        shapes = {"qkv": (3 * WIDTH, WIDTH), "joined": (WIDTH, WIDTH), "inner": (INNER, WIDTH), "outer": (WIDTH, INNER)}
        for i, (name, shape) in product(range(LAYERS), shapes.items()):
            params |= {f"{i}.{name}.weight": normal(*shape), f"{i}.{name}.bias": torch.zeros(shape[0])}
        for name in ("embedding", *(f"{i}.norm{j}" for i in range(LAYERS) for j in (1, 2))):
            params |= {f"{name}.weight": torch.ones(WIDTH), f"{name}.bias": torch.zeros(WIDTH)}
        return params

    def batches(self, seed: int) -> Iterator[Batch]:
        """Places of 32 questions in the training part."""
        random = self.generator(seed, "order")
        while True:
            yield from ((places,) for places in torch.randperm(SIZES["train"], generator=random).split(BATCH))

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        tokens, segments, first, last = (x[batch[0]] for x in self.data["train"])
        return cross_entropy(forward(params, tokens, segments), first, last)

    def evaluate(self, params: Tensors) -> Tensors:
        metrics = {}
        for part, columns in self.data.items():
            tokens, segments, first, last = (x[: SIZES["val"]] for x in columns)
            logits = forward(params, tokens, segments)
            if part != "test":
                metrics[f"{part}_loss"] = cross_entropy(logits, first, last)
            if part != "train":
                found = zip(self.examples[part], *(x.tolist() for x in best(logits)), strict=True)
                scores = [score(extract(x, i, j), x.answer) for x, i, j in found]
                metrics[f"{part}_f1"], metrics[f"{part}_em"] = logits.new_tensor(scores).mean(0).unbind()
        return metrics


def short_example(known: dict[str, dict[str, str]], names: list[str], random: torch.Generator) -> Example:
    """An example that fits in ``LENGTH``: another is drawn until one does."""
    while True:
        x = example(known, names, random)
        if len(words(x.question)) + len(words(x.passage)) + 3 <= LENGTH:
            return x


@cache
def spans(text: str) -> tuple[tuple[int, int], ...]:
    """Where each word, number or mark begins and ends."""
    return tuple(match.span() for match in re.finditer(r"\w+|[^\w\s]", text))


def words(text: str) -> list[str]:
    return [text[i:j] for i, j in spans(text)]


def extract(x: Example, first: int, last: int) -> str:
    """The text of a passage between two places in the tokens of its example."""
    places, before = spans(x.passage), len(words(x.question)) + 2
    return x.passage[places[first - before][0] : places[last - before][1]]


def forward(params: Tensors, tokens: Tensor, segments: Tensor) -> Tensor:
    """The logits (rows, ``LENGTH``, 2) of an answer's first and last token; minus infinity outside the passage."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), params[f"{name}.weight"], params[f"{name}.bias"], eps=1e-12)

    hidden = torch.zeros(tokens.shape, device=tokens.device).masked_fill(tokens == PAD, -torch.inf)[:, None, None]
    token, segment = F.embedding(tokens, params["token"]), F.embedding(segments, params["segment"])
    x = norm("embedding", token + params["position"] + segment)
    for i in range(LAYERS):
        q, k, v = linear(f"{i}.qkv", x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (q * (WIDTH // HEADS) ** -0.5 @ k.transpose(-1, -2) + hidden).softmax(-1)
        x = norm(f"{i}.norm1", x + linear(f"{i}.joined", (weights @ v).transpose(1, 2).flatten(2)))
        x = norm(f"{i}.norm2", x + linear(f"{i}.outer", F.gelu(linear(f"{i}.inner", x))))
    outside = (segments == 0) | (tokens == END)
    return linear("span", x).masked_fill(outside[..., None], -torch.inf)


def cross_entropy(logits: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """In nats, the mean over the rows, and over first and last token."""
    right = logits.gather(1, torch.stack([first, last], -1)[:, None])[:, 0]
    return (logits.logsumexp(1) - right).mean()


def best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The first and last place of the likeliest span of at most ``ANSWER`` tokens in each row."""
    inside = logits[..., 0] != -torch.inf
    length = torch.arange(LENGTH, device=logits.device) - torch.arange(LENGTH, device=logits.device)[:, None]
    allowed = inside[:, :, None] & inside[:, None] & (length >= 0) & (length < ANSWER)
    scores = torch.where(allowed, logits[:, :, None, 0] + logits[:, None, :, 1], -torch.inf)
    place = scores.flatten(1).argmax(1)
    return place // LENGTH, place % LENGTH


def score(said: str, right: str) -> tuple[float, float]:
    """SQuAD's F1 of the words that two answers share, and whether they are the same words."""
    a, b = normal_words(said), normal_words(right)
    if not a or not b:
        return float(a == b), float(a == b)
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b)), float(a == b)


def normal_words(answer: str) -> list[str]:
    """An answer's words as SQuAD compares them: lower case, without punctuation, then without articles."""
    bare = "".join(c for c in answer.lower() if c not in string.punctuation)
    return re.sub(r"\b(?:a|an|the)\b", " ", bare).split()
