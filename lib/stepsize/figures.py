"""The figures and tables a chapter prints: each function returns one, and prints nothing."""

from __future__ import annotations

import difflib
import html
import inspect
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from . import landscapes
from .landscapes import Landscape
from .rules import Rule, find
from .schedules import SCHEDULES
from .stats import interval

# Six hues that stay apart under the common colour deficiencies and have a contrast of 3:1 or more on a white page
# and on a dark one, times five dash patterns, so that a method keeps one look through the book.
HUES = ("#0072b2", "#d55e00", "#10a78a", "#e20452", "#8027ff", "#7372f7")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.5), (1.5, 1), (5, 1.5, 1, 1.5), (3, 1, 1, 1, 1, 1))
MARKERS = "os^DvP"

# method -> (hue, dash). Methods that meet in one chapter differ in hue; no two have the same look.
LOOKS: dict[str, tuple[int, int]] = {
    "sgd": (0, 0), "sgdm": (1, 0), "nag": (2, 0), "adam": (3, 0), "amsgrad": (4, 0), "adamw": (5, 0),
    "radam": (0, 1), "adabound": (2, 4), "nadam": (2, 1), "adagrad": (3, 1), "rmsprop": (4, 1), "adadelta": (5, 1),
    "swats": (0, 2), "adafactor": (1, 2), "lookahead": (2, 2), "lars": (3, 2), "ranger": (4, 2), "amsbound": (5, 2),
    "lamb": (0, 3), "lambc": (1, 3), "novograd": (2, 3), "nd_adam": (3, 3), "block_normalized": (4, 3),
    "layer_lr": (5, 3), "rsg": (0, 4), "arsg": (1, 4), "weight_rescaling": (4, 4),
}  # fmt: skip

STYLE: Any = {
    "figure.dpi": 200,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
}
WIDTH, HEIGHT = 6.4, 4.0


class BookFigure(Figure):
    """A matplotlib figure that a notebook shows at 640 CSS pixels and twice that in the file."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        raw = io.BytesIO()
        self.savefig(raw, format="png", dpi=self.dpi)
        # A palette of 128 colours halves the file, and the eye sees no difference.
        small = io.BytesIO()
        Image.open(raw).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "png", optimize=True)
        return small.getvalue(), {"width": round(100 * self.get_figwidth())}


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere: ``color`` (hex), ``dash`` (on, off, … in line widths), ``marker``."""

    color: str
    dash: tuple[float, ...]
    marker: str

    @property
    def style(self) -> dict[str, Any]:
        """The arguments of ``Axes.plot`` for the line."""
        return {"color": self.color, "linestyle": (0, self.dash) if self.dash else "-"}


def look(name: str) -> Look:
    """The look of a method. A deviation, such as ``"sgdm:torch"``, has its rule's hue and marker, dotted."""
    base, _, deviation = name.partition(":")
    number = zlib.crc32(base.encode())
    hue, dash = LOOKS.get(base, (number % len(HUES), number // len(HUES) % len(DASHES)))
    return Look(HUES[hue], DASHES[2] if deviation else DASHES[dash], MARKERS[hue])


def look_of(label: str, number: int = 0, rule: str | None = None) -> Look:
    """The look of the method that ``label`` begins with, else of ``rule``, else the ``number``-th hue."""
    for name in (_first_word(label), rule or ""):
        if _names_a_method(name):
            return look(name)
    return Look(HUES[number % len(HUES)], DASHES[number // len(HUES) % len(DASHES)], MARKERS[number % len(MARKERS)])


def _first_word(label: str) -> str:
    return re.split(r"[\s,(]", label, maxsplit=1)[0].lower()


def _names_a_method(label: str) -> bool:
    return _first_word(label).partition(":")[0] in LOOKS


def looks(labels: Iterable[str], rules: Sequence[str] | None = None) -> list[Look]:
    """:func:`look_of` for the labels of one figure; where two would be the same, the later one takes a free hue."""
    labels = list(labels)
    wanted = [look_of(label, number, rules[number] if rules else None) for number, label in enumerate(labels)]
    free = [Look(hue, dash, marker) for dash in DASHES for hue, marker in zip(HUES, MARKERS, strict=True)]
    # A label that is just a method's name comes first: that method's look belongs to it.
    first_come = sorted(range(len(labels)), key=lambda i: (labels[i] not in LOOKS, not _names_a_method(labels[i])))
    found: dict[int, Look] = {}
    for i in first_come:
        taken = found.values()
        found[i] = next((one for one in [wanted[i], *free] if one not in taken), wanted[i])
    return [found[i] for i in range(len(labels))]


def _figure(title: str | None = None) -> tuple[Figure, Axes]:
    # Without pyplot: it would keep every figure alive, and a notebook would show each of them twice.
    figure = BookFigure(figsize=(WIDTH, HEIGHT))
    ax = figure.subplots()
    if title:
        ax.set_title(title)
    return figure, ax


def _legend(figure: Figure, count: int) -> None:
    labels = figure.axes[0].get_legend_handles_labels()[1]
    # A line holds about 66 letters; each label has a piece of its line beside it.
    fitting = 66 // (5 + max(map(len, labels), default=0))
    figure.legend(loc="outside upper center", ncols=max(1, min(count, 4, fitting)))


def _band(ax: Axes, x: Any, estimates: Sequence[Any], label: str, style: Look, marked: bool) -> None:
    """The means as a line and the ends of their intervals as a band, which is empty where there is no interval."""
    mean, low, high, _ = map(np.array, zip(*estimates, strict=True))
    ax.plot(x, mean, **style.style, marker=style.marker if marked else None, label=label)
    ax.fill_between(x, low, high, color=style.color, alpha=0.18, lw=0)


@mpl.rc_context(STYLE)
def trajectories(landscape: str | Landscape, paths: Mapping[str, Any], *, title: str | None = None) -> Figure:
    """Paths on a contour map (or on the curve, for a landscape over one coordinate).

    ``paths`` maps a label to a trajectory ``(steps + 1, d)``; a label that is a method's name, or begins with
    one, has that method's look. The start is a ring, each minimum a star; what leaves the map is cut at its edge.
    """
    surface = landscapes.get(landscape)
    figure, ax = _figure(title)
    _ground(ax, surface)
    for (label, path), style in zip(paths.items(), looks(paths), strict=True):
        points = torch.as_tensor(path, dtype=torch.float64)
        if points.ndim != 2 or points.shape[1] != surface.dimensions:
            raise ValueError(
                f"paths[{label!r}] must have shape (steps + 1, {surface.dimensions}), got {tuple(points.shape)}"
            )
        xy = _on_map(points, surface)
        # Far outside the picture the Agg canvas overflows.
        xy = xy[(xy.abs() < 1e4).all(1)]
        ax.plot(*xy.T, **style.style, lw=1.6, zorder=3)
        # On a long path the steps would run together into a thick line.
        ax.plot(*(xy if len(xy) <= 120 else xy[-1:]).T, style.marker, color=style.color, ms=3.5, zorder=3)
        ax.plot([], [], **style.style, marker=style.marker, ms=5, label=label)
        ax.plot(*xy[0], "o", mfc="none", mec="black", mew=1.6, ms=10, zorder=4)
    stars = _on_map(torch.tensor(surface.minima, dtype=torch.float64), surface)
    ax.plot(*stars.T, "*", color="black", mec="white", ms=15, zorder=5)
    if paths:
        _legend(figure, len(paths))
    return figure


def _on_map(points: torch.Tensor, surface: Landscape) -> torch.Tensor:
    return points if surface.dimensions == 2 else torch.stack([points[:, 0], surface(points)], dim=1)


def _ground(ax: Axes, surface: Landscape) -> None:
    if surface.dimensions == 1:
        along = torch.linspace(*surface.view[0], 201, dtype=torch.float64)
        ax.plot(along, surface(along[:, None]), color="#555555", lw=1.5)
        ax.set(xlim=surface.view[0], xlabel="x", ylabel="f(x)")
        return
    x, y, heights = grid(surface)
    levels = contour_levels(heights)
    ax.contourf(x, y, heights, levels=[heights.min() - 1, *levels], cmap="Greys_r", vmin=-heights.max(), alpha=0.45)
    ax.contour(x, y, heights, levels=levels, colors="#444444", linewidths=0.7, linestyles="solid", alpha=0.5)
    ax.set(xlim=surface.view[0], ylim=surface.view[1], xlabel="x", ylabel="y")
    ax.grid(False)


def contour_levels(heights: np.ndarray, count: int = 12) -> np.ndarray:
    """Heights for contour lines, close together near the lowest point: equal steps of the fourth root."""
    low, high = float(heights.min()), float(heights.max())
    return low + (high - low) * np.linspace(0, 1, count + 2)[1:-1] ** 4


def grid(surface: Landscape, width: int = 201, height: int = 151) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates ``(width,)`` and ``(height,)``, and the surface's values ``(height, width)``, over its view."""
    x = torch.linspace(*surface.view[0], width, dtype=torch.float64)
    y = torch.linspace(*surface.view[1], height, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return x.numpy(), y.numpy(), surface(points).numpy()


@mpl.rc_context(STYLE)
def lines(
    x: Iterable[float],
    values: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    logx: bool = True,
    logy: bool = True,
    title: str | None = None,
) -> Figure:
    """One line per label against ``x``: ``values`` maps a label to ``(len(x), n)`` numbers, n measured at each x.

    The line is their mean, the band its 95 % interval where n is 2 or more. Few places get markers.
    """
    places = np.asarray(list(x), dtype=float)
    figure, ax = _figure(title)
    for (label, sample), style in zip(values.items(), looks(values), strict=True):
        rows = np.asarray(sample, dtype=float)
        if rows.ndim != 2 or len(rows) != len(places):
            raise ValueError(f"values[{label!r}] must have shape ({len(places)}, n), got {rows.shape}")
        _band(ax, places, [interval(row) for row in rows], label, style, marked=len(places) <= 20)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    _legend(figure, len(values))
    return figure


@mpl.rc_context(STYLE)
def curves(
    runs: Any,
    metric: str | None = None,
    by: str = "optimizer",
    *,
    logy: bool = True,
    ylabel: str | None = None,
    title: str | None = None,
) -> Figure:
    """The course of a metric: the mean over seeds, one line per value of ``by``, with its 95 % interval as a band.

    ``runs`` is what ``sweep`` returns, and then ``metric`` is needed; by ``"optimizer"`` each is shown at the
    setting its validation chose, by ``"lr"`` or another column all runs of that value are shown. Or ``runs`` is
    a tidy table with the columns ``step``, ``value`` and ``by``.
    Raises ``ValueError`` where a column is missing, or runs that differ in more than their seed would be averaged.
    """
    table = _course(runs, metric, by)
    figure, ax = _figure(title)
    groups = list(table.groupby(by, sort=False))
    for (label, group), style in zip(groups, looks(str(label) for label, _ in groups), strict=True):
        steps = group.groupby("step")["value"]
        _band(ax, list(steps.groups), [interval(part) for _, part in steps], str(label), style, marked=False)
    ax.set(xlabel="step", ylabel=ylabel or _in_words(metric or "value"), yscale="log" if logy else "linear")
    _legend(figure, len(groups))
    return figure


def _course(runs: Any, metric: str | None, by: str) -> pd.DataFrame:
    if isinstance(runs, pd.DataFrame):
        _need(runs, "step", "value", by)
        return runs
    if metric is None:
        raise ValueError("metric must be named, such as metric='train_loss'")
    frame = runs.frame()
    _need(frame, by)
    if by == "optimizer":
        settings = runs.settings()
        frame = frame[frame["key"].isin([key for keys in settings["keys"][settings["chosen"]] for key in keys])]
    _one_run_each(frame, [by, "seed"])
    return frame[["key", by]].merge(runs.curves(metric), on="key")


@mpl.rc_context(STYLE)
def rate_basin(
    runs: Any,
    metric: str = "final_train_loss",
    *,
    by: str = "optimizer",
    logy: bool = True,
    ylabel: str | None = None,
    title: str | None = None,
) -> Figure:
    """The final value against the rate, one line per value of ``by``: mean and 95 % interval over seeds.

    ``runs`` is what ``sweep`` returns, or its ``frame()``: columns ``by``, ``lr``, ``metric``, ``seed``, ``diverged``.
    The star is the best mean. A rate at which any seed diverged has no mean: a cross at the top marks it.
    Raises ``ValueError`` where a column is missing, or runs that differ in more than their seed would be averaged.
    """
    table = runs if isinstance(runs, pd.DataFrame) else runs.frame()
    _need(table, by, "lr", metric, "seed", "diverged")
    _one_run_each(table, [by, "lr", "seed"])
    figure, ax = _figure(title)
    groups = list(table.groupby(by, sort=False))
    for number, ((label, group), style) in enumerate(zip(groups, looks(str(g[0]) for g in groups), strict=True)):
        lost = (group["diverged"].astype(bool) | ~np.isfinite(group[metric])).groupby(group["lr"]).any()
        kept = {lr: interval(part[metric]) for lr, part in group.groupby("lr") if not lost[lr]}
        if kept:
            best = min(kept, key=lambda lr: kept[lr].mean)
            _band(ax, list(kept), list(kept.values()), str(label), style, marked=True)
            ax.plot(best, kept[best].mean, "*", color=style.color, mec="black", ms=17, zorder=4)
        else:
            ax.plot([], [], **style.style, marker=style.marker, label=str(label))
        crosses = lost.index[lost]
        ax.plot(crosses, [0.97 - 0.05 * number] * len(crosses), "x", color=style.color, mew=2.5, ms=8,
                transform=ax.get_xaxis_transform())  # fmt: skip
    note = "lr   (★ best" + (", × diverged)" if table["diverged"].any() else ")")
    ax.set(xscale="log", yscale="log" if logy else "linear", xlabel=note, ylabel=ylabel or _in_words(metric))
    _legend(figure, len(groups))
    return figure


@mpl.rc_context(STYLE)
def intervals(table: pd.DataFrame, *, xlabel: str, by: str = "task", none: float = 0.0, logx: bool = False) -> Figure:
    """One row per value of ``by``: a dot at ``mean``, a bar from ``low`` to ``high``, and a line where there is none.

    ``none`` is the value that means no difference: 0 for a difference, 1 for a ratio. A bar that does not touch the
    line has a filled dot. Raises ``ValueError`` where a column is missing.
    """
    _need(table, by, "mean", "low", "high")
    figure, ax = _figure()
    ax.axvline(none, color="#555555", lw=1.5)
    for place, row in enumerate(reversed(table.to_dict("records"))):
        clear = row["low"] > none or row["high"] < none
        ax.plot([row["low"], row["high"]], [place, place], color=HUES[0], lw=3, solid_capstyle="butt")
        ax.plot(row["mean"], place, "o", color=HUES[0], mfc=HUES[0] if clear else "white", mew=2, ms=9)
    if logx:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel=xlabel, ylim=(-0.6, len(table) - 0.4))
    ax.set_yticks(range(len(table)), reversed(table[by].tolist()))
    ax.grid(False, axis="y")
    return figure


@mpl.rc_context(STYLE)
def panels(table: pd.DataFrame, labels: Mapping[str, str] | None = None, *, panel: str = "task") -> Figure:
    """A panel for each task, on its own scale: for each optimizer a mark at ``mean``, a bar from ``low`` to ``high``.

    ``labels`` maps a value of ``panel`` to the text above it. Raises ``ValueError`` where a column is missing.
    """
    _need(table, panel, "optimizer", "mean", "low", "high")
    groups = list(table.groupby(panel, sort=False))
    names = sorted(set(table["optimizer"]), key=list(LOOKS).index)
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    figure = BookFigure(figsize=(WIDTH, 2.2 * down + 0.6))
    for ax, (key, own) in zip(figure.subplots(down, across, squeeze=False).flat, groups, strict=False):
        for place, name in enumerate(names):
            for row in own[own["optimizer"] == name].itertuples():
                style = look(name)
                ax.plot([place, place], [row.low, row.high], color=style.color, lw=3, solid_capstyle="butt")
                ax.plot(place, row.mean, style.marker, color=style.color, ms=8, label=name)
        ax.set_title((labels or {}).get(str(key), str(key)), fontsize="small")
        ax.set_xticks([])
        ax.set_xlim(-0.6, len(names) - 0.4)
    for ax in figure.axes[len(groups) :]:
        ax.remove()
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=4)
    return figure


@mpl.rc_context(STYLE)
def heat_maps(
    table: pd.DataFrame,
    value: str,
    *,
    x: str = "lr",
    y: str = "weight_decay",
    by: str = "optimizer",
    top: float | None = None,
    ylabel: str | None = None,
) -> Figure:
    """Maps side by side, one for each ``by``: the mean of ``value`` over a grid of ``x`` and ``y``, all log scales.

    ``table`` has a row per run. Dark is low, the star the lowest of each map; from ``top`` on all is one colour.
    ``figure.axes`` has an axes for each map, in the order of the table, and the scale's last.
    """
    _need(table, value, x, y, by)
    maps = [(label, own.pivot_table(index=y, columns=x, values=value)) for label, own in table.groupby(by, sort=False)]
    low, high = (pick([pick(own.to_numpy()) for _, own in maps]) for pick in (np.nanmin, np.nanmax))
    figure = BookFigure(figsize=(WIDTH, HEIGHT))
    scale = mpl.colors.LogNorm(low, top or high)
    for ax, (label, own) in zip(np.atleast_1d(figure.subplots(1, len(maps), sharey=True)), maps, strict=True):
        across, up = own.columns.to_numpy(dtype=float), own.index.to_numpy(dtype=float)
        mesh = ax.pcolormesh(_edges(across), _edges(up), own.to_numpy(), norm=scale, cmap="viridis", rasterized=True)
        i, j = np.unravel_index(np.nanargmin(own.to_numpy()), own.shape)
        ax.plot(across[j], up[i], "*", color="white", mec="black", ms=17, zorder=4)
        ax.set(title=str(label), xscale="log", yscale="log", xlabel=_in_words(x))
        ax.grid(False)
    figure.axes[0].set_ylabel(ylabel or _in_words(y))
    ticks = mpl.ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7))
    extend = "max" if top and top < high else "neither"
    bar = figure.colorbar(mesh, ax=figure.axes, label=_in_words(value), extend=extend, ticks=ticks, format="{x:g}")
    bar.minorticks_off()
    return figure


def _edges(places: np.ndarray) -> np.ndarray:
    """Where the fields of a log scale meet, half-way between their places by ratio."""
    inner = np.sqrt(places[1:] * places[:-1])
    return np.concatenate([[places[0] ** 2 / inner[0]], inner, [places[-1] ** 2 / inner[-1]]])


def _need(table: pd.DataFrame, *columns: str) -> None:
    for name in columns:
        if name not in table:
            raise ValueError(f"the table has no column {name!r}; it has {', '.join(map(str, table.columns))}")


def _one_run_each(table: pd.DataFrame, columns: list[str]) -> None:
    columns = list(dict.fromkeys(columns))
    twice = table[table.duplicated(columns)]
    if len(twice):
        which = ", ".join(f"{name} {twice.iloc[0][name]}" for name in columns)
        raise ValueError(f"several runs share {which}: pass fewer runs, or as `by` the column in which they differ")


def _in_words(metric: str) -> str:
    return metric.replace("_", " ")


class RuleSource:
    """A rule's source with what differs from another rule marked; a notebook shows it, ``str`` gives it as a diff."""

    def __init__(self, rule: Rule, previous: Rule | None = None) -> None:
        self.rule = rule
        self.previous = previous

    def __repr__(self) -> str:
        if self.previous is None:
            return _source(self.rule)
        return "\n".join(sign + " " + "".join(text for text, _ in words) for sign, words in self._lines())

    def _repr_html_(self) -> str:
        marks = {"+": "<mark style='background:#ffe08a;color:#1a1a1a'>", "-": "<del style='opacity:.65'>"}
        rows = []
        for sign, words in self._lines():
            mark = marks.get(sign, "")
            end = mark[:1] and f"</{mark[1:].split()[0]}>"
            rows.append("".join(mark + html.escape(text) + end if new else html.escape(text) for text, new in words))
        return '<pre class="stepsize-rule">' + "\n".join(rows) + "</pre>"

    def _lines(self) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
        """Each line as its sign (" ", "+" or "-") and its words, each with whether it is what differs."""
        new = _source(self.rule).splitlines()
        if self.previous is None:
            yield from ((" ", [(line, False)]) for line in new)
            return
        # The function's own name differs always, and says nothing.
        old = _source(self.previous, self.rule.name).splitlines()
        is_deviation = self.rule.name.partition(":")[0] == self.previous.name.partition(":")[0]
        for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag == "equal":
                yield from ((" ", [(line, False)]) for line in new[c:d])
                continue
            # What a rule lost is shown where the two are one method; between methods only what is new.
            if is_deviation:
                yield from (("-", _new_words(line, new[c:d])) for line in old[a:b] if line.strip())
            for line in new[c:d]:
                words = _new_words(line, old[a:b])
                if line.strip():
                    yield "+" if is_deviation or any(new for _, new in words) else " ", words


def _source(rule: Rule, name: str | None = None) -> str:
    """The rule's source as a function of that name: a deviation's is its rule's."""
    return re.sub(r"^def \w+", f"def {(name or rule.name).partition(':')[0]}", rule.source.rstrip())


def _new_words(line: str, others: list[str]) -> list[tuple[str, bool]]:
    """The words of ``line`` in runs, each with whether the most similar of ``others`` lacks it."""
    near = difflib.get_close_matches(line, others, n=1, cutoff=0.4)
    if not near:
        text = line.lstrip()
        return [(line[: len(line) - len(text)], False), (text, True)]
    before, after = (re.findall(r"\w+|\s+|.", text) for text in (near[0], line))
    return [
        ("".join(after[c:d]), tag != "equal")
        for tag, _, _, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if d > c
    ]


def rule_source(rule: str | Rule, previous: str | Rule | None = None) -> RuleSource:
    """The source of ``rule`` with what is new since ``previous`` marked; for a deviation, ``previous`` is its rule.

    Between a rule and its deviation what was taken away is shown as well, struck out.
    """
    this = find(rule) if isinstance(rule, str) else rule
    base, _, deviation = this.name.partition(":")
    if previous is None and deviation:
        previous = base
    return RuleSource(this, find(previous) if isinstance(previous, str) else previous)


def schedule_source(schedule: str, previous: str | None = None) -> RuleSource:
    """The same for a schedule of :mod:`stepsize.schedules`, its docstring and types left out."""

    def printed(name: str) -> Any:
        text = inspect.getsource(SCHEDULES[name])
        text = re.sub(r'    """.*?"""\n', "", text, count=1, flags=re.DOTALL)
        text = re.sub(r": (?:int|float)(?: \| None)?( =)? ?(?=[\w,)])|( -> float)", lambda m: "=" if m[1] else "", text)
        return SimpleNamespace(name=name, source=text)

    return RuleSource(printed(schedule), printed(previous) if previous else None)


def steps_table(
    rules: Sequence[str | Rule], gradients: Sequence[Any], *, start: Any = 1.0, digits: int = 6, **hyper: Any
) -> pd.DataFrame:
    """How far each rule moves a parameter at each of some given gradients: a row per rule, a column per step.

    ``gradients`` are numbers, or vectors (then ``start`` is one too, and a cell holds a tuple). A hyper-parameter
    goes to the rules that know it. Computed in float64 and rounded to ``digits`` significant digits.
    Raises ``TypeError`` for a hyper-parameter that no rule knows.
    """
    methods = [find(rule) if isinstance(rule, str) else rule for rule in rules]
    for name in hyper:
        if not any(name in method.defaults for method in methods):
            raise TypeError(f"none of {', '.join(method.name for method in methods)} has a hyper-parameter {name!r}")
    rows = {}
    for method in methods:
        known = {name: value for name, value in hyper.items() if name in method.defaults}
        method.validate(known)
        p = torch.as_tensor(start, dtype=torch.float64)
        state, moves = method.init(p), []
        for t, g in enumerate(gradients, start=1):
            new_p, *new_state = method(p, torch.as_tensor(g, dtype=torch.float64), t, *state, **known)
            moves.append(_rounded((new_p - p).tolist(), digits))
            p, state = new_p, tuple(new_state)
        rows[method.name] = moves
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"step {t}" for t in range(1, len(gradients) + 1)])


def _rounded(value: Any, digits: int) -> Any:
    # Adding 0 turns -0 into 0.
    return tuple(_rounded(x, digits) for x in value) if isinstance(value, list) else float(f"{value:.{digits}g}") + 0.0


def summary_table(runs: Any, metric: str = "test_error") -> pd.DataFrame:
    """What ``runs.summary(metric)`` says, for a page: a row per optimizer, the best first, with what it cost.

    ``metric`` is that of the chosen setting, mean and 95 % interval over seeds; ``ms per step`` and ``bytes of
    state`` are those of one run.
    """
    frame, rows = runs.frame(), {}
    for row in runs.summary(metric).to_dict("records"):
        mine = frame[frame["optimizer"] == row["optimizer"]]
        rows[row["optimizer"]] = {
            "chosen": row["setting"] + (" (edge of the grid)" if row["grid_edge"] else ""),
            metric.replace("_", " "): f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]",
            "n": row["n"],
            "at its best moment": f"{row['best_mean']:.4f}",
            "train loss": f"{row['train_loss']:.2g}",
            "settings tried": row["settings"],
            "runs diverged": f"{int(mine['diverged'].sum())} of {len(mine)}",
            "bytes of state": int(mine["state_bytes"].iloc[0]),
            "ms per step": f"{1000 * (mine['seconds'] / mine['steps']).median():.2f}",
        }
    return pd.DataFrame(rows).T
