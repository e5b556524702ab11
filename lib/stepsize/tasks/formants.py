"""A small formant synthesiser: English digit strings as sound, many utterances at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rules.base import suggestion

Array = NDArray[np.float32]
Wide = NDArray[np.float64]

RATE = 8000
# Samples for which the vocal tract stands still: 5 ms.
FRAME = 40
# What stands in a row of SOUNDS, in this order.
MS, VOICE, HISS, CENTRE, WIDTH, F1, F2, F3, PITCH = range(9)

# Milliseconds; loudness of the voice and of the hiss; centre and bandwidth of the hiss in Hz; three formants in Hz.
SOUNDS = {
    "_": (60, 1e-5, 0.0, 3300, 1000, 500, 1500, 2500),  # a pause; never silent, for a filter that dies away is slow
    "IY": (120, 1.0, 0.0, 3300, 1000, 270, 2290, 3010),
    "IH": (90, 1.0, 0.0, 3300, 1000, 390, 1990, 2550),
    "EH": (100, 1.0, 0.0, 3300, 1000, 530, 1840, 2480),
    "AA": (110, 1.0, 0.0, 3300, 1000, 730, 1090, 2440),
    "AH": (120, 1.0, 0.0, 3300, 1000, 640, 1190, 2390),
    "AO": (110, 1.0, 0.0, 3300, 1000, 570, 840, 2410),
    "UH": (80, 1.0, 0.0, 3300, 1000, 440, 1020, 2240),
    "UW": (150, 1.0, 0.0, 3300, 1000, 300, 870, 2240),
    "AX": (50, 0.8, 0.0, 3300, 1000, 500, 1500, 2500),  # the neutral vowel: a uniform tube of 17 cm
    "W": (70, 0.6, 0.0, 3300, 1000, 290, 610, 2150),
    "R": (70, 0.7, 0.0, 3300, 1000, 310, 1060, 1380),
    "N": (80, 0.4, 0.0, 3300, 1000, 250, 1340, 2470),
    "V": (60, 0.4, 0.1, 2500, 2500, 220, 1100, 2080),
    "Z": (90, 0.3, 0.3, 3600, 500, 240, 1390, 2530),
    "F": (100, 0.0, 0.25, 2500, 2500, 340, 1100, 2080),
    "TH": (90, 0.0, 0.15, 3200, 1500, 320, 1290, 2540),
    "S": (110, 0.0, 0.5, 3600, 500, 320, 1390, 2530),
    "t": (50, 0.0, 0.0, 3300, 800, 400, 1600, 2600),  # the closure before a burst
    "T": (30, 0.0, 0.7, 3300, 800, 400, 1600, 2600),
    "k": (50, 0.0, 0.0, 1900, 500, 300, 1990, 2850),
    "K": (30, 0.0, 0.5, 1900, 500, 300, 1990, 2850),
}
WORDS = {
    "zero": "Z IH R AO UH",
    "one": "W AH N",
    "two": "t T UW",
    "three": "TH R IY",
    "four": "F AO R",
    "five": "F AA IH V",
    "six": "S IH k K S",
    "seven": "S EH V AX N",
    "eight": "EH IY t T",
    "nine": "N AA IH N",
}
PAUSE = (*SOUNDS["_"], 1.0)
BANDWIDTHS = (60.0, 90.0, 120.0, 200.0)


@dataclass(frozen=True)
class Voice:
    """Who speaks: ``pitch`` in Hz; length of the vocal ``tract`` beside that of an average man, ``speed`` beside the
    durations of ``SOUNDS``; ``breath``, the noise at the glottis beside its pulses.
    """

    pitch: float = 115.0
    tract: float = 1.0
    speed: float = 1.0
    breath: float = 0.05


def speak(text: str, voice: Voice = Voice(), snr: float = 40.0, seed: int = 0) -> Array:
    """The sound of a digit string such as ``"two seven"``: float32 at 8,000 Hz, its peak about 0.5.

    ``snr`` is how far the speech lies above the background noise, in dB. ``seed`` draws the noise and what differs
    between two utterances of one speaker. Raises ``ValueError`` for a word that is no digit.
    """
    return synthesise([text], [voice], [snr], np.random.default_rng(seed))[0]


def synthesise(
    texts: Sequence[str],
    voices: Sequence[Voice],
    snrs: Sequence[float],
    random: np.random.Generator,
    seconds: float | None = None,
) -> Array:
    """The sounds of many digit strings, (strings, samples), each at a place drawn in its clip of ``seconds``.

    Without ``seconds`` the clip is 0.2 s longer than the longest. What does not fit in is spoken faster.

    Source and filter. A voiced sound begins as the pulses of the glottis and some breath, and goes through four
    resonators in a row, the formants; a hiss goes through one of its own beside them. What each sound asks for stands
    in ``SOUNDS``, and is smoothed over time: the tract is slow. Formants of vowels: averages of the men in G. E.
    Peterson and H. L. Barney, "Control methods used in a study of the vowels", J. Acoust. Soc. Am. 24 (1952), as
    textbooks give them. Those of most consonants are the ones handed on with D. H. Klatt's synthesiser (J. Acoust.
    Soc. Am. 67, 1980); durations, loudness and hiss are ours, set by looking at spectrograms.
    """
    from scipy.ndimage import convolve1d

    limit = None if seconds is None else round(seconds * RATE / FRAME)
    scores = [_score(text, voice, random, limit) for text, voice in zip(texts, voices, strict=True)]
    frames = limit or max(len(score) for score in scores) + 40
    track = np.empty((frames + 1, len(texts), 9), np.float32)
    track[:] = PAUSE
    for string, score in enumerate(scores):
        start = random.integers(frames - len(score) + 1)
        track[start : start + len(score), string] = score
    # A window of 15 ms for the loudness, of 45 ms for what the tongue and the glottis do.
    for columns, reach in (([VOICE, HISS], 3), ([F1, F2, F3, PITCH], 9)):
        track[..., columns] = convolve1d(track[..., columns], _window(reach), axis=0, mode="nearest")
    pitch, tract, breath = (np.array([getattr(v, name) for v in voices]) for name in ("pitch", "tract", "breath"))
    track[..., PITCH] *= pitch * np.linspace(1.1, 0.9, frames + 1)[:, None]  # The voice sinks.

    hertz, width = np.empty((2, frames, 6, len(texts)))
    hertz[:, :3] = track[:-1, :, F1 : F3 + 1].transpose(0, 2, 1) / tract
    hertz[:, 3] = 3400 / tract
    width[:, :4] = np.array(BANDWIDTHS)[:, None]
    hertz[:, 4], width[:, 4] = track[:-1, :, CENTRE], track[:-1, :, WIDTH]
    hertz[:, 5], width[:, 5] = random.uniform(200, 2000, len(texts)), random.uniform(1000, 3000, len(texts))
    speech, background = _resonate(track, breath, np.minimum(hertz, 3900), width, random)

    speech *= 0.5 / np.abs(speech).max(axis=1, keepdims=True)
    power = np.einsum("ij,ij->i", speech, speech) / np.einsum("ij,ij->i", background, background)
    background *= np.sqrt(power / 10 ** (np.asarray(snrs) / 10))[:, None]
    speech += background
    return speech


def _score(text: str, voice: Voice, random: np.random.Generator, limit: int | None) -> Wide:
    """What is asked for in each frame: the columns of ``SOUNDS`` and a factor on the pitch."""
    names: list[str] = []
    for word in text.split():
        if word not in WORDS:
            raise ValueError(f"{word!r} is not a digit{suggestion(word, WORDS)}: known are {', '.join(WORDS)}")
        names += ["_", *WORDS[word].split()]
    if not names:
        raise ValueError("text must hold one digit or more, got none")
    rows = np.array([[*SOUNDS[name], 1.0] for name in names[1:]])
    # No one says a thing twice in the same way.
    rows[:, MS] *= np.exp(0.15 * random.standard_normal(len(rows))) / voice.speed
    rows[:, F1 : F3 + 1] *= np.exp(0.04 * random.standard_normal((len(rows), 3)))
    rows[:, PITCH] = np.exp(0.06 * random.standard_normal(len(rows)))
    frames = rows[:, MS] * RATE / 1000 / FRAME
    if limit and frames.sum() > limit - len(rows):
        frames *= (limit - len(rows)) / frames.sum()
    return np.repeat(rows, np.ceil(frames).astype(int), axis=0)


def _window(reach: int) -> Wide:
    window = np.hanning(reach + 2)[1:-1]
    return window / window.sum()


def _resonate(track: Array, breath: Wide, hertz: Wide, width: Wide, random: np.random.Generator) -> tuple[Array, Array]:
    """Speech and background, (strings, samples): four resonators in a row and one beside them; one more.

    Each is ``y[n] = a x[n] + b y[n-1] + c y[n-2]``. All take a step at once, for all strings, so each
    in the row hears the one before it a sample late.
    """
    radius = np.exp(-np.pi * width / RATE)
    b, c = 2 * radius * np.cos(2 * np.pi * hertz / RATE), -(radius**2)
    a = 1 - b - c  # Gain 1 at 0 Hz; for noise, at the peak.
    peak = np.sqrt(1 - 2 * radius * np.cos(4 * np.pi * hertz / RATE) + radius**2)
    a[:, 4:] = ((1 - radius) * peak)[:, 4:]
    a, b, c = (x.astype(np.float32) for x in (a, b, c))

    strings = len(breath)
    share = np.linspace(0, 1, FRAME, endpoint=False, dtype=np.float32)[:, None]
    breath = breath.astype(np.float32)
    phase = random.random(strings, np.float32)
    x, y, last, part = np.zeros((4, 6, strings), np.float32)
    heard = np.empty((2, FRAME, strings), np.float32)
    speech, background = np.empty((2, strings, len(a) * FRAME), np.float32)
    for frame in range(len(a)):
        voice, hiss, pitch = (
            track[frame, :, i] + share * (track[frame + 1, :, i] - track[frame, :, i]) for i in (VOICE, HISS, PITCH)
        )
        cycles = phase + np.cumsum(pitch / RATE, axis=0)
        phase = cycles[-1] % 1
        # Klatt's glottal pulse: the flow is s^2 - s^3 for six tenths of a period, else none; this is its slope.
        s = np.minimum(cycles % 1 / 0.6, 1)
        noise = random.standard_normal((3, FRAME, strings), np.float32)
        voice *= np.where(s < 1, 2 * s - 3 * s**2, 0) + breath * noise[0]
        hiss *= noise[1]
        for n in range(FRAME):
            x[0], x[1:4], x[4], x[5] = voice[n], y[:3], hiss[n], noise[2, n]
            x *= a[frame]
            last *= c[frame]
            last += x
            np.multiply(y, b[frame], out=part)
            last += part
            y, last = last, y
            np.add(y[3], y[4], out=heard[0, n])
            heard[1, n] = y[5]
        now = slice(frame * FRAME, (frame + 1) * FRAME)
        speech[:, now], background[:, now] = heard[0].T, heard[1].T
    return speech, background
