"""Which digit is it? A small residual network of the second kind on scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Tensors, task
from .digits_mlp import DigitsMLP
from .layers import Statistics, conv, he_normal, norm_relu, norm_start

# The channels that each block takes and gives.
BLOCKS = {"block1": (8, 8), "block2": (8, 16), "block3": (16, 16), "block4": (16, 32)}


@task
class DigitsResNet(DigitsMLP):
    """Handwritten digits, 8 x 8 pixels, ten classes, by a residual network with pre-activation (version 2).

    Data, split and metrics: those of ``digits-mlp``. Model: He and others' identity mappings made small: a 3 x 3
    convolution to 8 channels; four blocks of 8, 16, 16 and 32 channels, each twice batch norm, ReLU and a 3 x 3
    convolution, added to the block's input; batch norm, ReLU, the mean over all pixels, 10 outputs. A block that
    changes the channels halves the image, and a 1 x 1 convolution fits its shortcut. So nine kernels of 3 x 3, one
    bias (the outputs'), 24,386 parameters; weights from He's normal distribution. Loss: cross entropy in nats,
    batches of 64 from a fresh shuffle each epoch of 16 steps. Batch norm has no running statistics: at evaluation
    it has the exact ones of the training images. Always the most frequent class: 0.897 wrong.
    """

    name = "digits-resnet"
    description = "1,797 handwritten digits of 8 x 8 pixels, ResNet v2 of nine 3 x 3 layers, batch 64; share of errors"
    steps, seconds, target = 200, 4.0, 0.07
    batch = 64
    # Mapped over runs, convolutions give bits that depend on how many there are.
    batched = False
    # Batch norm makes an image's loss depend on the others of its batch.
    divisible = False

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        params = {"stem.weight": he_normal((8, 1, 3, 3), random)}
        for block, (inputs, outputs) in BLOCKS.items():
            norm_start(params, f"{block}.norm1", inputs)
            params[f"{block}.conv1.weight"] = he_normal((outputs, inputs, 3, 3), random)
            norm_start(params, f"{block}.norm2", outputs)
            params[f"{block}.conv2.weight"] = he_normal((outputs, outputs, 3, 3), random)
            if inputs != outputs:
                params[f"{block}.shortcut.weight"] = he_normal((outputs, inputs, 1, 1), random)
        norm_start(params, "norm", 32)
        return params | {"output.weight": he_normal((10, 32), random), "output.bias": torch.zeros(10)}

    def forward(self, params: Tensors, x: Tensor, known: Statistics | None = None) -> Tensor:
        x = conv(x.view(-1, 1, 8, 8), params["stem.weight"])
        for block in BLOCKS:
            x = residual(params, block, x, known)
        x = norm_relu(params, "norm", x, known).mean((2, 3))
        return x @ params["output.weight"].T + params["output.bias"]

    def outputs(self, params: Tensors) -> Tensors:
        # The training images come first: they give the statistics for all.
        known: Statistics = {}
        return {part: self.forward(params, x, known) for part, (x, _) in self.data.items()}


def residual(params: Tensors, block: str, x: Tensor, known: Statistics | None) -> Tensor:
    """The input, or its projection to half the size and more channels, plus two 3 x 3 convolutions."""
    active = norm_relu(params, f"{block}.norm1", x, known)
    shortcut, stride = x, 1
    if f"{block}.shortcut.weight" in params:
        stride = 2
        shortcut = conv(active, params[f"{block}.shortcut.weight"], stride)
    x = conv(active, params[f"{block}.conv1.weight"], stride)
    x = norm_relu(params, f"{block}.norm2", x, known)
    return shortcut + conv(x, params[f"{block}.conv2.weight"])
