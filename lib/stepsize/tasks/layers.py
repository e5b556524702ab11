"""What the tasks' networks share: convolution, batch norm, He's start and cross entropy, as plain functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Tensors

# Mean and variance of the channels at each batch norm, by its name.
Statistics = dict[str, tuple[Tensor, Tensor]]


def he_normal(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """A weight of shape (outputs, inputs, …) from the normal distribution of variance 2 / inputs of a unit."""
    return torch.randn(shape, generator=random) * (2 / math.prod(shape[1:])) ** 0.5


def conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Images (N, I, H, W) by an odd kernel (O, I, k, k), padded with zeros so that stride 1 keeps their size."""
    y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    # A tenth to a fifth faster on a CPU, with all that follows; the copy is made once, after the first convolution.
    return y.contiguous(memory_format=torch.channels_last)


def norm_start(params: Tensors, name: str, channels: int) -> None:
    """Put a batch norm's parameters into ``params``: it begins without effect on normalised channels."""
    params |= {f"{name}.scale": torch.ones(channels), f"{name}.shift": torch.zeros(channels)}


def norm_relu(params: Tensors, name: str, x: Tensor, known: Statistics | None = None) -> Tensor:
    """ReLU of the batch norm ``name`` of images (N, C, H, W).

    Without ``known`` the batch's own statistics are used, as in training. With it, those found there; where
    there are none for ``name`` yet, the exact ones of ``x`` are put there. So the network is shown the training
    images first, once, and what comes after is normalised by them.
    """
    scale, shift = params[f"{name}.scale"], params[f"{name}.shift"]
    if known is None:
        return F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
    if name in known:
        return F.relu(F.batch_norm(x, *known[name], scale, shift))
    mean, variance = torch.zeros_like(shift), torch.zeros_like(scale)
    y = F.batch_norm(x, mean, variance, scale, shift, training=True, momentum=1)
    # What torch leaves is the unbiased variance; what it divides by is the other.
    n = x.numel() // len(mean)
    known[name] = mean, variance * (n - 1) / n
    return F.relu(y)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over the rows of ``logits`` (N, classes), in nats, for the classes ``y`` (N)."""
    right = logits.gather(-1, y[:, None])[:, 0]
    return (logits.logsumexp(-1) - right).mean()
