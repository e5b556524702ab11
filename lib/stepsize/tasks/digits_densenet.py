"""Which digit is it? A small densely connected network on scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Tensors, task
from .digits_resnet import DigitsResNet
from .layers import Statistics, conv, he_normal, norm_relu, norm_start

# Channels that a layer adds, and layers of each of the two blocks.
GROWTH, LAYERS = 8, 3


@task
class DigitsDenseNet(DigitsResNet):
    """Handwritten digits, 8 x 8 pixels, ten classes, by a densely connected network.

    Data, split, batches and metrics: those of ``digits-resnet``; the model alone is another. Model: Huang and
    others' DenseNet made small: a 3 x 3 convolution to 8 channels; three layers of batch norm, ReLU and a 3 x 3
    convolution, each adding 8 channels to those it sees; a transition (batch norm, ReLU, a 1 x 1 convolution to half
    of the channels, means of 2 x 2 pixels); three more such layers; batch norm, ReLU, the mean over all pixels, 10
    outputs. 10,018 parameters; weights from He's normal distribution. Always the most frequent class: 0.897 wrong.
    """

    name = "digits-densenet"
    description = "1,797 handwritten digits of 8 x 8 pixels, DenseNet of seven 3 x 3 layers, batch 64; share of errors"
    steps, seconds, target = 200, 5.0, 0.08

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        channels = 8
        params = {"stem.weight": he_normal((channels, 1, 3, 3), random)}
        for block in (1, 2):
            for layer in range(1, LAYERS + 1):
                norm_start(params, f"block{block}.norm{layer}", channels)
                params[f"block{block}.conv{layer}.weight"] = he_normal((GROWTH, channels, 3, 3), random)
                channels += GROWTH
            if block == 1:
                norm_start(params, "transition.norm", channels)
                params["transition.weight"] = he_normal((channels // 2, channels, 1, 1), random)
                channels //= 2
        norm_start(params, "norm", channels)
        return params | {"output.weight": he_normal((10, channels), random), "output.bias": torch.zeros(10)}

    def forward(self, params: Tensors, x: Tensor, known: Statistics | None = None) -> Tensor:
        x = conv(x.view(-1, 1, 8, 8), params["stem.weight"])
        x = dense(params, "block1", x, known)
        x = F.avg_pool2d(conv(norm_relu(params, "transition.norm", x, known), params["transition.weight"]), 2)
        x = dense(params, "block2", x, known)
        x = norm_relu(params, "norm", x, known).mean((2, 3))
        return x @ params["output.weight"].T + params["output.bias"]


def dense(params: Tensors, block: str, x: Tensor, known: Statistics | None) -> Tensor:
    """The input and the new channels of each layer, which sees all channels before it."""
    for layer in range(1, LAYERS + 1):
        new = conv(norm_relu(params, f"{block}.norm{layer}", x, known), params[f"{block}.conv{layer}.weight"])
        x = torch.cat([x, new], dim=1)
    return x
