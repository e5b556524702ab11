"""Explorable figures: sliders over what a rule does, alive with a kernel and without one."""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import torch
from matplotlib.ticker import LogLocator, MaxNLocator

from . import landscapes
from .figures import Look, contour_levels, grid, looks
from .landscapes import Landscape
from .rules import Rule, find

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
WIDTH = 640
Settings = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class Control:
    """One slider: a hyper-parameter and the values it can take."""

    name: str
    values: tuple[Any, ...]

    @property
    def texts(self) -> list[str]:
        """How each value is written beside the slider: with as few digits as tell them apart."""
        for digits in (3, 6, 17):
            texts = [_text(value, digits) for value in self.values]
            if len(set(texts)) == len(texts):
                break
        return texts

    def refined(self, between: int = 9) -> Control:
        """The same slider with ``between`` values added in each gap, evenly by ratio where all are above 0."""
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.values):
            return self
        space = np.geomspace if min(self.values) > 0 else np.linspace
        gaps = [space(a, b, between + 2)[:-1] for a, b in itertools.pairwise(self.values)]
        return replace(self, values=(*(float(f"{v:.3g}") for v in np.concatenate(gaps)), self.values[-1]))


@dataclass(frozen=True)
class Line:
    """One line of the picture. ``points`` gives, for each of some settings, ``(n, 3)``: across, down, value.

    Across and down are in the picture's units; ``by`` names the controls the line depends on.
    """

    label: str
    look: Look
    by: tuple[str, ...]
    points: Callable[[list[Settings]], list[np.ndarray]]


@dataclass(frozen=True)
class Explorable:
    """An explorable figure; a notebook shows it when it is a cell's last value.

    ``text/html`` holds all of it: a still picture (what stands there without JavaScript), the lines for
    every state, and the module that draws them. Where a person drives the kernel (``JPY_SESSION_NAME`` is
    set, or ``STEPSIZE_LIVE=1``) there is an anywidget as well, whose sliders have more values, computed by
    the kernel as they are asked for. ``STEPSIZE_LIVE=0`` leaves it out.
    """

    name: str
    alt: str
    caption: str
    size: Size
    background: str
    foreground: str
    controls: tuple[Control, ...]
    lines: tuple[Line, ...]
    default: dict[str, int]
    words: dict[str, Any]

    def __repr__(self) -> str:
        sliders = ", ".join(f"{control.name} ({len(control.values)})" for control in self.controls)
        return f"<Explorable {self.name}: {', '.join(line.label for line in self.lines)}; sliders: {sliders or 'none'}>"

    def drawn(self, state: Mapping[str, int]) -> list[np.ndarray]:
        """The points of each line in the state ``{control: index}``."""
        settings = {control.name: control.values[state[control.name]] for control in self.controls}
        return [line.points([{name: settings[name] for name in line.by}])[0] for line in self.lines]

    def encoded(self, points: np.ndarray) -> str:
        """One line's points as the module reads them."""
        return encode(points, self.size, self.words["reach"])

    @cached_property
    def tables(self) -> list[list[str]]:
        """Each line, encoded, for every combination of the controls it depends on; the last changes fastest."""
        tables = []
        for line in self.lines:
            values = [control.values for control in self.controls if control.name in line.by]
            settings = [dict(zip(line.by, chosen, strict=True)) for chosen in itertools.product(*values)]
            tables.append([self.encoded(points) for points in line.points(settings)])
        return tables

    @cached_property
    def still(self) -> str:
        """The default state as SVG, with a legend and the caption."""
        groups, legend = [], []
        for line, points in zip(self.lines, self.drawn(self.default), strict=True):
            parts = " ".join(f"{2.5 * part:g}" for part in line.look.dash)
            dash = f' stroke-dasharray="{parts}"' if parts else ""
            at = [f"{x:.0f} {y:.0f}" for x, y, _ in points]
            head = min(self.default["step"], len(at) - 1)
            shown = at[: head + 1] if self.words["grows"] else at
            dots = "".join(f"M{point}h0" for point in shown) if self.words["grows"] else ""
            x, y = at[head].split()
            groups.append(
                f'<g data-line stroke="{line.look.color}"><path d="M{"L".join(shown)}" stroke-width="2.5"{dash}/>'
                f'<path d="{dots}" stroke-width="6"/><circle cx="{x}" cy="{y}" r="5.5" fill="{line.look.color}"/></g>'
            )
            legend.append(
                '<span style="white-space:nowrap;margin-right:1.2em"><svg viewBox="0 0 30 10" width="30" height="10" '
                f'aria-hidden="true"><path d="M0 5H30" stroke="{line.look.color}" stroke-width="3"{dash}/></svg> '
                f"{html.escape(line.label)}</span>"
            )
        width, height = self.size
        legend += [f'<span style="white-space:nowrap">{self.words["key"]}</span>'] if self.words["key"] else []
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return (
            f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(self.alt)}" '
            'style="display:block;width:100%;max-width:640px;height:auto" fill="none" stroke-linejoin="round" '
            'stroke-linecap="round">'
            f"{self.background}{''.join(groups)}{self.foreground}</svg>"
            f'<div style="margin-top:.3em">{"".join(legend)}</div>{caption}'
        )

    def told(self) -> dict[str, Any]:
        """What the module is told beside the lines."""
        return {
            "name": self.name,
            "size": self.size,
            "controls": [{"name": control.name, "texts": control.texts} for control in self.controls],
            "lines": [{"label": line.label, "by": line.by} for line in self.lines],
            **self.words,
        }

    def html(self) -> str:
        """The whole figure as one piece of HTML that needs no network, no kernel and no other file."""
        data = {"figure": self.told(), "state": self.default, "tables": self.tables}
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
        key = hashlib.sha256((self.still + text).encode()).hexdigest()[:8]
        return (
            f'<figure class="stepsize-explorable" data-key="{key}">{self.still}'
            f'<script type="application/json">{text}</script></figure>'
            f'<script type="module">{compact(module())}mount("{key}");</script>'
        )

    def widget(self) -> Any:
        """The figure as an anywidget: Python computes the lines when its ``state`` changes."""
        controls = tuple(control.refined() for control in self.controls)
        default = dict(self.default)
        for old, new in zip(self.controls, controls, strict=True):
            default[old.name] = new.values.index(old.values[self.default[old.name]])
        return _widget(replace(self, controls=controls, default=default))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self.html()}
        live = os.environ.get("STEPSIZE_LIVE") or ("1" if os.environ.get("JPY_SESSION_NAME") else "0")
        if live == "1":
            made = self.widget()._repr_mimebundle_()
            bundle = {**(made[0] if isinstance(made, tuple) else made or {}), **bundle}
        return bundle


@cache
def module() -> str:
    """The text of the ES module, which follows the anywidget contract."""
    return Path(__file__).with_suffix(".mjs").read_text(encoding="utf-8")


def compact(source: str) -> str:
    return re.sub(r"^(//.*\n|\n)", "", re.sub(r"^[ ]+(//.*\n)?", "", source, flags=re.M), flags=re.M)


def _widget(explorable: Explorable) -> Any:
    import anywidget
    import traitlets

    class ExplorableWidget(anywidget.AnyWidget):
        _esm = module()
        figure = traitlets.Dict().tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        drawn = traitlets.Dict().tag(sync=True)

        @traitlets.observe("state")
        def _draw(self, change: Any) -> None:
            lines = [explorable.encoded(points) for points in explorable.drawn(self.state)]
            self.drawn = {"state": self.state, "lines": lines}

    return ExplorableWidget(figure={**explorable.told(), "still": explorable.still}, state=explorable.default)


def encode(points: np.ndarray, size: Size, reach: int) -> str:
    """Points ``(n, 3)`` as six characters each: across and down over ``reach`` times the picture, and the value."""
    place = np.rint((points[:, :2] / size + (reach - 1) / 2) / reach * 4095).clip(0, 4095).astype(int)
    codes = np.column_stack([place, [_code(value) for value in points[:, 2]]])
    return "".join(DIGITS[code // 64] + DIGITS[code % 64] for code in codes.ravel())


def _code(value: float) -> int:
    """Two significant digits, sign and power of ten as one of 4096 numbers; below 1e-11 it is zero."""
    if abs(value) < 1e-11:
        return 0
    digits, power = f"{min(abs(value), 9.9e10):.1e}".split("e")
    return (int(power) + 11) * 180 + round(10 * float(digits)) - 10 + 90 * (value < 0) + 1


def trajectories(
    rules: str | Rule | Sequence[str | Rule] | Mapping[str, Any],
    landscape: str | Landscape,
    *,
    steps: int = 60,
    start: Sequence[Any] | None = None,
    seed: int = 0,
    default: Mapping[str, Any] | None = None,
    caption: str = "",
    alt: str = "",
    name: str | None = None,
    **grids: Any,
) -> Explorable:
    """Paths of one or more rules on a landscape, with a slider for each hyper-parameter that has several values.

    ``rules``: a name, a rule, a list of them, or ``{label: name}`` or ``{label: (name, {fixed values})}``.
    ``grids``: a list makes a slider, one value holds it fixed; each goes to the rules that know it.
    ``start``: one point, or a list of points for a slider. ``default``: where the sliders stand (the middle
    unless given), and ``step`` (the last). ``alt`` says what the picture shows in its default state, and
    ``caption`` stands below it. ``name`` begins the address fragment that links to a state, such as
    ``#sgdm-quadratic:lr=0.1,momentum=0.9,step=60``.
    Raises ``KeyError`` for an unknown rule or landscape, ``TypeError`` or ``ValueError`` for a wrong grid.
    """
    surface, methods = landscapes.get(landscape), _methods(rules)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    starts = [surface.start] if start is None else start
    if len(starts) and np.ndim(starts[0]) == 0:
        starts = [starts]
    lists: dict[str, tuple[Any, ...]] = {}
    for key, given in {**grids, "start": starts}.items():
        if key != "start" and not any(key in rule.defaults for rule, _ in methods.values()):
            raise TypeError(f"none of {', '.join(methods)} has a hyper-parameter {key!r}")
        lists[key] = _values(key, given)
        for rule, _ in methods.values():
            for value in lists[key] if key in rule.defaults else ():
                rule.validate({key: value})
    for point in lists["start"]:
        if len(point) != surface.dimensions:
            raise ValueError(f"start must have {surface.dimensions} coordinate(s) on {surface.name}, got {point}")
    controls = tuple(Control(key, values) for key, values in lists.items() if len(values) > 1)
    state = _default(controls, steps, default)
    frame = _Frame.around(surface)
    look = looks(methods, [rule.name for rule, _ in methods.values()])

    def line(label: str, rule: Rule, own: Settings, look: Look) -> Line:
        mine = [key for key in lists if key == "start" or (key in rule.defaults and key not in own)]
        fixed = {key: lists[key][0] for key in mine if len(lists[key]) == 1} | own
        by = tuple(key for key in mine if len(lists[key]) > 1)

        def points(settings: list[Settings]) -> list[np.ndarray]:
            paths = list(_paths(rule, surface, steps, seed, fixed, settings))
            # A path that is far out at its last step may be on its way back: three times the steps tell.
            out = [i for i, path in enumerate(paths) if not _near(path[-1:], surface, frame)]
            longer = _paths(rule, surface, 3 * steps, seed, fixed, [settings[i] for i in out])
            for i, path in zip(out, longer, strict=True):
                paths[i] = path
            return [_cut(path, steps, surface, frame) for path in paths]

        return Line(label, look, by, points)

    return Explorable(
        name=name or "-".join([*(rule.name.replace(":", "-") for rule, _ in methods.values()), surface.name]),
        alt=alt or f"Paths of {', '.join(methods)} over: {surface.title}.",
        caption=caption,
        size=frame.size,
        background=_ground(surface, frame),
        foreground=_marks(surface, frame, lists["start"][state.get("start", 0)]),
        controls=controls,
        lines=tuple(line(label, *method, one) for (label, method), one in zip(methods.items(), look, strict=True)),
        default=state,
        words={
            "steps": steps,
            "stepName": "step",
            "sentence": "loss {value} after {at} steps",
            "ended": "diverged at step {at}",
            "named": len(methods) > 1,
            "grows": True,
            "reach": 3,
            "key": "○ start &ensp; + minimum",
        },
    )


def curve(
    fn: Callable[..., Any],
    x: Any,
    *,
    xlabel: str = "x",
    ylabel: str = "y",
    log_x: bool = False,
    log_y: bool = False,
    default: Mapping[str, Any] | None = None,
    caption: str = "",
    alt: str = "",
    name: str = "curve",
    **grids: Any,
) -> Explorable:
    """Lines over ``x`` with a slider for each setting that has several values, and one that reads the lines off.

    ``fn(x, **settings)`` gets ``x`` as a float64 tensor and gives as many numbers, or ``{label: numbers}``;
    a label that is a rule's name has that rule's look. ``grids``, ``default``, ``caption``, ``alt`` and
    ``name`` are as in :func:`trajectories`. The axes hold all states, so they stand still.
    Raises ``ValueError`` for an empty grid, or where ``fn`` gives another number of values than ``x`` has.
    """
    at = torch.as_tensor(x, dtype=torch.float64)
    if at.ndim != 1 or len(at) < 2:
        raise ValueError(f"x must be two or more numbers in a row, got shape {tuple(at.shape)}")
    lists = {key: _values(key, given) for key, given in grids.items()}
    controls = tuple(Control(key, values) for key, values in lists.items() if len(values) > 1)
    fixed = {key: values[0] for key, values in lists.items() if len(values) == 1}

    def values_of(settings: Settings) -> dict[str, np.ndarray]:
        given = fn(at, **fixed, **settings)
        named = given if isinstance(given, Mapping) else {ylabel: given}
        for label, values in named.items():
            if (shape := tuple(np.shape(values))) != (len(at),):
                raise ValueError(f"fn must give {len(at)} numbers, as x has; {label!r} has shape {shape}")
        return {label: np.asarray(values, dtype=float) for label, values in named.items()}

    names = tuple(control.name for control in controls)
    every = [
        values_of(dict(zip(names, chosen, strict=True)))
        for chosen in itertools.product(*(control.values for control in controls))
    ]
    heights = np.concatenate([values for one in every for values in one.values()])
    heights = heights[np.isfinite(heights) & ((heights > 0) | (not log_y))]
    if not len(heights):
        raise ValueError("fn gives no finite number that can be drawn")
    frame = _Frame((float(at.min()), float(at.max())), (heights.min(), heights.max()), (WIDTH, 360), 64, log_x, log_y)

    def line(label: str, look: Look) -> Line:
        def points(settings: list[Settings]) -> list[np.ndarray]:
            rows = []
            for one in settings:
                y = values_of(one)[label]
                good = np.isfinite(y) & ((y > 0) | (not log_y))
                last = len(y) if good.all() else max(int(good.argmin()), 1)
                safe = np.where(good, y, heights.min())
                rows.append(np.column_stack([frame.place(np.column_stack([at.numpy(), safe])), safe])[:last])
            return rows

        return Line(label, look, names, points)

    return Explorable(
        name=name,
        alt=alt or f"{ylabel} against {xlabel}.",
        caption=caption,
        size=frame.size,
        background=frame.axes(xlabel, ylabel),
        foreground="",
        controls=controls,
        lines=tuple(line(label, look) for label, look in zip(every[0], looks(every[0]), strict=True)),
        default=_default(controls, len(at) - 1, default),
        words={
            "steps": len(at) - 1,
            "stepName": xlabel,
            "at": [_text(value) for value in at.tolist()],
            "sentence": f"= {{value}} at {xlabel} {{at}}",
            "ended": f"has no value beyond {xlabel} {{at}}",
            "named": True,
            "grows": False,
            "reach": 1,
            "key": "",
        },
    )


@dataclass(frozen=True)
class _Frame:
    """How coordinates become places in a picture; with a margin there are axes beside it, else ticks inside."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: Size
    margin: int = 0
    log_x: bool = False
    log_y: bool = False

    @staticmethod
    def around(surface: Landscape) -> _Frame:
        if surface.dimensions == 1:
            ((low, high),) = surface.view
            heights = surface(torch.linspace(low, high, 201, dtype=torch.float64)[:, None])
            top = float(heights.max())
            return _Frame((low, high), (float(heights.min()) - 0.08 * top, top), (WIDTH, 360))
        x, y = surface.view
        # One unit is as long across as down, unless that would make a strip or a tower.
        return _Frame(x, y, (WIDTH, round(min(max(WIDTH * (y[1] - y[0]) / (x[1] - x[0]), 300), 460))))

    def place(self, points: np.ndarray) -> np.ndarray:
        """Picture units, ``(n, 2)``, of the points ``(n, 2)``."""
        (left, right), (bottom, top) = self._scaled(self.x, self.log_x), self._scaled(self.y, self.log_y)
        across = (self._scaled(points[:, 0], self.log_x) - left) / (right - left)
        down = (top - self._scaled(points[:, 1], self.log_y)) / ((top - bottom) or 1)
        width, height = self.size
        pad = 24 if self.margin else 0
        return np.column_stack(
            [self.margin + across * (width - self.margin - pad), pad + down * (height - self.margin * 0.85 - pad)]
        )

    @staticmethod
    def _scaled(values: Any, log: bool) -> np.ndarray:
        return np.log10(values) if log else np.asarray(values, dtype=float)

    def axes(self, xlabel: str = "", ylabel: str = "") -> str:
        """Ticks with their numbers: on axes where there is a margin, else along the inner edge of the picture."""
        width, height = self.size
        marks, words = ("" if self.margin else f"M0 0H{width}V{height}H0z"), ""
        for value in _ticks(*self.x, self.log_x):
            ((x, y),) = self.place(np.array([[value, self.y[0]]]))
            marks += f"M{x:.0f} {y:.0f}v-7"
            if 30 < x < width - 30 or self.margin:
                below = 20 if self.margin else -12
                words += f'<text x="{x:.0f}" y="{y + below:.0f}" text-anchor="middle">{_text(value)}</text>'
        for value in _ticks(*self.y, self.log_y):
            ((x, y),) = self.place(np.array([[self.x[0], value]]))
            marks += f"M{x:.0f} {y:.0f}h7"
            if self.margin:
                words += f'<text x="{x - 6:.0f}" y="{y + 6:.0f}" text-anchor="end">{_text(value)}</text>'
            elif 20 < y < height - 45:
                words += f'<text x="{x + 12:.0f}" y="{y + 6:.0f}">{_text(value)}</text>'
        if self.margin:
            (left, bottom), (_, top) = self.place(np.array([[self.x[0], self.y[0]], [self.x[0], self.y[1]]]))
            marks += f"M{left:.0f} {top:.0f}V{bottom:.0f}H{width - 24}"
            words += f'<text x="{width - 24}" y="{height - 6}" text-anchor="end">{html.escape(xlabel)}</text>'
            words += f'<text x="{left + 10:.0f}" y="{top + 12:.0f}">{html.escape(ylabel)}</text>'
        return (
            f'<path d="{marks}" stroke="currentColor" stroke-opacity=".6"/>'
            f'<g fill="currentColor" fill-opacity=".75" font-size="17" font-family="sans-serif">{words}</g>'
        )


def _ticks(low: float, high: float, log: bool) -> list[float]:
    locator = LogLocator(numticks=6) if log else MaxNLocator(5, steps=[1, 2, 5, 10])
    return [float(value) + 0.0 for value in locator.tick_values(low, high) if low <= value <= high]


def _paths(
    rule: Rule, surface: Landscape, steps: int, seed: int, fixed: Settings, settings: list[Settings]
) -> Iterable[torch.Tensor]:
    """The trajectory of each of some settings: in one batch where all that varies is numbers."""
    names = list(settings[0]) if settings else []
    varied = {name: [one[name] for one in settings] for name in names}
    numbers = all(isinstance(x, (int, float)) for values in varied.values() for x in np.ravel(np.array(values, object)))
    if len(settings) > 1 and names and numbers:
        return landscapes.trajectory(rule, surface, steps=steps, seed=seed, **fixed, **varied)
    return [landscapes.trajectory(rule, surface, steps=steps, seed=seed, **fixed, **one) for one in settings]


def _cut(path: torch.Tensor, steps: int, surface: Landscape, frame: _Frame) -> np.ndarray:
    """Places and losses up to ``steps``; a path that leaves three times the picture for good ends at its edge."""
    places, losses, size = _places(path, surface, frame), surface(path), np.array(frame.size)
    last = int(np.flatnonzero(_near(path, surface, frame)).max(initial=0))
    if last >= steps:
        return np.column_stack([places.clip(-size, 2 * size), losses])[: steps + 1]
    step = np.nan_to_num(places[last + 1] - places[last], nan=0.0, posinf=1e9, neginf=-1e9)
    room = np.where(step > 0, 2 * size, -size) - places[last]
    share = np.divide(room, step, out=np.ones(2), where=step != 0).min()
    edge = [*(places[last] + min(share, 1.0) * step), 0.0]
    return np.vstack([np.column_stack([places.clip(-size, 2 * size), losses])[: last + 1], edge])


def _near(path: torch.Tensor, surface: Landscape, frame: _Frame) -> np.ndarray:
    """Whether each point lies within three times the picture, which is as much as can be sent."""
    places, size = _places(path, surface, frame), np.array(frame.size)
    return np.asarray((np.isfinite(places) & (places >= -size) & (places <= 2 * size)).all(1))


def _places(path: torch.Tensor, surface: Landscape, frame: _Frame) -> np.ndarray:
    return frame.place((path if surface.dimensions == 2 else torch.stack([path[:, 0], surface(path)], dim=1)).numpy())


def _ground(surface: Landscape, frame: _Frame) -> str:
    """The contour map (or the curve, over one coordinate) in the page's own colour, with ticks."""
    if surface.dimensions == 1:
        along = torch.linspace(*surface.view[0], 101, dtype=torch.float64)
        places = _places(along[:, None], surface, frame)
        d = "L".join(f"{across:.0f} {down:.0f}" for across, down in places)
        return f'<path d="M{d}" stroke="currentColor" stroke-opacity=".5" stroke-width="2"/>{frame.axes()}'
    x, y, heights = grid(surface)
    generator = contourpy.contour_generator(x, y, heights, fill_type="OuterOffset")
    shapes = ""
    for level in contour_levels(heights)[::-1]:
        filled: Any = generator.filled(-math.inf, level)
        rings = [points[a:b] for points, cuts in zip(*filled, strict=True) for a, b in itertools.pairwise(cuts)]
        shapes += f'<path d="{"".join(_ring(frame.place(ring)) for ring in rings)}"/>'
    # Half units: whole numbers are shortest, and on a wide screen whole units would show as stairs.
    return (
        '<g transform="scale(.5)" fill="currentColor" fill-opacity=".05" fill-rule="evenodd" stroke="currentColor" '
        f'stroke-opacity=".3" stroke-width="2">{shapes}</g>{frame.axes()}'
    )


def _ring(places: np.ndarray) -> str:
    """A closed ring as relative moves in half units, without the points that lie within 0.2 units of a chord."""
    kept = np.rint(2 * places[_corners(places, 0.2)]).astype(int)
    moves = np.diff(kept, axis=0)[:-1]
    return f"M{kept[0][0]} {kept[0][1]}l{' '.join(f'{dx} {dy}' for dx, dy in moves)}z" if len(moves) > 1 else ""


def _corners(places: np.ndarray, tolerance: float) -> list[int]:
    """The points to keep (Ramer, Douglas and Peucker): the ends, and whatever lies far from the chord between."""
    kept, spans = {0, len(places) - 1}, [(0, len(places) - 1)]
    while spans:
        a, b = spans.pop()
        if b - a < 2:
            continue
        chord, inner = places[b] - places[a], places[a + 1 : b] - places[a]
        length = np.hypot(*chord)
        far = np.abs(inner[:, 0] * chord[1] - inner[:, 1] * chord[0]) / length if length else np.hypot(*inner.T)
        middle = a + 1 + int(far.argmax())
        if far.max() > tolerance:
            kept.add(middle)
            spans += [(a, middle), (middle, b)]
    return sorted(kept)


def _marks(surface: Landscape, frame: _Frame, start: Sequence[float]) -> str:
    points = torch.tensor([*surface.minima, tuple(start)], dtype=torch.float64)
    *minima, (x, y) = _places(points, surface, frame)
    crosses = "".join(f"M{x - 10:.0f} {y:.0f}h20M{x:.0f} {y - 10:.0f}v20" for x, y in minima)
    return (
        f'<g stroke="currentColor" stroke-width="2.5"><path d="{crosses}"/>'
        f'<circle data-start cx="{x:.0f}" cy="{y:.0f}" r="8"/></g>'
    )


def _methods(rules: Any) -> dict[str, tuple[Rule, Settings]]:
    """``{label: (rule, fixed hyper-parameters)}``."""
    if isinstance(rules, (str, Rule)):
        rules = [rules]
    if not isinstance(rules, Mapping):
        rules = {rule if isinstance(rule, str) else rule.name: rule for rule in rules}
    if not rules:
        raise ValueError("rules must name at least one rule, got none")
    found = {}
    for label, given in rules.items():
        rule, own = given if isinstance(given, tuple) else (given, {})
        found[label] = (find(rule) if isinstance(rule, str) else rule, dict(own))
        found[label][0].validate(own)
    return found


def _default(controls: tuple[Control, ...], steps: int, given: Mapping[str, Any] | None) -> dict[str, int]:
    wanted = {key: _plain(value) for key, value in (given or {}).items()}
    state = {}
    for control in controls:
        value = wanted.pop(control.name, control.values[len(control.values) // 2])
        if value not in control.values:
            raise ValueError(f"default {control.name} must be one of {', '.join(control.texts)}, got {_text(value, 6)}")
        state[control.name] = control.values.index(value)
    state["step"] = wanted.pop("step", steps)
    if not 0 <= state["step"] <= steps:
        raise ValueError(f"default step must be from 0 to {steps}, got {state['step']}")
    if wanted:
        raise TypeError(f"default names {next(iter(wanted))!r}, which has no slider")
    return state


def _values(name: str, given: Any) -> tuple[Any, ...]:
    """What a slider can be set to: a list's values, or the one value."""
    values = tuple(map(_plain, given if isinstance(given, (list, range, np.ndarray, torch.Tensor)) else [given]))
    if not values:
        raise ValueError(f"{name} must have at least one value, got an empty list")
    return values


def _plain(value: Any) -> Any:
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) else value
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _text(value: Any, digits: int = 3) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_text(part, digits) for part in value)})"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
