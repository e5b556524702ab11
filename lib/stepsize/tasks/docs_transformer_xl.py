"""Which word comes next? A small Transformer-XL, which remembers the last segment, on Python's documentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Tensors, task
from .docs import WORDS, Docs

WIDTH, HEADS, INNER, LAYERS = 64, 4, 128, 2
MEMORY = 32


@task
class DocsTransformerXL(Docs):
    """Next word in Python's documentation, by a Transformer-XL of 2 layers.

    Data, split, batches and metrics: those of :class:`stepsize.tasks.docs.Docs`; a batch is 8 streams of 32
    words. Model: 2 layers of width 64, 4 heads and 128 inner ReLU units, layer norm after each sum, untied
    softmax, 203,880 parameters; weights from the normal distribution of variance 1 / inputs, embeddings from
    the standard one, biases zero, but the softmax's the logarithm of the words' frequencies. As in
    Transformer-XL, each layer also attends to what it saw of the last 32 words, without gradient, and
    places count by distance: sinusoids, with a bias ``u`` of what is looked for by content and ``v`` by
    distance, both learned for each layer. No dropout: a run reads the text little more than once.

    Baselines, test perplexity on Python 3.11: frequencies alone 172, counts of word pairs mixed with them 71.

    Runs go one after another: ``vmap`` can map them, but on a CPU 8 at once gain less than a fifth.
    """

    name = "docs-transformer-xl"
    description = "Python's documentation, 70,000 words, vocabulary 1,000, Transformer-XL, 2 layers; perplexity"
    steps, seconds, target = 350, 9.0, 105.0
    batched = False
    streams, length = 8, 32

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random) * shape[-1] ** -0.5

        params = {"embedding": torch.randn(WORDS, WIDTH, generator=random)}
        for i in range(LAYERS):
            params |= {f"{i}.{kind}": normal(WIDTH, WIDTH) for kind in ("query", "key", "value", "position", "joined")}
            params |= {f"{i}.{bias}": torch.zeros(HEADS, 1, WIDTH // HEADS) for bias in ("u", "v")}
            params |= {f"{i}.inner.weight": normal(INNER, WIDTH), f"{i}.inner.bias": torch.zeros(INNER)}
            params |= {f"{i}.outer.weight": normal(WIDTH, INNER), f"{i}.outer.bias": torch.zeros(WIDTH)}
            for norm in ("norm1", "norm2"):
                params |= {f"{i}.{norm}.scale": torch.ones(WIDTH), f"{i}.{norm}.shift": torch.zeros(WIDTH)}
        params |= {"output.weight": normal(WORDS, WIDTH), "output.bias": self.log_frequencies()}
        return params

    def start(self, streams: int, device: torch.device | None = None) -> Tensors:
        """What each layer last saw, (layers, streams, ``MEMORY``, width), and how many words of it are real."""
        return {
            "states": torch.zeros(LAYERS, streams, MEMORY, WIDTH, device=device),
            "words": torch.zeros((), dtype=torch.int64, device=device),
        }

    def forward(self, params: Tensors, words: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        length = words.shape[1]
        at = torch.arange(length, device=words.device)[:, None]
        other = torch.arange(-MEMORY, length, device=words.device)
        hidden = (other > at) | (other < -memory["words"])
        mask = torch.zeros(hidden.shape, device=words.device).masked_fill(hidden, -torch.inf)
        distances = waves(MEMORY + length, words.device)
        x, states = F.embedding(words, params["embedding"]), []
        for i in range(LAYERS):
            p = {name.removeprefix(f"{i}."): value for name, value in params.items() if name.startswith(f"{i}.")}
            seen = torch.cat([memory["states"][i], x], 1)
            states.append(seen[:, -MEMORY:].detach())
            weights = (scores(p, x, seen, distances) + mask).softmax(-1)
            found = (weights @ heads(F.linear(seen, p["value"]))).transpose(1, 2).flatten(2)
            x = norm(x + F.linear(found, p["joined"]), p["norm1.scale"], p["norm1.shift"])
            inner = F.relu(F.linear(x, p["inner.weight"], p["inner.bias"]))
            x = norm(x + F.linear(inner, p["outer.weight"], p["outer.bias"]), p["norm2.scale"], p["norm2.shift"])
        known = {"states": torch.stack(states), "words": (memory["words"] + length).clamp(max=MEMORY)}
        return F.linear(x, params["output.weight"], params["output.bias"]), known


def scores(p: Tensors, x: Tensor, seen: Tensor, distances: Tensor) -> Tensor:
    """How much each of ``x`` (streams, length, width) looks for each of ``seen``, the memory with ``x`` after it.

    One sum of content and distance for every stream, head, place in ``x`` and place in ``seen``.
    """
    query, key = heads(F.linear(x, p["query"])), heads(F.linear(seen, p["key"]))
    position = heads(F.linear(distances, p["position"]))
    scale = (WIDTH // HEADS) ** -0.5
    content = (query + p["u"]) * scale @ key.mT
    return content + relative_shift(torch.einsum("bhqd,hkd->bhqk", (query + p["v"]) * scale, position))


def heads(x: Tensor) -> Tensor:
    """(…, length, width) to (…, heads, length, width of a head)."""
    return x.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(-2, -3)


def waves(count: int, device: torch.device | None = None) -> Tensor:
    """The sinusoids (count, width) of the distances ``count`` - 1, …, 1, 0."""
    distance = torch.arange(count - 1, -1, -1, device=device)[:, None]
    angle = distance / 10000 ** (torch.arange(0, WIDTH, 2, device=device) / WIDTH)
    return torch.cat([angle.sin(), angle.cos()], -1)


def relative_shift(x: Tensor) -> Tensor:
    """Turn columns of distances into columns of places: row i of the last two axes moves left by rows - 1 - i.

    What comes in from the right belongs to later words, and means nothing.
    """
    rows, columns = x.shape[-2:]
    return F.pad(x, (1, 0)).flatten(-2)[..., rows:].unflatten(-1, (rows, columns))


def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], scale, shift)
