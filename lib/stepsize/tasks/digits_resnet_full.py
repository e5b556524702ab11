"""Digits-resnet at the size of the papers: ResNet-50 with pre-activation on a folder of ImageNet."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Data, Task, Tensors, task
from .layers import Statistics, conv, cross_entropy, he_normal, norm_relu, norm_start

VARIABLE = "STEPSIZE_IMAGENET"
LAYOUT = "train/CLASS/*.JPEG and val/CLASS/*.JPEG"
BATCH, EPOCHS, IMAGES = 128, 100, 1_281_167
# Images of the sample that gives the statistics of batch norm; attempts at a random crop before the central one.
SAMPLE, ATTEMPTS = 256, 10
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Blocks of a stage, their inner channels (a block gives four times as many) and the stride of the first.
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
STRIDES = {f"stage{i}.block{j}": s if j == 1 else 1 for i, (n, _, s) in enumerate(STAGES, 1) for j in range(1, n + 1)}


@task
class ResNet50(Task):
    """ImageNet, 224 x 224 pixels, 1,000 classes, by ResNet-50 with pre-activation (version 2).

    Data: the folder that the environment variable ``STEPSIZE_IMAGENET`` names, with ``train/CLASS/*.JPEG``
    and ``val/CLASS/*.JPEG``. To train, a random part of the image (8 % to 100 % of its area, sides 3:4 to 4:3)
    at 224 x 224, mirrored half of the time; else the shorter side at 256 and the central 224 x 224. Model: He
    and others' bottleneck blocks, batch norm and ReLU before each convolution, 25,549,352 parameters at 1,000
    classes, from He's normal distribution. Loss: cross entropy in nats, batches of 128 (one GPU's share in
    OpenSeq2Seq's configuration of NovoGrad: rate 0.03 falling as a square, betas 0.95 and 0.98, weight decay
    0.004, 100 epochs). Batch norm is evaluated with the statistics of a fixed sample of 256 training images,
    which gives ``train_loss`` too. ``val_error`` and ``val_top5_error`` are the shares of validation images whose
    class is not the first, or not among the first five: what papers report, though choices are made by it as well.

    A run was never trained in full here: ``target`` is what OpenSeq2Seq states for AdamW after 100 epochs, rounded,
    and ``seconds`` half a second an image, measured on one core of a CPU. Guessing is wrong on 999 of 1,000.
    """

    name = "digits-resnet@full"
    description = "ImageNet at 224 x 224 pixels, pre-activation ResNet-50, 100 epochs; needs the data set and a GPU"
    metric = "val_error"
    metrics = ("train_loss", "val_loss", "val_error", "val_top5_error")
    steps, seconds, target = EPOCHS * IMAGES // BATCH, 7e7, 0.24
    batched = False
    schedule = "poly"

    def missing(self) -> str | None:
        folder = os.environ.get(VARIABLE, "")
        if not folder:
            return f"{VARIABLE} must name a folder of ImageNet with {LAYOUT}, but is not set"
        for part in ("train", "val"):
            if next(Path(folder).glob(f"{part}/*/*.JPEG"), None) is None:
                return f"{VARIABLE} must name a folder with {LAYOUT}, got {folder!r}, without {part}/CLASS/*.JPEG"
        return None

    @property
    def source(self) -> str:
        return str(Path(os.environ.get(VARIABLE, "")).resolve())

    @cached_property
    def files(self) -> dict[str, list[tuple[Path, int]]]:
        """The images of each part, and the place of their class among the folders of ``train``."""
        if reason := self.missing():
            raise ValueError(reason)
        folder = Path(os.environ[VARIABLE])
        found = {part: sorted(folder.glob(f"{part}/*/*.JPEG")) for part in ("train", "val")}
        classes = {name: i for i, name in enumerate(sorted({path.parent.name for path in found["train"]}))}
        if unknown := {path.parent.name for path in found["val"]} - classes.keys():
            raise ValueError(f"{VARIABLE} must have the classes of val in train too, got {min(unknown)!r} in val alone")
        return {part: [(path, classes[path.parent.name]) for path in paths] for part, paths in found.items()}

    def load(self) -> Data:
        """A fixed sample of the training images, as they are evaluated."""
        order = torch.randperm(len(self.files["train"]), generator=self.generator(0, "sample"))
        return {"train": read([self.files["train"][i] for i in order[:SAMPLE]])}

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        channels = 64
        params = {"stem.weight": he_normal((channels, 3, 7, 7), random)}
        for stage, (blocks, width, _) in enumerate(STAGES, 1):
            for block in (f"stage{stage}.block{i}" for i in range(1, blocks + 1)):
                shapes = [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
                for i, shape in enumerate(shapes, 1):
                    norm_start(params, f"{block}.norm{i}", shape[1])
                    params[f"{block}.conv{i}.weight"] = he_normal(shape, random)
                if channels != 4 * width:
                    params[f"{block}.shortcut.weight"] = he_normal((4 * width, channels, 1, 1), random)
                channels = 4 * width
        norm_start(params, "norm", channels)
        classes = 1 + max(number for _, number in self.files["train"])
        return params | {"output.weight": he_normal((classes, channels), random), "output.bias": torch.zeros(classes)}

    def batches(self, seed: int) -> Iterator[Batch]:
        """Places of 128 training images (all, if there are fewer), and numbers that say how to crop and mirror each."""
        random = self.generator(seed, "order")
        n = len(self.files["train"])
        size = min(BATCH, n)
        while True:
            for places in torch.randperm(n, generator=random).split(size):
                if len(places) == size:
                    yield places, torch.rand(size, 4 * ATTEMPTS + 1, generator=random)

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        places, draws = batch
        x, y = read([self.files["train"][i] for i in places.tolist()], draws.tolist())
        return cross_entropy(forward(params, x.to(places.device)), y.to(places.device))

    def evaluate(self, params: Tensors) -> Tensors:
        known: Statistics = {}
        x, y = self.data["train"]
        train_loss = cross_entropy(forward(params, x, known), y)
        files, device = self.files["val"], x.device
        sums = torch.zeros(3, device=device)
        for i in range(0, len(files), BATCH):
            x, y = (tensor.to(device) for tensor in read(files[i : i + BATCH]))
            logits = forward(params, x, known)
            best = logits.topk(min(5, logits.shape[1])).indices == y[:, None]
            sums += torch.stack([cross_entropy(logits, y) * len(y), (~best[:, 0]).sum(), (~best.any(1)).sum()])
        return dict(zip(self.metrics, (train_loss, *sums / len(files)), strict=True))


def forward(params: Tensors, x: Tensor, known: Statistics | None = None) -> Tensor:
    """The logits of images (N, 3, H, W)."""
    x = F.max_pool2d(conv(x, params["stem.weight"], 2), 3, 2, 1)
    for block, stride in STRIDES.items():
        active = norm_relu(params, f"{block}.norm1", x, known)
        if f"{block}.shortcut.weight" in params:
            x = conv(active, params[f"{block}.shortcut.weight"], stride)
        y = conv(active, params[f"{block}.conv1.weight"])
        y = conv(norm_relu(params, f"{block}.norm2", y, known), params[f"{block}.conv2.weight"], stride)
        x = x + conv(norm_relu(params, f"{block}.norm3", y, known), params[f"{block}.conv3.weight"])
    x = norm_relu(params, "norm", x, known).mean((2, 3))
    return x @ params["output.weight"].T + params["output.bias"]


def read(files: Sequence[tuple[Path, int]], draws: Sequence[Sequence[float]] | None = None) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 3, 224, 224) and classes; ``draws`` are numbers in [0, 1) by which to crop and mirror."""
    with ThreadPoolExecutor() as pool:
        images = pool.map(picture, [path for path, _ in files], draws or [None] * len(files))
        pixels = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2) / 255
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation, torch.tensor([number for _, number in files])


def picture(path: Path, draws: Sequence[float] | None) -> np.ndarray:
    """The 224 x 224 x 3 bytes that the network is shown of a file."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    if draws is not None:
        *numbers, side = draws
        image = image.resize((224, 224), Image.Resampling.BILINEAR, random_box(*image.size, numbers))
        return np.asarray(image)[:, :: -1 if side < 0.5 else 1]
    short = min(image.size)
    width, height = (round(256 * side / short) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def random_box(width: int, height: int, numbers: Sequence[float]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the first crop that fits, four numbers each; if none does, a central square."""
    for area, shape, x, y in zip(*(numbers[i::4] for i in range(4)), strict=True):
        area, ratio = (0.08 + 0.92 * area) * width * height, math.exp((2 * shape - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
