"""Which chapter is it from? Logistic regression on the rare words of Python's own documentation."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Data, Task, Tensors, task
from .layers import cross_entropy

BATCH = 32
# Fewer words make a heading or a stray line of code.
WORDS = 8

# The chapters of the language and library references that pydoc's topics were cut from. A topic that
# is part of another one here is left out.
CHAPTERS = {
    "lexical analysis": "strings identifiers id-classes numbers integers floating imaginary",
    "data model": "objects types specialnames",
    "execution model": "execmodel",
    "expressions": "atom-identifiers atom-literals attribute-references await binary bitwise booleans calls "
    "comparisons conversions dict exprlists in lambda lists operator-summary power shifting slicings subscriptions "
    "unary yield",
    "simple statements": "assert assignment augassign break continue del global import nonlocal pass raise return",
    "compound statements": "compound",
    "built-in types": "bltin-code-objects bltin-ellipsis-object bltin-null-object bltin-type-objects specialattrs "
    "string-methods truth typesfunctions typesmapping typesmethods typesmodules typesseq",
    "string formatting": "formatstrings",
    "debugger": "debugger",
}


@task
class SparseLogistic(Task):
    """Which chapter of Python's documentation is a paragraph from? By logistic regression on the words in it.

    Data: the topics of the standard library's ``pydoc_data``, cut at empty lines; paragraphs of eight
    words or more that stand in one chapter only, in nine chapters. A hash of the text puts a fifth
    each in ``val`` and ``test``, so a paragraph is in the same part under every version of Python, whose
    topics differ a little. Under 3.11: 852 paragraphs to train, 289 to validate, 306 to test. Features:
    whether a word, or a pair of neighbours, occurs, for the 4,804 that do in two or more of the
    training paragraphs. A paragraph has 37 of them on average; 63 % occur in three paragraphs or fewer,
    and 83 % of a batch's gradient is zero. The rare ones matter: without those in ten paragraphs or
    fewer, scikit-learn's ``LogisticRegression`` errs on 40 % of the test, with them on 32 %.
    Model: softmax over nine linear outputs, 43,245 parameters, weights nearly zero at the start. Loss:
    cross entropy in nats, which is convex; batches of 32 from a fresh shuffle each epoch of 26 steps.
    Metrics: ``train_loss`` over the whole training set, ``val_loss``, and ``train_error``,
    ``val_error``, ``test_error``: the share of paragraphs given the wrong chapter. Always naming the
    largest chapter errs on 74.5 % of the test.
    """

    name = "sparse-logistic"
    description = "1,447 paragraphs of Python's documentation, nine chapters, logistic regression; share of errors"
    metric = "test_error"
    metrics = ("train_loss", "train_error", "val_loss", "val_error", "test_error")
    steps, seconds, target = 600, 1.0, 0.4
    batched = False  # As fast, and the rows of one run stay in the cache.

    @property
    def source(self) -> str:
        # The text comes with Python, and changes with it.
        return platform.python_version()

    def load(self) -> Data:
        """Features as zeros and ones in float32, a paragraph a row, and the number of its chapter."""
        from sklearn.feature_extraction.text import CountVectorizer

        parts: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
        for text, chapter in paragraphs().items():
            parts[part_of(text)].append((text, chapter))
        vectorizer = CountVectorizer(ngram_range=(1, 2), min_df=2, binary=True, dtype="float32")
        vectorizer.fit([text for text, _ in parts["train"]])
        return {
            part: (
                torch.from_numpy(vectorizer.transform([text for text, _ in rows]).toarray()),
                torch.tensor([chapter for _, chapter in rows]),
            )
            for part, rows in parts.items()
        }

    def init(self, seed: int) -> Tensors:
        """Nearly zero: the problem is convex, but runs should differ in where they begin too."""
        random = self.generator(seed, "init")
        features = self.data["train"][0].shape[1]
        return {
            "weight": torch.randn(len(CHAPTERS), features, generator=random) * 0.01,
            "bias": torch.zeros(len(CHAPTERS)),
        }

    def batches(self, seed: int) -> Iterator[Batch]:
        """Places of 32 paragraphs in the training set."""
        random = self.generator(seed, "order")
        n = len(self.data["train"][0])
        while True:
            order = torch.randperm(n, generator=random)
            yield from ((order[i : i + BATCH],) for i in range(0, n - BATCH + 1, BATCH))

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        x, y = self.data["train"]
        (places,) = batch
        return cross_entropy(forward(params, x[places]), y[places])

    def evaluate(self, params: Tensors) -> Tensors:
        metrics = {}
        for part, (x, y) in self.data.items():
            logits = forward(params, x)
            metrics[f"{part}_error"] = (logits.argmax(-1) != y).float().mean()
            if part != "test":
                metrics[f"{part}_loss"] = cross_entropy(logits, y)
        return metrics


def forward(params: Tensors, x: Tensor) -> Tensor:
    return F.linear(x, params["weight"], params["bias"])


def paragraphs() -> dict[str, int]:
    """The number of its chapter for every paragraph that stands in one chapter only."""
    from pydoc_data.topics import topics

    found: dict[str, set[int]] = {}
    for number, names in enumerate(CHAPTERS.values()):
        for name in names.split():
            for text in re.split(r"\n\s*\n", topics.get(name, "")):
                # The same words make the same paragraph, however the lines are broken.
                found.setdefault(" ".join(text.split()), set()).add(number)
    return {
        text: min(numbers)
        for text, numbers in found.items()
        if len(numbers) == 1 and len(re.findall(r"[A-Za-z]\w*", text)) >= WORDS
    }


def part_of(text: str) -> str:
    """A fifth to validate, a fifth to test: by the text alone, so that every version of Python puts it in the same."""
    fifth = hashlib.sha256(text.encode()).digest()[0] % 5
    return {0: "test", 1: "val"}.get(fifth, "train")
