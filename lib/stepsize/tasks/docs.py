"""What the tasks on Python's documentation share: its words, their split, and how a model of them is trained."""

from __future__ import annotations

import platform
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Data, Task, Tensors

WORDS = 1000
UNKNOWN, NEWLINE = "<unk>", "\n"
VAL = ("calls", "comparisons", "import")
TEST = ("assignment", "execmodel", "strings")
# Every part is measured on this many streams of this many words, whatever its length in this version of Python.
MEASURED = (16, 256)


class Docs(Task):
    """The next word in the documentation topics of Python's standard library; not itself a task.

    Data: ``pydoc_data.topics``, the language reference as ``help()`` shows it, about 500,000 characters,
    of which a fifth stands under two topics: each paragraph is taken once, under the longest. Tokens:
    lower-case words, numbers, and marks, one each (``...`` is one; longer runs, which draw tables, are
    cut to that), and the end of a paragraph. Words rather than characters, for a sentence is then within
    reach of a short memory, and the perplexity is of the kind that papers print. The 999 most frequent
    tokens of the training topics are kept, all others (6 % there, 10 % elsewhere) are ``<unk>``.
    Split by topics: ``VAL``, ``TEST``, about 6,000 tokens each, and the 70,000 of all others to train.

    A batch is the next ``length`` tokens of each of ``streams`` readers, who start evenly spaced in the
    training text, a ring, at an offset that the seed chooses; what the model remembers is carried on.
    Loss: cross entropy in nats. Metrics: ``train_loss``, ``val_loss`` and the perplexities
    ``val_perplexity``, ``test_perplexity``, its exponential, on 4,096 tokens of each part.
    """

    metric = "test_perplexity"
    metrics = ("train_loss", "val_loss", "val_perplexity", "test_perplexity")
    streams, length = 16, 16

    @abstractmethod
    def start(self, streams: int, device: torch.device | None = None) -> Tensors:
        """What the model remembers before the first word of so many streams."""

    @abstractmethod
    def forward(self, params: Tensors, words: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        """The logits (streams, length, ``WORDS``) of the word after each of ``words``, and what is then remembered."""

    @property
    def source(self) -> str:
        # The text comes with Python, and changes with it.
        return platform.python_version()

    @cached_property
    def vocabulary(self) -> list[str]:
        """The token of every number; the first is ``<unk>``, the others go from frequent to rare."""
        counts = Counter(tokens()["train"])
        return [UNKNOWN, *sorted(counts, key=lambda token: (-counts[token], token))[: WORDS - 1]]

    def load(self) -> Data:
        """Each part as one text: the numbers of its tokens, 1-d, int64."""
        number = {token: i for i, token in enumerate(self.vocabulary)}
        return {part: (torch.tensor([number.get(token, 0) for token in text]),) for part, text in tokens().items()}

    def log_frequencies(self) -> Tensor:
        """Logarithms of the tokens' shares of the training text, so that a model need not spend its steps on them."""
        text = self.data["train"][0].cpu()
        return (torch.bincount(text, minlength=WORDS) / len(text)).log()

    def batches(self, seed: int) -> Iterator[Batch]:
        """Where in the training text each reader goes on."""
        n = len(self.data["train"][0])
        places = torch.randint(n, (), generator=self.generator(seed, "order")) + spread(n, self.streams)
        while True:
            yield (places % n,)
            places = places + self.length

    def carry(self) -> Tensors:
        return self.start(self.streams)

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        return self.advance(params, batch, self.start(self.streams, batch[0].device))[0]

    def advance(self, params: Tensors, batch: Batch, carry: Tensors) -> tuple[Tensor, Tensors]:
        text = read(self.data["train"][0], batch[0], self.length)
        logits, carry = self.forward(params, text[:, :-1], carry)
        return cross_entropy(logits, text[:, 1:]), carry

    def evaluate(self, params: Tensors) -> Tensors:
        train, val, test = (self.measured_loss(params, text) for (text,) in self.data.values())
        return {"train_loss": train, "val_loss": val, "val_perplexity": val.exp(), "test_perplexity": test.exp()}

    def measured_loss(self, params: Tensors, text: Tensor) -> Tensor:
        """The mean loss of the streams that ``MEASURED`` says, read as in training, the memory carried on."""
        streams, length = MEASURED
        text = read(text, spread(len(text), streams).to(text.device), length)
        memory, losses = self.start(streams, text.device), []
        for i in range(0, length, self.length):
            words = text[:, i : i + self.length + 1]
            logits, memory = self.forward(params, words[:, :-1], memory)
            losses.append(cross_entropy(logits, words[:, 1:]))
        return torch.stack(losses).mean()


@cache
def tokens() -> dict[str, list[str]]:
    """The tokens of each part of the documentation."""
    from pydoc_data.topics import topics

    seen = set()
    paragraphs: dict[str, list[list[str]]] = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        paragraphs[name] = []
        for paragraph in re.split(r"\n\s*\n", topics[name].lower()):
            found = tuple(split(paragraph))
            if found and found not in seen:
                seen.add(found)
                paragraphs[name].append([*found, NEWLINE])
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in sorted(paragraphs):
        part = "val" if name in VAL else "test" if name in TEST else "train"
        parts[part] += [token for paragraph in paragraphs[name] for token in paragraph]
    return parts


def split(text: str) -> list[str]:
    """Words, numbers, and runs of one mark, cut to three."""
    found = (match.group() for match in re.finditer(r"[a-z]+|[0-9]+|([^\sa-z0-9])\1*", text))
    return [token if token.isalnum() else token[:3] for token in found]


def spread(n: int, count: int) -> Tensor:
    """``count`` places, evenly spaced in ``n``."""
    return torch.arange(count) * (n // count)


def read(text: Tensor, places: Tensor, length: int) -> Tensor:
    """The ``length`` + 1 tokens from each place on, one place a row; after the last token comes the first."""
    return text[(places[:, None] + torch.arange(length + 1, device=places.device)) % len(text)]


def cross_entropy(logits: Tensor, words: Tensor) -> Tensor:
    """Mean over all words, in nats, of logits (streams, length, ``WORDS``)."""
    return F.cross_entropy(logits.flatten(0, 1), words.flatten())
