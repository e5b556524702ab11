"""Surfaces small enough to draw, and the one place where a rule's trajectory on them is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rules import Rule, find
from .rules.base import suggestion


@dataclass(frozen=True)
class Landscape:
    """A surface ``f`` over one or two coordinates, called as ``landscape(points)``: ``(…, d)`` in, ``(…)`` out.

    ``formula`` is LaTeX. ``view`` is the box to draw, ``((x_low, x_high), (y_low, y_high))``, or one pair
    for a surface over one coordinate. ``minima`` are the points where it is locally lowest. ``noise`` is
    the standard deviation of what :func:`gradient` adds to each component, drawn afresh at every step.
    """

    name: str
    title: str
    formula: str
    teaches: str
    start: tuple[float, ...]
    view: tuple[tuple[float, float], ...]
    minima: tuple[tuple[float, ...], ...]
    function: Callable[[Tensor], Tensor]
    noise: float = 0.0

    def __call__(self, points: Tensor) -> Tensor:
        return self.function(points)

    @property
    def dimensions(self) -> int:
        """1 or 2."""
        return len(self.start)

    @property
    def lowest(self) -> float:
        """The value at the deepest of the minima."""
        return min(float(self(torch.tensor(point, dtype=torch.float64))) for point in self.minima)


def _quadratic(condition: float, points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    return (x**2 + condition * y**2) / 2


def _rosenbrock(points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _beale(points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _saddle(points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    return (x**2 - y**2) / 2 + y**4 / 4


def _double_well(tilt: float, points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    return (x**2 - 1) ** 2 + tilt * x + y**2


def _parabola(points: Tensor) -> Tensor:
    return (points**2).sum(-1) / 2


def _absolute(points: Tensor) -> Tensor:
    return points.abs().sum(-1)


def quadratic(condition: float = 25.0) -> Landscape:
    """A bowl whose curvature is 1 along x and ``condition`` (1 or more) along y."""
    if not condition >= 1:
        raise ValueError(f"condition must be 1 or more, got {condition}")
    return Landscape(
        name="quadratic",
        title=f"Bowl, condition number {condition:g}",
        formula=rf"f(x, y) = \tfrac{{1}}{{2}} (x^2 + {condition:g}\, y^2)",
        teaches=f"A rate above 2/{condition:g} diverges along y, and any rate below it is slow along x.",
        start=(-2.0, 0.8),
        view=((-2.5, 2.5), (-1.25, 1.25)),
        minima=((0.0, 0.0),),
        function=partial(_quadratic, condition),
    )


def noisy_valley(noise: float = 1.0, condition: float = 10.0) -> Landscape:
    """The bowl, seen through gradients that carry Gaussian noise of standard deviation ``noise`` (0 or more)."""
    if not noise >= 0:
        raise ValueError(f"noise must be 0 or more, got {noise}")
    return Landscape(
        name="noisy_valley",
        title=f"Valley with gradient noise {noise:g}",
        formula=rf"f(x, y) = \tfrac{{1}}{{2}} (x^2 + {condition:g}\, y^2), \quad "
        rf"g_t = \nabla f + {noise:g}\, z_t, \quad z_t \sim N(0, I)",
        teaches="With a fixed rate the path never comes to rest: a smaller rate ends nearer, and gets there later.",
        start=(-2.0, 0.8),
        view=((-2.5, 2.5), (-1.25, 1.25)),
        minima=((0.0, 0.0),),
        function=partial(_quadratic, condition),
        noise=noise,
    )


def double_well(tilt: float = 0.3) -> Landscape:
    """A shallow basin near x = 1 beside a deep one near x = -1; ``tilt`` in (0, 1.5) is about half their difference."""
    if not 0 < tilt < 1.5:
        raise ValueError(f"tilt must be between 0 and 1.5, got {tilt}")
    deep, _, shallow = np.sort(np.roots([4, 0, -4, tilt]).real)
    return Landscape(
        name="double_well",
        title="A shallow basin beside a deep one",
        formula=rf"f(x, y) = (x^2 - 1)^2 + {tilt:g}\, x + y^2",
        teaches="What stops at the first minimum stays in the shallow basin on the right.",
        start=(1.7, 0.7),
        view=((-2.0, 2.0), (-1.0, 1.0)),
        minima=((float(deep), 0.0), (float(shallow), 0.0)),
        function=partial(_double_well, tilt),
    )


LANDSCAPES: dict[str, Landscape] = {
    landscape.name: landscape
    for landscape in (
        quadratic(),
        Landscape(
            name="rosenbrock",
            title="Rosenbrock's valley",
            formula=r"f(x, y) = (1 - x)^2 + 100\, (y - x^2)^2",
            teaches="Falling into the curved valley is quick; following its nearly flat floor is not.",
            start=(-1.2, 1.0),
            view=((-2.0, 2.0), (-0.8, 2.0)),
            minima=((1.0, 1.0),),
            function=_rosenbrock,
        ),
        Landscape(
            name="beale",
            title="Beale's function",
            formula=r"f(x, y) = (1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2",
            teaches="Plateaus and steep walls in one picture: no single rate suits both.",
            start=(1.0, 1.5),
            view=((-1.0, 4.5), (-1.5, 2.0)),
            minima=((3.0, 0.5),),
            function=_beale,
        ),
        Landscape(
            name="saddle",
            title="A saddle between two basins",
            formula=r"f(x, y) = \tfrac{1}{2} (x^2 - y^2) + \tfrac{1}{4} y^4",
            teaches="At the saddle the gradient vanishes, and what leads away from it is at first tiny.",
            start=(-1.6, 0.001),
            view=((-2.0, 2.0), (-1.5, 1.5)),
            minima=((0.0, -1.0), (0.0, 1.0)),
            function=_saddle,
        ),
        noisy_valley(),
        double_well(),
        Landscape(
            name="parabola",
            title="One parabola",
            formula=r"f(x) = \tfrac{1}{2} x^2",
            teaches="The whole theory of a fixed rate: each step multiplies the distance by 1 minus the rate.",
            start=(-2.0,),
            view=((-2.5, 2.5),),
            minima=((0.0,),),
            function=_parabola,
        ),
        Landscape(
            name="absolute",
            title="A kink",
            formula=r"f(x) = |x|",
            teaches="The gradient does not shrink near the minimum, so a fixed rate jumps across it for ever.",
            start=(-2.0,),
            view=((-2.5, 2.5),),
            minima=((0.0,),),
            function=_absolute,
        ),
    )
}


def get(landscape: str | Landscape) -> Landscape:
    """The landscape of that name, or the landscape itself; ``KeyError`` names the nearest known one."""
    if isinstance(landscape, Landscape):
        return landscape
    if landscape not in LANDSCAPES:
        raise KeyError(f"no landscape named {landscape!r}{suggestion(str(landscape), LANDSCAPES)}")
    return LANDSCAPES[landscape]


def noise(landscape: str | Landscape, steps: int, seed: int = 0) -> Tensor:
    """What is added to the gradient at steps 1 … ``steps``, ``(steps, d)``; a longer run begins with the same."""
    surface = get(landscape)
    drawn = np.random.default_rng(seed).standard_normal((steps, surface.dimensions))
    return surface.noise * torch.from_numpy(drawn)


def gradient(
    landscape: str | Landscape, point: Tensor | Sequence[float], *, seed: int = 0, step: int | None = None
) -> Tensor:
    """The gradient at ``point`` ``(…, d)``, float64; with ``step`` (1, 2, …), as run ``seed`` sees it at that step."""
    surface = get(landscape)
    points = torch.as_tensor(point, dtype=torch.float64)
    exact = torch.func.grad(lambda x: surface(x).sum())(points)
    return exact if step is None else exact + noise(surface, step, seed)[-1]


def trajectory(
    rule: str | Rule,
    landscape: str | Landscape,
    start: Tensor | Sequence[float] | Sequence[Sequence[float]] | None = None,
    steps: int = 100,
    seed: int | Sequence[int] = 0,
    **hyper: Any,
) -> Tensor:
    """Where ``rule`` goes: the points before the first step and after each, ``(steps + 1, d)``, float64.

    ``rule`` is a rule, or a name such as ``"sgdm"`` or ``"nag:torch"``. ``start`` is the landscape's own
    unless given. A hyper-parameter may be a function of ``t`` (a schedule). Many runs at once: give ``start``
    as ``(n, d)``, ``seed`` as n numbers, or any hyper-parameter as n values; the answer is then
    ``(n, steps + 1, d)``. A run that diverges ends in inf or NaN.
    Raises ``KeyError`` for an unknown rule or landscape, ``TypeError`` or ``ValueError`` for a wrong argument.
    """
    method, surface = find(rule) if isinstance(rule, str) else rule, get(landscape)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    p = torch.as_tensor(surface.start if start is None else start, dtype=torch.float64)
    if p.ndim not in (1, 2) or p.shape[-1] != surface.dimensions:
        raise ValueError(
            f"start must be {surface.dimensions} number(s), or a list of such, for {surface.name}; got {start!r}"
        )
    many_seeds = not isinstance(seed, (int, np.integer))
    seeds = list(seed) if isinstance(seed, Sequence) else [seed]
    fixed, batched = _split(method, hyper)
    sizes = {name: len(values) for name, values in batched.items()}
    sizes |= {"start": len(p)} if p.ndim == 2 else {}
    sizes |= {"seed": len(seeds)} if many_seeds else {}
    n = _common(sizes)
    added = torch.stack([noise(surface, steps, one) for one in seeds], dim=1)
    slope = torch.func.grad(lambda x: surface(x).sum())
    if n is None:
        return _run(method, lambda p, t: slope(p) + added[t - 1, 0], p, steps, fixed)
    p = p.expand(n, surface.dimensions)
    return _run(method, lambda p, t: slope(p) + added[t - 1], p, steps, fixed, batched).transpose(0, 1)


@dataclass(frozen=True)
class OnlineProblem:
    """At each step t the loss is ``slopes[t - 1] * x`` on ``interval``: ``slopes(steps, seed)`` gives them all.

    ``best`` is the end of the interval with the least loss in the long run.
    """

    name: str
    title: str
    formula: str
    slopes: Callable[[int, int], Tensor]
    best: float
    start: float = 0.0
    interval: tuple[float, float] = (-1.0, 1.0)


def counterexample(c: float = 3.0) -> OnlineProblem:
    """One steep step of slope ``c`` (above 2) up, two of slope 1 down: on the whole it goes up, so -1 is best.

    After Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, ICLR 2018; their rates are alpha / sqrt(t).
    """
    if not c > 2:
        raise ValueError(f"c must be above 2, got {c}")
    return OnlineProblem(
        name="counterexample",
        title=f"One step of slope {c:g}, two of slope -1",
        formula=rf"f_t(x) = {c:g}\,x \text{{ if }} t \bmod 3 = 1, \text{{ else }} -x",
        slopes=lambda steps, seed: _periodic([c, -1.0, -1.0], steps),
        best=-1.0,
    )


def rare_spike(random: bool = False) -> OnlineProblem:
    """Slope 1010 at one step in 101, or with ``random`` at each step with probability 0.01; else slope -10."""

    def drawn(steps: int, seed: int) -> Tensor:
        rare = np.random.default_rng(seed).random(steps) < 0.01
        return torch.from_numpy(np.where(rare, 1010.0, -10.0))

    when = r"\text{with probability } 0.01" if random else r"\text{if } t \bmod 101 = 1"
    return OnlineProblem(
        name="rare_spike",
        title="A rare steep step against many gentle ones",
        formula=rf"f_t(x) = 1010\,x \;{when}, \text{{ else }} -10\,x",
        slopes=drawn if random else lambda steps, seed: _periodic([1010.0] + [-10.0] * 100, steps),
        best=-1.0,
    )


def play(
    rule: str | Rule,
    problem: OnlineProblem,
    steps: int,
    start: Any = None,
    seed: int | Sequence[int] = 0,
    **hyper: Any,
) -> tuple[Tensor, Tensor]:
    """Run ``rule`` on an online problem, put back into the interval after each step: ``(x, regret)``.

    ``x`` has the point before the first step and after each, ``(steps + 1,)``; ``regret`` has, after each
    step, the loss so far minus that of the best fixed point for the steps so far, ``(steps,)``. With n
    values for ``start``, ``seed`` or a hyper-parameter both have n rows. A hyper-parameter may be a function of t.
    """
    method = find(rule) if isinstance(rule, str) else rule
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    low, high = problem.interval
    p = torch.as_tensor(problem.start if start is None else start, dtype=torch.float64)[..., None]
    if not ((p >= low) & (p <= high)).all():
        raise ValueError(f"start must be in [{low:g}, {high:g}], got {start!r}")
    many_seeds = not isinstance(seed, (int, np.integer))
    seeds = list(seed) if isinstance(seed, Sequence) else [seed]
    fixed, batched = _split(method, hyper)
    sizes = {name: len(values) for name, values in batched.items()}
    sizes |= {"start": len(p)} if p.ndim == 2 else {}
    sizes |= {"seed": len(seeds)} if many_seeds else {}
    n = _common(sizes)
    if n is not None:
        p = p.expand(n, 1)
    slopes = torch.stack([problem.slopes(steps, one) for one in seeds])
    steep = slopes.T[..., None] if many_seeds else slopes[0]
    many = None if n is None else batched
    x = _run(method, lambda p, t: steep[t - 1].expand_as(p), p, steps, fixed, many, problem.interval)
    x = x[..., 0].movedim(0, -1)
    slopes = slopes if many_seeds else slopes[0]
    total = slopes.cumsum(-1)
    return x, (slopes * x[..., :-1]).cumsum(-1) - torch.minimum(total * low, total * high)


def _periodic(period: list[float], steps: int) -> Tensor:
    return torch.tensor(period, dtype=torch.float64).repeat(-(-steps // len(period)))[:steps]


def _run(
    rule: Rule,
    gradient: Callable[[Tensor, int], Tensor],
    p: Tensor,
    steps: int,
    fixed: Mapping[str, Any],
    batched: Mapping[str, Tensor] | None = None,
    interval: tuple[float, float] | None = None,
) -> Tensor:
    """``p`` before the first step and after each; with ``batched``, a row of ``p`` is a run of its own."""
    state = rule.init(p if batched is None else p[0])
    if batched is not None:
        state = tuple(s.expand(len(p), *s.shape) for s in state)
    schedules = {name: value for name, value in fixed.items() if callable(value)}
    points = [p]
    for t in range(1, steps + 1):
        hyper = {**fixed, **{name: schedule(t) for name, schedule in schedules.items()}}
        g = gradient(p, t)
        if batched is None:
            p, *new_state = rule(p, g, t, *state, **hyper)
        else:
            # Each run is a tensor of its own to the rule, so that a layer's norm is taken run by run.
            one = partial(_step, rule, t, hyper)
            p, *new_state = torch.func.vmap(one)(p, g, state, dict(batched))
        state = tuple(new_state)
        if interval is not None:
            p = p.clamp(*interval)
        points.append(p)
    return torch.stack(points)


def _step(rule: Rule, t: int, fixed: Mapping[str, Any], p: Tensor, g: Tensor, state: Any, batched: Any) -> Any:
    return rule(p, g, t, *state, **fixed, **batched)


def _split(rule: Rule, hyper: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Hyper-parameters of one value or schedule, and those with a value for each run."""
    fixed: dict[str, Any] = {}
    batched: dict[str, Tensor] = {}
    for name, value in hyper.items():
        depth = 1 if isinstance(rule.defaults.get(name), (tuple, list)) else 0
        if isinstance(value, (Tensor, np.ndarray, list, tuple, range)) and np.ndim(value) == depth + 1:
            batched[name] = torch.as_tensor(value, dtype=torch.float64)
            for one in batched[name].tolist():
                rule.validate({name: one})
        else:
            rule.validate({name: value(1) if callable(value) else value})
            fixed[name] = value
    return fixed, batched


def _common(sizes: Mapping[str, int]) -> int | None:
    """How many runs the batched arguments ask for; ``None`` where there are none."""
    for name, size in sizes.items():
        if size == 0:
            raise ValueError(f"{name} must have at least one value, got none")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{' and '.join(sizes)} must have as many values as each other, got {sizes}")
    return next(iter(sizes.values()), None)
