"""Rates that change with the step: the schedules by name, the range test, warm-up, and normalised decay.

A schedule is a plain function ``factor = schedule(step, total_steps, **options)``: ``step`` counts from 0, the
factor multiplies the base rate. A sweep calls it; :func:`scheduler` makes the torch scheduler of it. Where torch has
the same schedule the docstring names it, and a test holds the two together.
"""

from __future__ import annotations

import ast
import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .rules.base import suggestion

Schedule = Callable[..., float]


def constant(step: int, total_steps: int) -> float:
    """The base rate throughout (torch's ``ConstantLR`` with ``factor=1``)."""
    _run(step, total_steps)
    return 1.0


def warmup(step: int, total_steps: int, *, over: int | None = None) -> float:
    """Rise linearly over ``over`` steps (default: a tenth of the run) to the base rate, and stay.

    The factor of the first step is ``1 / over``, that of step ``over`` is 1. Torch's
    ``LinearLR(start_factor=1 / over, total_iters=over - 1)``. Before another schedule: :func:`after_warmup`.
    """
    _run(step, total_steps)
    return min(1.0, (step + 1) / _count("over", max(1, total_steps // 10) if over is None else over))


def poly(step: int, total_steps: int, *, power: float = 2.0, end: float = 0.0) -> float:
    """Fall as ``(1 - step / total_steps) ** power`` to ``end``; with power 2, NovoGrad's (torch's ``PolynomialLR``)."""
    left = 1 - _run(step, total_steps)
    return _fraction("end", end) + (1 - end) * left ** _positive("power", power)


def cosine(step: int, total_steps: int, *, end: float = 0.0) -> float:
    """Fall along half a cosine to ``end`` (torch's ``CosineAnnealingLR``)."""
    return _cosine(1.0, _fraction("end", end), _run(step, total_steps))


def warm_restarts(step: int, total_steps: int, *, period: int | None = None, mult: int = 1, end: float = 0.0) -> float:
    """SGDR: fall along half a cosine, jump back to the base rate, and again, each time ``mult`` times as long.

    ``period`` is the length of the first fall, in steps (default: a quarter of the run). Torch's
    ``CosineAnnealingWarmRestarts``. Loshchilov & Hutter, ICLR 2017, arXiv 1608.03983 (the formula is our reading).
    """
    _run(step, total_steps)
    left = step
    length = _count("period", max(1, total_steps // 4) if period is None else period)
    _count("mult", mult)
    while left >= length:
        left -= length
        length *= mult
    return _cosine(1.0, _fraction("end", end), left / length)


def triangular(step: int, total_steps: int, *, stepsize: float | None = None, low: float = 0.25) -> float:
    """Smith's triangular cycle: from ``low`` up to the base rate in ``stepsize`` steps, and down again.

    ``stepsize`` defaults to an eighth of the run: four cycles. Torch's ``CyclicLR`` equals it in all three modes.
    Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, arXiv 1506.01186.
    """
    _, height = _cycle(step, total_steps, stepsize)
    return _fraction("low", low) + (1 - low) * height


def triangular2(step: int, total_steps: int, *, stepsize: float | None = None, low: float = 0.25) -> float:
    """The triangular cycle, each half as high as the last; see :func:`triangular`."""
    cycle, height = _cycle(step, total_steps, stepsize)
    return _fraction("low", low) + (1 - low) * height / 2 ** (cycle - 1)


def exp_range(
    step: int, total_steps: int, *, stepsize: float | None = None, low: float = 0.25, gamma: float | None = None
) -> float:
    """The triangular cycle, its height times ``gamma ** step`` (default: 0.1 at the end); see :func:`triangular`."""
    _, height = _cycle(step, total_steps, stepsize)
    if gamma is None:
        gamma = 0.1 ** (1 / total_steps)
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must be in (0, 1], got {gamma!r}")
    return _fraction("low", low) + (1 - low) * height * gamma**step


def one_cycle(step: int, total_steps: int, *, rise: float = 0.3, div: float = 25.0, final_div: float = 1e4) -> float:
    """Along a cosine from ``1 / div`` up in the first ``rise`` of the run, then down to ``1 / (div * final_div)``.

    Torch's ``OneCycleLR`` with two phases (its ``max_lr`` is our base rate, ``rise`` its ``pct_start``); the momentum,
    which torch's cycles the other way, is left alone here. ``total_steps`` must be 2 or more; the end is the last
    step, ``total_steps - 1``. After Smith & Topin, arXiv 1708.07120, and Smith, arXiv 1803.09820.
    """
    _run(step, total_steps)
    if total_steps < 2:
        raise ValueError(f"total_steps must be 2 or more, got {total_steps!r}")
    start, last = 1 / _positive("div", div), total_steps - 1
    top = _fraction("rise", rise) * total_steps - 1
    if step <= top:
        return _cosine(start, 1.0, step / top) if top > 0 else 1.0
    return _cosine(1.0, start / _positive("final_div", final_div), (min(step, last) - top) / (last - top))


SCHEDULES: dict[str, Schedule] = {
    schedule.__name__: schedule
    for schedule in (
        constant, warmup, poly, cosine, warm_restarts, triangular, triangular2, exp_range, one_cycle,
    )
}  # fmt: skip


def find(schedule: str | Schedule, **options: Any) -> Schedule:
    """``schedule(step, total_steps)`` by name, with ``options`` filled in; a function passes through.

    The options may stand in the name: ``"poly(power=1)"``. Raises ``KeyError`` for an unknown name, ``TypeError``
    for an unknown option, with the nearest known one, and ``ValueError`` for a text that is no such name.
    """
    if isinstance(schedule, str):
        schedule, written = _parsed(schedule)
        options = {**written, **options}
        if schedule not in SCHEDULES:
            raise KeyError(f"no schedule named {schedule!r}{suggestion(schedule, SCHEDULES)}")
        schedule = SCHEDULES[schedule]
        known = [name for name in inspect.signature(schedule).parameters if name not in ("step", "total_steps")]
        for name in options:
            if name not in known:
                end = suggestion(name, known) if known else "; it takes no options"
                raise TypeError(f"{schedule.__name__} has no {name!r}{end}")
    chosen = schedule
    return lambda step, total_steps: chosen(step, total_steps, **options)


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """``"poly(power=1)"`` as the name and its options."""
    if text.isidentifier():
        return text, {}
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        return call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"schedule must be a name such as cosine or poly(power=1), got {text!r}") from None


def after_warmup(schedule: str | Schedule, warmup_steps: int, **options: Any) -> Schedule:
    """``schedule`` with a linear warm-up before it: ``warmup_steps`` steps up to its first factor, then its own course.

    The schedule begins when the warm-up ends, and has ``total_steps - warmup_steps`` steps. 0 means none.
    """
    later = find(schedule, **options)
    _count("warmup_steps", warmup_steps, least=0)

    def warmed(step: int, total_steps: int) -> float:
        _run(step, total_steps)
        if warmup_steps >= total_steps:
            raise ValueError(f"warmup_steps must be less than total_steps, {total_steps}, got {warmup_steps}")
        left = total_steps - warmup_steps
        if step < warmup_steps:
            return later(0, left) * warmup(step, total_steps, over=warmup_steps)
        return later(step - warmup_steps, left)

    return warmed


def scheduler(
    optimizer: Optimizer, schedule: str | Schedule, total_steps: int, *, warmup_steps: int = 0, **options: Any
) -> LambdaLR:
    """The torch scheduler of a schedule: call its ``step()`` after each of the optimizer's.

    ``schedule`` is a name of ``SCHEDULES`` with its ``options``, or a function of ``(step, total_steps)``. The base
    rate of each group is its ``lr``. It composes as torch's do, in ``ChainedScheduler`` (factors multiply) or
    ``SequentialLR``.
    """
    chosen = after_warmup(schedule, warmup_steps, **options)
    chosen(0, total_steps)  # a bad option is an error here, before the optimizer is touched
    return LambdaLR(optimizer, lambda step: chosen(step, total_steps))


def untuned_warmup(beta2: float) -> int:
    """How many steps Adam's warm-up should take if nobody tunes it: ``2 / (1 - beta2)``, 2000 for 0.999.

    Ma & Yarats, On the adequacy of untuned warmup for adaptive optimization, 2019, arXiv 1910.04209 (our reading).
    """
    if not 0 <= beta2 < 1:
        raise ValueError(f"beta2 must be in [0, 1), got {beta2!r}")
    return round(2 / (1 - beta2))


def normalized_weight_decay(norm: float, batch_size: int, samples: int, epochs: float) -> float:
    """The decay ``norm * sqrt(batch_size / (samples * epochs))``, so that one ``norm`` suits runs of any length.

    It is the paper's decay, which the rate does not multiply: for a decoupled decay that ``lr`` multiplies, as
    torch's ``AdamW``, divide it by the base rate. Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101 (our reading).
    """
    if not 0 <= norm < math.inf:
        raise ValueError(f"norm must be 0 or more, got {norm!r}")
    return norm * math.sqrt(
        _count("batch_size", batch_size) / (_count("samples", samples) * _positive("epochs", epochs))
    )


RULES_OF_THUMB = {
    "steepest": "the rate at which the smoothed loss falls fastest, per decade of the rate, before its lowest value",
    "decade": "a tenth of the rate at which the loss diverged",
}


@dataclass(frozen=True)
class RangeTest:
    """What :func:`lr_range_test` saw, all that a plot needs: ``losses[i]`` was measured before a step at ``rates[i]``.

    ``smoothed`` is a centred running mean of ``losses``. ``diverged_at`` is the rate at which the test stopped, or
    ``None`` if it reached the end. ``suggestion`` is a rate, found by ``rule``, which ``why`` says in words; it is
    ``None`` where the rule does not apply: the loss never fell, or never diverged.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged_at: float | None
    rule: str

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest before its lowest value, or ``None`` if it never falls."""
        rates, losses = self.rates, self.smoothed
        lowest = losses.index(min(losses)) if losses else 0
        slopes = [(losses[i + 1] - losses[i]) / math.log(rates[i + 1] / rates[i]) for i in range(lowest)]
        if not slopes or min(slopes) >= 0:
            return None
        i = slopes.index(min(slopes))
        return math.sqrt(rates[i] * rates[i + 1])

    @property
    def decade_below(self) -> float | None:
        """A tenth of the rate at which the loss diverged, or ``None`` if it did not."""
        return None if self.diverged_at is None else self.diverged_at / 10

    @property
    def suggestion(self) -> float | None:
        """The rate that ``rule`` suggests."""
        return self.steepest if self.rule == "steepest" else self.decade_below

    @property
    def why(self) -> str:
        """The rule behind the suggestion, in words."""
        return RULES_OF_THUMB[self.rule]


def lr_range_test(
    optimizer: Optimizer,
    closure: Callable[[], Any],
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    window: int = 5,
    diverged: float = 4.0,
    rule: str = "steepest",
) -> RangeTest:
    """Train for ``steps`` steps while the rate rises from ``low`` to ``high``, by the same factor each time.

    ``closure`` is torch's: it clears the gradients, takes the next batch, calls ``backward`` and returns the loss.
    All groups get the same rate. The test stops where the loss is not finite or above ``diverged`` times the lowest
    one so far (for positive losses). ``window`` is the width of the running mean, an odd number of points. ``rule``
    is ``"steepest"`` (the rate at which the smoothed loss falls fastest per decade) or ``"decade"`` (a tenth of the
    rate at which it diverged).

    Afterwards parameters, optimizer and rates are as before; what the optimizer does not hold is not: the running
    statistics of batch normalisation, the place in the data. Smith, WACV 2017, arXiv 1506.01186 (rising there
    linearly, as we remember it; exponentially is the custom since).
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be 0 < low < high, got {low!r} and {high!r}")
    if _count("steps", steps) < 3:
        raise ValueError(f"steps must be 3 or more, got {steps!r}")
    if _count("window", window) % 2 == 0:
        raise ValueError(f"window must be odd, got {window!r}")
    if not diverged > 1:
        raise ValueError(f"diverged must be above 1, got {diverged!r}")
    if rule not in RULES_OF_THUMB:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES_OF_THUMB))}, got {rule!r}")
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before, saved = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())
    rates: list[float] = []
    losses: list[float] = []
    diverged_at = None
    try:
        for i in range(steps):
            rate = low * (high / low) ** (i / (steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = optimizer.step(closure)
            loss = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
            if not math.isfinite(loss) or (losses and loss > diverged * min(losses) > 0):
                diverged_at = rate
                break
            rates.append(rate)
            losses.append(loss)
    finally:
        with torch.no_grad():
            for p, value in zip(params, before, strict=True):
                p.copy_(value)
        optimizer.load_state_dict(saved)
    return RangeTest(rates, losses, _running_mean(losses, window), diverged_at, rule)


def _running_mean(values: list[float], window: int) -> list[float]:
    """Centred, over fewer values near the ends: as many on both sides."""
    means = []
    for i in range(len(values)):
        reach = min(window // 2, i, len(values) - 1 - i)
        means.append(math.fsum(values[i - reach : i + reach + 1]) / (2 * reach + 1))
    return means


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _cycle(step: int, total_steps: int, stepsize: float | None) -> tuple[int, float]:
    """Which cycle it is, from 1, and how high in it, from 0 to 1: Smith's formula."""
    _run(step, total_steps)
    stepsize = _positive("stepsize", max(1.0, total_steps / 8) if stepsize is None else stepsize)
    cycle = math.floor(1 + step / (2 * stepsize))
    return cycle, max(0.0, 1 - abs(step / stepsize - 2 * cycle + 1))


def _run(step: int, total_steps: int) -> float:
    """The part of the run that is done, at most 1; refuses a run or a step that is none."""
    if step < 0:
        raise ValueError(f"step must be 0 or more, got {step!r}")
    return min(1.0, step / _count("total_steps", total_steps))


def _count(name: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return value


def _positive(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return value


def _fraction(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return value
