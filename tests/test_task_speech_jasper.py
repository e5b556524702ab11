"""Tests of speech-jasper and of the synthesiser that speaks for it."""

import itertools
import math

import jiwer
import numpy as np
import pytest
import torch
from stepsize.tasks import TASKS, formants, speech_jasper
from torch import nn

TASK = TASKS["speech-jasper"]


def spectrum(sound):
    """Power of each frequency of 0 to 4,000 Hz, over the middle of a sound that does not change."""
    middle = sound[len(sound) // 2 - 800 : len(sound) // 2 + 800] * np.hanning(1600)
    return np.fft.rfftfreq(8000, 1 / 8000), np.abs(np.fft.rfft(middle, 8000)) ** 2


def first_formant(sound):
    """Where a vowel is loudest between 200 and 1,000 Hz, in Hz; the source falls with frequency, which is undone."""
    hertz, power = spectrum(sound)
    return hertz[(power * hertz**2 * (hertz > 200) * (hertz < 1000)).argmax()]


def held(name, voice, monkeypatch):
    """One sound of the table, held for a second."""
    monkeypatch.setitem(formants.SOUNDS, name, (1000, *formants.SOUNDS[name][1:]))
    monkeypatch.setitem(formants.WORDS, "held", name)
    return formants.speak("held", voice)


@pytest.mark.parametrize("name", ["IY", "IH", "EH", "AA", "AH", "AO", "UW"])
def test_vowel_has_a_peak_at_its_first_formant(name, monkeypatch):
    heard = first_formant(held(name, formants.Voice(pitch=25), monkeypatch))
    assert heard == pytest.approx(formants.SOUNDS[name][formants.F1], rel=0.1)


def test_vowel_has_a_peak_at_each_formant_and_a_valley_between(monkeypatch):
    hertz, power = spectrum(held("IY", formants.Voice(pitch=25), monkeypatch))

    def level(low, high):
        return 10 * math.log10(power[(hertz >= low) & (hertz < high)].max())

    assert level(200, 400) > level(900, 1400) + 20
    assert level(2100, 2500) > level(900, 1400) + 6


def test_shorter_vocal_tract_lifts_the_formants(monkeypatch):
    man, child = (first_formant(held("AA", formants.Voice(pitch=25, tract=tract), monkeypatch)) for tract in (1, 0.8))
    assert child / man == pytest.approx(1.25, rel=0.06)


def test_voice_has_its_pitch(monkeypatch):
    sound = held("AA", formants.Voice(pitch=125, breath=0), monkeypatch)[3000:6000]
    echo = np.correlate(sound, sound, "full")[len(sound) - 1 :]
    period = 30 + echo[30:130].argmax()
    assert 8000 / period == pytest.approx(125, rel=0.25)


def test_hiss_of_an_s_lies_high_and_a_vowel_low():
    def share_above_2500(sound):
        power = np.abs(np.fft.rfft(sound)) ** 2
        return power[len(power) * 5 // 8 :].sum() / power.sum()

    sound = formants.speak("six", formants.Voice(), seed=1)
    loud = np.flatnonzero(np.abs(sound) > 0.05)
    assert share_above_2500(sound[loud[-1] - 400 : loud[-1]]) > 0.5
    assert share_above_2500(formants.speak("one")) < 0.1


def test_speaking_gives_the_same_sound_for_a_seed_and_another_for_another():
    sound = formants.speak("two seven", seed=3)
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert 0.4 < np.abs(sound).max() < 0.6
    assert np.array_equal(sound, formants.speak("two seven", seed=3))
    assert not np.array_equal(sound[:4000], formants.speak("two seven", seed=4)[:4000])


def test_faster_voice_is_shorter_and_noise_is_as_loud_as_asked():
    slow, fast = (formants.speak("nine nine", formants.Voice(speed=speed)) for speed in (1.0, 1.5))
    assert (len(slow) - 1600) / (len(fast) - 1600) == pytest.approx(1.5, rel=0.1)
    clean, noisy = (formants.speak("nine nine", snr=snr).astype(float) for snr in (200, 10))
    assert 10 * math.log10((clean**2).mean() / ((noisy - clean) ** 2).mean()) == pytest.approx(10, abs=0.01)


def test_what_is_no_digit_is_refused():
    with pytest.raises(ValueError, match="'sixx' is not a digit; did you mean 'six'"):
        formants.speak("two sixx")
    with pytest.raises(ValueError, match="text must hold one digit or more, got none"):
        formants.speak(" ")


def test_parts_share_no_voice_and_hold_every_digit():
    drawn = speech_jasper.draw(np.random.default_rng(0))
    parts = {"train": drawn[:512], "val": drawn[512:608], "test": drawn[608:]}
    voices = [{voice for _, voice, _ in part} for part in parts.values()]
    assert [len(part) for part in parts.values()] == [512, 96, 128]
    assert [len(some) for some in voices] == [24, 8, 8] and len(set.union(*voices)) == 40
    for name, part in parts.items():
        assert TASK.texts[name] == [text for text, _, _ in part]
        assert {word for text, _, _ in part for word in text.split()} == set(formants.WORDS)


def test_letters_read_back_as_the_words():
    assert speech_jasper.LETTERS == "- efghinorstuvwxz"
    for part, (x, letters, lengths) in TASK.data.items():
        assert x.shape[1:] == (32, 97) and x.isfinite().all()
        torch.testing.assert_close(x.mean(-1), torch.zeros(x.shape[:2]), atol=1e-5, rtol=0)
        assert [len(text) for text in TASK.texts[part]] == lengths.tolist()
        assert torch.equal(letters > 0, torch.arange(letters.shape[1]) < lengths[:, None])


def test_tone_lies_in_the_band_of_its_mel():
    tones = torch.sin(2 * math.pi * torch.tensor([[500.0], [2000.0]]) * torch.arange(8000) / 8000)
    noise = 1e-3 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    sound = torch.cat([noise.expand(2, -1), tones + noise], 1)
    rise = speech_jasper.log_mel(sound)[..., 110:-5].mean(-1)
    top = 2595 * math.log10(1 + 4000 / 700)
    for row, hertz in zip(rise, (500, 2000), strict=True):
        assert abs(row.argmax() + 1 - 33 * 2595 * math.log10(1 + hertz / 700) / top) <= 2


class Jasper(nn.Module):
    """The same network of torch's own layers."""

    def __init__(self, params):
        super().__init__()
        self.layers = nn.ModuleDict()
        for name, (inside, outside, width, stride, dilation) in speech_jasper.CONVS.items():
            conv = nn.Conv1d(inside, outside, width, stride, dilation * (width // 2), dilation, bias=False)
            norm = nn.BatchNorm1d(outside, momentum=None)
            conv.weight.data, norm.weight.data, norm.bias.data = (
                params[f"{name}.{kind}"] for kind in ("weight", "scale", "shift")
            )
            self.layers[name.replace(".", "_")] = nn.Sequential(conv, norm)
        self.letters = nn.Conv1d(64, 17, 1)
        self.letters.weight.data, self.letters.bias.data = params["letters.weight"], params["letters.bias"]

    def forward(self, x):
        layers = self.layers
        x = layers["prologue"](x).relu()
        for block in ("block1", "block2"):
            inside = layers[f"{block}_sub1"](x).relu()
            x = (layers[f"{block}_sub2"](inside) + layers[f"{block}_residual"](x)).relu()
        x = layers["epilogue2"](layers["epilogue1"](x).relu()).relu()
        return self.letters(x).log_softmax(1)


def trained_a_little(seed=0):
    params = TASK.init(seed)
    random = torch.Generator().manual_seed(seed)
    return {name: p + 0.1 * torch.rand(p.shape, generator=random) for name, p in params.items()}


def test_network_and_loss_are_those_of_torch_nn():
    params = trained_a_little()
    assert sum(p.numel() for p in params.values()) == 63185
    ((places,),) = itertools.islice(TASK.batches(0), 1)
    x, letters, lengths = (rows[places] for rows in TASK.data["train"])
    scores = Jasper(params).train()(x)
    assert scores.shape == (16, 17, 49)
    torch.testing.assert_close(speech_jasper.forward(params, x, 16), scores, atol=1e-4, rtol=1e-4)
    expected = nn.CTCLoss()(scores.permute(2, 0, 1), letters, torch.full((16,), 49), lengths)
    torch.testing.assert_close(TASK.loss(params, (places,)), expected)


def test_evaluation_normalises_by_the_training_strings_alone():
    params = trained_a_little()
    x = torch.cat([TASK.data["train"][0][:128], TASK.data["test"][0]])
    network = Jasper(params).train()
    scores = speech_jasper.forward(params, x, 128)
    torch.testing.assert_close(scores[:128], network(x[:128]), atol=1e-4, rtol=1e-4)
    # torch keeps the unbiased variance, hence the tolerance.
    torch.testing.assert_close(scores[128:], network.eval()(x[128:]), atol=5e-3, rtol=5e-3)


def test_greedy_decoding_strikes_out_repetitions_then_blanks():
    letters = ["--tth-re-e--  ooone", "------", "ss-sii-x"]
    scores = torch.zeros(3, 17, 19)
    for row, text in enumerate(letters):
        for frame, letter in enumerate(text.ljust(19, "-")):
            scores[row, speech_jasper.LETTERS.index(letter), frame] = 1
    assert speech_jasper.transcribe(scores) == ["three one", "", "ssix"]


def test_word_error_rate_is_counted_over_all_words_of_the_part():
    params = trained_a_little()
    x = torch.cat([TASK.data["train"][0][:128], TASK.data["val"][0]])
    guesses = speech_jasper.transcribe(speech_jasper.forward(params, x, 128))[128:]
    spoken = TASK.texts["val"]
    edits = sum(distance(a.split(), b.split()) for a, b in zip(spoken, guesses, strict=True))
    expected = edits / sum(len(text.split()) for text in spoken)
    assert TASK.evaluate(params)["val_wer"].item() == pytest.approx(expected)
    assert jiwer.wer(["one two three", "four"], ["one three", "four four"]) == 2 / 4


def distance(a, b):
    """Words to replace, put in and leave out to come from ``a`` to ``b``."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]
