"""How is that number said in German? A small Transformer translates English number words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import TOGETHER, Batch, Data, Task, Tensors, task

SIZES = {"train": 2048, "val": 128, "test": 128}
# The most English words and German pieces that a number below a million has.
ENGLISH, GERMAN = 11, 13
PAD, START, END = range(3)
PIECES = re.compile(
    "hundert|tausend|und|zig|ßig|eins|ein|zwei|zwan|drei|vier|fünf|sechs?|sieb(?:en)?|acht|neun|zehn|elf|zwölf|null"
)

# Keys and values of a layer's attention, both (examples, heads, length, width of a head).
Cache = tuple[Tensor, Tensor]
Words = list[str]


@task
class NumbersTransformer(Task):
    """Number words from English to German: "forty-two thousand" to "zweiundvierzigtausend".

    Data: 2,304 numbers below a million, drawn once and for all, written out by ``num2words``: 2,048 to
    train, 128 to validate (choose hyper-parameters), 128 to test (report). An English word is a token,
    without hyphens and commas; a German number is one long word, cut into the pieces it is made of: zwei
    und vier zig tausend. Units come before tens there, some tens and teens are irregular, a one is "ein"
    but at the end. A vocabulary of 54, shared by both languages.

    Model: the encoder-decoder of Vaswani et al., "Attention is all you need", as we read it, made small:
    2 layers a side, width 32, 2 heads, 128 inner units, sines for places, one embedding for both languages
    and the output, attention without biases, 60,352 parameters. The layer norm comes after each sum, not
    before each layer as later became usual. That learns faster here with AdamW at 1e-3, yet needs warm-up at
    large rates: Adam at 0.01 without it ends at a BLEU of 34 to 38, with the norm before each layer at 96 to
    98 (three seeds). Weights from Glorot's uniform distribution, biases zero. No dropout or label smoothing.

    Loss: cross entropy in nats, the mean over the pieces and ends of a batch of 32 from a fresh shuffle each
    epoch of 64 steps. Metrics: ``train_loss`` (the first 128 numbers), ``val_loss``, and, of the German found
    by taking the likeliest piece each time, ``val_bleu``, ``test_bleu`` (sacrebleu's corpus BLEU, 0 to 100,
    the pieces being its tokens: as one word each, no number has the four tokens in a row that BLEU asks for)
    and ``val_exact``, ``test_exact``, the share of numbers without a mistake. To translate word by word
    without turning tens and units would give a BLEU of 33 and 0.05 exact; the best single answer to all, 14.
    """

    name = "numbers-transformer"
    description = "English number words into German by an encoder-decoder Transformer, batch 32; BLEU, greedy decoding"
    metric = "test_bleu"
    metrics = ("train_loss", "val_loss", "val_bleu", "val_exact", "test_bleu", "test_exact")
    larger = ("val_bleu", "val_exact", "test_bleu", "test_exact")
    steps, seconds, target = 300, 6.0, 90.0
    packages = ("num2words", "sacrebleu")
    batch = 32
    width, heads, inner, layers = 32, 2, 128, 2

    @cached_property
    def numbers(self) -> dict[str, list[int]]:
        """The numbers of each part, none twice."""
        drawn = iter(random.Random(0).sample(range(1_000_000), sum(SIZES.values())))
        return {part: [next(drawn) for _ in range(size)] for part, size in SIZES.items()}

    @cached_property
    def pairs(self) -> dict[str, list[tuple[Words, Words]]]:
        """The English words and the German pieces of each number."""
        from num2words import num2words

        return {part: [split(num2words(n), num2words(n, lang="de")) for n in ns] for part, ns in self.numbers.items()}

    @cached_property
    def vocabulary(self) -> Words:
        """The word or piece of every number; both languages share it."""
        words = {x for pairs in self.pairs.values() for pair in pairs for side in pair for x in side}
        return ["<pad>", "<start>", "<end>", *sorted(words)]

    def load(self) -> Data:
        """English words (n, 11), and German pieces between start and end (n, 15), as numbers; padded with 0."""
        number = {x: i for i, x in enumerate(self.vocabulary)}
        return {
            part: (
                torch.tensor([padded([number[x] for x in english], ENGLISH) for english, _ in pairs]),
                torch.tensor([padded([START, *(number[x] for x in german), END], GERMAN + 2) for _, german in pairs]),
            )
            for part, pairs in self.pairs.items()
        }

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        params = {"embedding": torch.randn(len(self.vocabulary), self.width, generator=random) * self.width**-0.5}
        for side, attentions in {"encoder": ("self",), "decoder": ("self", "cross")}.items():
            for at in (f"{side}.{layer}" for layer in range(self.layers)):
                matrices = ("query", "key", "value", "out")
                shapes = {f"{name}.{x}": (self.width, self.width) for name in attentions for x in matrices}
                shapes |= {"feed.inner": (self.inner, self.width), "feed.out": (self.width, self.inner)}
                for name, shape in shapes.items():
                    bound = (6 / sum(shape)) ** 0.5
                    params[f"{at}.{name}.weight"] = (2 * torch.rand(shape, generator=random) - 1) * bound
                for name in ("inner", "out"):
                    params[f"{at}.feed.{name}.bias"] = torch.zeros(shapes[f"feed.{name}"][0])
                for name in (*attentions, "feed"):
                    params[f"{at}.{name}.norm.weight"] = torch.ones(self.width)
                    params[f"{at}.{name}.norm.bias"] = torch.zeros(self.width)
        return params

    def batches(self, seed: int) -> Iterator[Batch]:
        """Places of the batch's numbers in the training set."""
        random = self.generator(seed, "order")
        while True:
            order = torch.randperm(SIZES["train"], generator=random)
            yield from ((places,) for places in order.split(self.batch) if len(places) == self.batch)

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        english, german = self.data["train"]
        (places,) = batch
        return self.cross_entropy(params, english[places], german[places])

    def evaluate(self, params: Tensors) -> Tensors:
        """The losses alone; the translations, which are text, are scored in :meth:`measure`."""
        parts = {part: [x[: SIZES["val"]] for x in self.data[part]] for part in ("train", "val")}
        return {f"{part}_loss": self.cross_entropy(params, *pairs) for part, pairs in parts.items()}

    @torch.no_grad()
    def measure(self, params: Tensors) -> Tensors:
        measured = super().measure(params)
        english = torch.cat([self.data[part][0] for part in ("val", "test")])
        few = zip(*(p.split(TOGETHER) for p in params.values()), strict=True)
        said = [self._each(lambda p: self.translate(p, english), dict(zip(params, some, strict=True))) for some in few]
        for part, numbers in zip(("val", "test"), torch.cat(said).split(SIZES["val"], 1), strict=True):
            right = [german for _, german in self.pairs[part]]
            scores = [score([self.read(row) for row in run], right) for run in numbers.tolist()]
            measured[f"{part}_bleu"], measured[f"{part}_exact"] = measured["val_loss"].new_tensor(scores).T
        return measured

    def cross_entropy(self, params: Tensors, english: Tensor, german: Tensor) -> Tensor:
        """The mean over all pieces and ends in ``german``, each given the right ones before it."""
        logits, _ = self.decode(params, german[:, :-1], self.encode(params, english))
        right = german[:, 1:]
        losses = logits.logsumexp(-1) - logits.gather(-1, right[..., None])[..., 0]
        return (losses * (right != PAD)).sum() / (right != PAD).sum()

    def translate(self, params: Tensors, english: Tensor) -> Tensor:
        """Numbers of pieces (n, 14), each the likeliest after those before it; what follows an end means nothing."""
        heard = self.encode(params, english)
        said, past = [torch.full_like(english[:, :1], START)], None
        for _ in range(GERMAN + 1):
            logits, past = self.decode(params, said[-1], heard, past)
            said.append(logits.argmax(-1))
        return torch.cat(said[1:], 1)

    def read(self, row: Sequence[int]) -> Words:
        """The pieces before the first end."""
        return [self.vocabulary[x] for x in row[: [*row, END].index(END)]]

    def encode(self, params: Tensors, english: Tensor) -> list[tuple[Cache, Tensor]]:
        """What each layer of the decoder attends to, and the mask that hides the padding."""
        mask = torch.zeros_like(english, dtype=torch.float32).masked_fill(english == PAD, -torch.inf)[:, None, None]
        x = self.embed(params, english)
        for at in (f"encoder.{layer}" for layer in range(self.layers)):
            x = self.attend(params, f"{at}.self", x, self.keys_values(params, f"{at}.self", x), mask)
            x = self.feed(params, f"{at}.feed", x)
        return [(self.keys_values(params, f"decoder.{layer}.cross", x), mask) for layer in range(self.layers)]

    def decode(
        self, params: Tensors, german: Tensor, heard: list[tuple[Cache, Tensor]], past: list[Cache] | None = None
    ) -> tuple[Tensor, list[Cache]]:
        """Logits of the piece after each of ``german``, which follow those that left ``past``; and the past then."""
        begin = past[0][0].shape[2] if past else 0
        end = begin + german.shape[1]
        future = torch.full((end, end), -torch.inf, device=german.device).triu(1)[begin:]
        x, caches = self.embed(params, german, begin), []
        for layer in range(self.layers):
            at = f"decoder.{layer}"
            cache = self.keys_values(params, f"{at}.self", x)
            if past:
                cache = torch.cat([past[layer][0], cache[0]], 2), torch.cat([past[layer][1], cache[1]], 2)
            caches.append(cache)
            x = self.attend(params, f"{at}.self", x, cache, future)
            x = self.attend(params, f"{at}.cross", x, *heard[layer])
            x = self.feed(params, f"{at}.feed", x)
        return matmul(x, params["embedding"].T), caches

    def embed(self, params: Tensors, numbers: Tensor, begin: int = 0) -> Tensor:
        """Embeddings (examples, length, width) of words or pieces, and of their places, the first being ``begin``."""
        table = params["embedding"]
        # A product, since the gradient of a look-up is slow where it is mapped over runs.
        x = matmul(F.one_hot(numbers, len(table)).to(table.dtype), table) * self.width**0.5
        place = torch.arange(begin, begin + numbers.shape[1], device=numbers.device)
        angle = place[:, None] / 10_000 ** (torch.arange(0, self.width, 2, device=numbers.device) / self.width)
        return x + torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    def keys_values(self, params: Tensors, name: str, x: Tensor) -> Cache:
        keys, values = (matmul(x, params[f"{name}.{matrix}.weight"].T) for matrix in ("key", "value"))
        return self.split_heads(keys), self.split_heads(values)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, params: Tensors, name: str, x: Tensor, cache: Cache, mask: Tensor) -> Tensor:
        keys, values = cache
        query = self.split_heads(matmul(x, params[f"{name}.query.weight"].T)) * keys.shape[-1] ** -0.5
        heard = (query @ keys.transpose(-1, -2) + mask).softmax(-1) @ values
        return add_norm(params, name, x, matmul(heard.transpose(1, 2).flatten(2), params[f"{name}.out.weight"].T))

    def feed(self, params: Tensors, name: str, x: Tensor) -> Tensor:
        inner = (matmul(x, params[f"{name}.inner.weight"].T) + params[f"{name}.inner.bias"]).relu()
        return add_norm(params, name, x, matmul(inner, params[f"{name}.out.weight"].T) + params[f"{name}.out.bias"])


def add_norm(params: Tensors, name: str, x: Tensor, new: Tensor) -> Tensor:
    """The layer norm of the sum, where later Transformers norm what enters a layer and leave the sum alone."""
    return F.layer_norm(x + new, x.shape[-1:], params[f"{name}.norm.weight"], params[f"{name}.norm.bias"])


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight`` as one product of matrices; mapped over runs, torch would else make one for each example."""
    return (x.flatten(0, 1) @ weight).unflatten(0, x.shape[:2])


def split(english: str, german: str) -> tuple[Words, Words]:
    """The words of the one, without hyphens and commas, and the pieces of the other."""
    return re.findall(r"\w+", english), PIECES.findall(german)


def padded(row: list[int], length: int) -> list[int]:
    return row + [PAD] * (length - len(row))


def score(said: list[Words], right: list[Words]) -> tuple[float, float]:
    """sacrebleu's corpus BLEU, from 0 to 100, each piece being a token; and the share that is right as a whole."""
    from sacrebleu import corpus_bleu

    texts = [[" ".join(pieces) for pieces in one] for one in (said, right)]
    exact = sum(a == b for a, b in zip(said, right, strict=True)) / len(right)
    return corpus_bleu(texts[0], texts[1:], tokenize="none", force=True).score, exact
