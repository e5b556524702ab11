"""Which word comes next? An LSTM of one, two or three layers on Python's documentation."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Tensors, task
from .docs import WORDS, Docs

UNITS = 64


@task
class DocsLSTM(Docs):
    """Next word in Python's documentation, by an LSTM of one, two or three layers of 64 units.

    Data, split, batches and metrics: those of :class:`stepsize.tasks.docs.Docs`; a batch is 16 streams of 16
    words. Model: embeddings from the standard normal distribution, LSTM layers with weights from that of
    variance 1 / 64 and biases zero, but one for the forget gate, a softmax with weights likewise, its bias
    the logarithm of the words' frequencies: 162,280 parameters, and 33,280 for each further layer. Truncated
    back-propagation: the state is carried from batch to batch, the gradient is not. It is a small sibling of
    the word models of one, two and three layers on the Penn Treebank; no dropout: a run reads the text twice.

    Baselines, test perplexity on Python 3.11: frequencies alone 172, counts of word pairs mixed with them 71.

    Runs go one after another: torch's fused LSTM, which ``vmap`` cannot map, takes half the time or less of
    one written out and mapped over 8 runs.
    """

    name = "docs-lstm"
    description = "Python's documentation, 70,000 words, vocabulary 1,000, LSTM of 1 layer of 64 units; perplexity"
    steps, seconds, target = 600, 6.0, 90.0
    batched = False
    layers = 1

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        params = {"embedding": torch.randn(WORDS, UNITS, generator=random)}
        for i in range(self.layers):
            for side in ("input", "hidden"):
                params[f"{i}.{side}.weight"] = torch.randn(4 * UNITS, UNITS, generator=random) * UNITS**-0.5
                params[f"{i}.{side}.bias"] = torch.zeros(4 * UNITS)
            # The gates come in the order input, forget, cell, output.
            params[f"{i}.input.bias"][UNITS : 2 * UNITS] = 1
        params["output.weight"] = torch.randn(WORDS, UNITS, generator=random) * UNITS**-0.5
        params["output.bias"] = self.log_frequencies()
        return params

    def start(self, streams: int, device: torch.device | None = None) -> Tensors:
        """Hidden and cell state, both (layers, streams, units)."""
        return {name: torch.zeros(self.layers, streams, UNITS, device=device) for name in ("hidden", "cell")}

    def forward(self, params: Tensors, words: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        flat = [
            params[f"{i}.{side}.{kind}"]
            for i in range(self.layers)
            for kind in ("weight", "bias")
            for side in ("input", "hidden")
        ]
        x = params["embedding"][words]
        y, hidden, cell = torch.lstm(
            x.transpose(0, 1), (memory["hidden"], memory["cell"]), flat, True, self.layers, 0.0, False, False, False
        )
        logits = y.transpose(0, 1) @ params["output.weight"].T + params["output.bias"]
        return logits, {"hidden": hidden, "cell": cell}


@task
class DocsLSTM2(DocsLSTM):
    __doc__ = DocsLSTM.__doc__
    name, layers = "docs-lstm-2", 2
    description = DocsLSTM.description.replace("1 layer", "2 layers")
    seconds, target = 8.0, 105.0


@task
class DocsLSTM3(DocsLSTM):
    __doc__ = DocsLSTM.__doc__
    name, layers = "docs-lstm-3", 3
    description = DocsLSTM.description.replace("1 layer", "3 layers")
    seconds, target = 10.0, 130.0
