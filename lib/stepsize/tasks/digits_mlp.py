"""Which digit is it? A small network on scikit-learn's 1,797 real handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import Batch, Data, Task, Tensors, task
from .layers import cross_entropy


@task
class DigitsMLP(Task):
    """Handwritten digits, 8 x 8 pixels, ten classes, by a 64-64-10 network.

    Data: ``sklearn.datasets.load_digits``, pixels divided by 16 to lie in [0, 1]. Split once and for
    all, stratified by class, ``random_state=0``: 1,077 images to train, 360 to validate (choose
    hyper-parameters), 360 to test (report). Model: 64 inputs, 64 ReLU units, 10 outputs, 4,810
    parameters; weights from He's normal distribution, biases zero. Loss: cross entropy in nats,
    batches of 128 from a fresh shuffle each epoch of 8 steps. Metrics: ``train_loss`` over all of
    the training images, ``val_loss``, and ``train_error``, ``val_error``, ``test_error``: the share
    of images given the wrong class.
    """

    name = "digits-mlp"
    description = "1,797 handwritten digits of 8 x 8 pixels, 64-64-10 network, batch 128; share of errors"
    metric = "test_error"
    metrics = ("train_loss", "train_error", "val_loss", "val_error", "test_error")
    steps, seconds, target = 300, 0.2, 0.08
    divisible = True
    batch = 128

    def load(self) -> Data:
        """Images in float32, one a row, and their classes."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x, x_test, y, y_test = train_test_split(x / 16, y, test_size=360, stratify=y, random_state=0)
        x, x_val, y, y_val = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
        parts = {"train": (x, y), "val": (x_val, y_val), "test": (x_test, y_test)}
        return {part: (torch.tensor(x, dtype=torch.float32), torch.tensor(y)) for part, (x, y) in parts.items()}

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        return {
            "hidden.weight": torch.randn(64, 64, generator=random) * (2 / 64) ** 0.5,
            "hidden.bias": torch.zeros(64),
            "output.weight": torch.randn(10, 64, generator=random) * (2 / 64) ** 0.5,
            "output.bias": torch.zeros(10),
        }

    def batches(self, seed: int) -> Iterator[Batch]:
        """Places of the batch's images in the training set."""
        random = self.generator(seed, "order")
        n = len(self.data["train"][0])
        while True:
            order = torch.randperm(n, generator=random)
            yield from ((places,) for places in order.split(self.batch) if len(places) == self.batch)

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        x, y = self.data["train"]
        (places,) = batch
        return cross_entropy(self.forward(params, x[places]), y[places])

    def evaluate(self, params: Tensors) -> Tensors:
        metrics = {}
        for part, logits in self.outputs(params).items():
            y = self.data[part][1]
            metrics[f"{part}_error"] = (logits.argmax(-1) != y).float().mean()
            if part != "test":
                metrics[f"{part}_loss"] = cross_entropy(logits, y)
        return metrics

    def outputs(self, params: Tensors) -> Tensors:
        """The logits of the images of each part."""
        return {part: self.forward(params, x) for part, (x, _) in self.data.items()}

    def forward(self, params: Tensors, x: Tensor) -> Tensor:
        """The logits of images, one a row."""
        hidden = torch.relu(x @ params["hidden.weight"].T + params["hidden.bias"])
        return hidden @ params["output.weight"].T + params["output.bias"]
