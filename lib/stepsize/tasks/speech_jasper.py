"""Speech recognition: strings of spoken digits, spelt letter by letter by a small Jasper network with CTC."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import formants
from .base import Batch, Data, Task, Tensors, task

BATCH = 16
SECONDS, WINDOW, HOP, BANDS = 1.2, 256, 100, 32
# Voices and strings of each part.
PARTS = {"train": (24, 512), "val": (8, 96), "test": (8, 128)}
# As many of the training strings give batch norm its statistics and train_loss its value.
SEEN = 128
LETTERS = "-" + "".join(sorted({letter for word in [*formants.WORDS, " "] for letter in word}))  # "-" is CTC's blank
# Name: channels in and out, width of the filter, stride, dilation.
CONVS = {
    "prologue": (BANDS, 32, 11, 2, 1),
    "block1.sub1": (32, 32, 9, 1, 1),
    "block1.sub2": (32, 32, 9, 1, 1),
    "block1.residual": (32, 32, 1, 1, 1),
    "block2.sub1": (32, 32, 9, 1, 1),
    "block2.sub2": (32, 32, 9, 1, 1),
    "block2.residual": (32, 32, 1, 1, 1),
    "epilogue1": (32, 32, 9, 1, 2),
    "epilogue2": (32, 64, 1, 1, 1),
}


@task
class SpeechJasper(Task):
    """Spoken digit strings, spelt letter by letter by a small Jasper network.

    Data: strings of two or three digits, spoken by ``formants`` in clips of 1.2 s at 8,000 Hz, drawn once and for all.
    24 voices say 512 strings to train, 8 others 96 to validate (choose hyper-parameters), 8 others 128 to test (report;
    313 words). Voices differ in pitch (85 to 255 Hz), vocal tract, speed and breath; each clip has its own noise, 5
    to 25 dB below the speech. Input: 32 log-mel bands every 12.5 ms. Model: Jasper (Li et al., 2019) made small: a
    prologue with stride 2, two blocks of two sub-blocks (convolution over time, batch norm, ReLU) with a residual
    through a convolution of width 1 and batch norm, an epilogue with dilation 2, one of width 1, and 17 outputs: 15
    letters, space, blank. No dropout. 63,185 parameters; weights as torch starts them, uniform within 1 / sqrt(inputs).
    Loss: CTC in nats a letter (mean over strings of the loss over the number of letters), batches of 16 from a fresh
    shuffle each epoch of 32 steps.

    Metrics: ``val_wer`` and ``test_wer``, the share of word errors (replaced, left out, put in; over the words said;
    jiwer) of greedy decoding; ``val_loss``; and ``train_loss`` on the first 128 training strings. These also give
    batch norm the statistics it is evaluated with, exactly, layer by layer: all 512 would cost four times that. The
    best constant answer, "one eight", has a test_wer of 0.84. Runs go one after another: torch has no batching rule
    for CTC, and convolutions mapped over runs are no faster.
    """

    name = "speech-jasper"
    description = "digit strings of a formant synthesiser, small Jasper network with CTC, batch 16; word error rate"
    metric = "test_wer"
    metrics = ("train_loss", "val_loss", "val_wer", "test_wer")
    steps, seconds, target = 400, 7, 0.2
    batched = False
    packages = ("jiwer",)

    def load(self) -> Data:
        """Features (strings, 32 bands, 97 frames), letters padded with blanks, and how many letters there are."""
        random = np.random.default_rng(0)
        texts, voices, snrs = zip(*draw(random), strict=True)
        sounds = formants.synthesise(texts, voices, snrs, random, SECONDS)
        spelt = [torch.tensor([LETTERS.index(letter) for letter in text]) for text in texts]
        rows = (
            log_mel(torch.from_numpy(sounds)),
            torch.nn.utils.rnn.pad_sequence(spelt, batch_first=True),
            torch.tensor([len(letters) for letters in spelt]),
        )
        sizes = [strings for _, strings in PARTS.values()]
        return dict(zip(PARTS, zip(*(x.split(sizes) for x in rows), strict=True), strict=True))

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """What was said in each part."""
        return {part: [read(row) for row in letters.tolist()] for part, (_, letters, _) in self.data.items()}

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")

        def uniform(*shape: int) -> Tensor:
            return (2 * torch.rand(shape, generator=random) - 1) / (shape[1] * shape[2]) ** 0.5

        params = {}
        for name, (inside, outside, width, _, _) in CONVS.items():
            params[f"{name}.weight"] = uniform(outside, inside, width)
            params[f"{name}.scale"] = torch.ones(outside)
            params[f"{name}.shift"] = torch.zeros(outside)
        params["letters.weight"] = uniform(len(LETTERS), 64, 1)
        params["letters.bias"] = torch.zeros(len(LETTERS))
        return params

    def batches(self, seed: int) -> Iterator[Batch]:
        """Places of 16 strings in the training set."""
        random = self.generator(seed, "order")
        n = len(self.data["train"][0])
        while True:
            order = torch.randperm(n, generator=random)
            yield from ((order[i : i + BATCH],) for i in range(0, n - BATCH + 1, BATCH))

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        x, letters, lengths = (rows[batch[0]] for rows in self.data["train"])
        return ctc(forward(params, x, len(x)), letters, lengths)

    def evaluate(self, params: Tensors) -> Tensors:
        import jiwer

        parts = {part: [rows[:SEEN] for rows in data] for part, data in self.data.items()}
        features = [x for x, _, _ in parts.values()]
        scores = forward(params, torch.cat(features), SEEN).split([len(x) for x in features])
        metrics = {}
        for (part, (_, letters, lengths)), ours in zip(parts.items(), scores, strict=True):
            if part != "test":
                metrics[f"{part}_loss"] = ctc(ours, letters, lengths)
            if part != "train":
                metrics[f"{part}_wer"] = torch.tensor(jiwer.wer(self.texts[part], transcribe(ours)), device=ours.device)
        return metrics


def forward(params: Tensors, x: Tensor, seen: int) -> Tensor:
    """Log-probabilities (strings, letters, frames); the first ``seen`` strings give batch norm its statistics."""

    def conv(name: str, x: Tensor) -> Tensor:
        _, _, width, stride, dilation = CONVS[name]
        x = F.conv2d(x, flat(params[f"{name}.weight"]), None, (1, stride), (0, dilation * (width // 2)), (1, dilation))
        if seen == len(x):
            return F.batch_norm(x, None, None, params[f"{name}.scale"], params[f"{name}.shift"], training=True)
        var, mean = torch.var_mean(x[:seen], (0, 2, 3), correction=0)
        return F.batch_norm(x, mean, var, params[f"{name}.scale"], params[f"{name}.shift"])

    x = conv("prologue", flat(x)).relu()
    for block in ("block1", "block2"):
        inside = conv(f"{block}.sub2", conv(f"{block}.sub1", x).relu())
        x = (inside + conv(f"{block}.residual", x)).relu()
    x = conv("epilogue2", conv("epilogue1", x).relu()).relu()
    return F.conv2d(x, flat(params["letters.weight"]), params["letters.bias"])[:, :, 0].log_softmax(1)


def flat(x: Tensor) -> Tensor:
    """As an image one pixel high, channels last: on the CPU that convolution is a third faster than ``conv1d``."""
    return x[:, :, None].contiguous(memory_format=torch.channels_last)


def ctc(scores: Tensor, letters: Tensor, lengths: Tensor) -> Tensor:
    frames = torch.full_like(lengths, scores.shape[2])
    return F.ctc_loss(scores.permute(2, 0, 1), letters, frames, lengths)


def transcribe(scores: Tensor) -> list[str]:
    """The likeliest letter of each frame, repetitions and blanks struck out."""
    best = scores.argmax(1)
    new = torch.ones_like(best, dtype=torch.bool)
    new[:, 1:] = best[:, 1:] != best[:, :-1]
    return [read(row) for row in (best * new).tolist()]


def read(places: list[int]) -> str:
    return "".join(LETTERS[place] for place in places if place)


def draw(random: np.random.Generator) -> list[tuple[str, formants.Voice, float]]:
    """What is said, by whom, and how far above the noise in dB: one part after another, each with voices of its own."""
    drawn = []
    for voices, strings in PARTS.values():
        known = [draw_voice(random) for _ in range(voices)]
        for i in range(strings):
            text = " ".join(random.choice(list(formants.WORDS), random.integers(2, 4)))
            drawn.append((text, known[i % voices], random.uniform(5, 25)))
    return drawn


def draw_voice(random: np.random.Generator) -> formants.Voice:
    """The higher a voice, the shorter its vocal tract, more or less."""
    height = random.random()
    return formants.Voice(
        pitch=85 * 3**height,
        tract=1.05 - 0.2 * height + 0.03 * random.standard_normal(),
        speed=random.uniform(0.9, 1.3),
        breath=random.uniform(0.02, 0.2),
    )


def log_mel(sounds: Tensor) -> Tensor:
    """Log energies (sounds, bands, frames), each band scaled to mean 0 and variance 1 over its sound.

    Triangles of equal width on the mel scale, ``mel = 2595 log10(1 + hertz / 700)``, from 0 to 4,000 Hz.
    """
    power = torch.stft(sounds, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True).abs() ** 2
    mel = 2595 * torch.log10(1 + torch.linspace(0, formants.RATE / 2, WINDOW // 2 + 1) / 700)
    middles = torch.linspace(0, float(mel[-1]), BANDS + 2)[1:-1, None]
    energy = (1 - (mel - middles).abs() / middles[0]).clamp(min=0) @ power
    logs = energy.clamp(min=1e-10).log()
    return (logs - logs.mean(-1, keepdim=True)) / logs.std(-1, keepdim=True)
