"""What the cells of a report call to set up, to show and to say how it was made."""

from __future__ import annotations

import os
import platform
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..search import log_grid
from .parameters import span

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parents[3] / "book" / "reports"
# One and a half pixels a CSS pixel: sharp enough, and a page of ten figures stays small.
DPI = 150
# The command tells the notebook that it runs what it was asked to write.
OUTPUT = "STEPSIZE_REPORT_OUTPUT"


def settings(optimizers: Sequence[str], lr: str, rates: int) -> dict[str, dict[str, Any]]:
    """What a sweep takes: each optimizer with its rates, ``"auto"`` or a grid of so many for ``LO:HI``."""
    ends = span(lr)
    return {name: {"lr": log_grid(*ends, rates) if ends else "auto"} for name in optimizers}


def rule_file(path: str) -> Path:
    """The file as named, or, if there is none, the one of that name beside the reports."""
    beside = FOLDER / path
    return beside if beside.is_file() and not Path(path).is_file() else Path(path)


def show(figure: Figure, alt: str, caption: str) -> HTML:
    """A figure with its words: ``alt`` for who cannot see it, ``caption`` for all; Markdown's stars are left out."""
    from IPython.display import HTML

    alt, caption = alt.replace("**", ""), caption.replace("**", "")
    figure.set_dpi(DPI)
    png, size = figure._repr_png_()  # type: ignore[attr-defined]
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    image = f'<img alt="{escape(alt)}" width="{size["width"]}" src="{source}">'
    return HTML(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")


def ticks(figure: Figure, axis: str, places: Sequence[float]) -> Figure:
    """The figure with ticks at these few places of its logarithmic ``"x"`` or ``"y"`` axis, and at no other."""
    for ax in figure.axes[:1] if axis == "y" else figure.axes:
        own = ax.xaxis if axis == "x" else ax.yaxis
        own.set_ticks(places, [f"{place:g}" for place in places])
        own.set_ticks([], minor=True)
    return figure


def table(rows: pd.DataFrame, words: Sequence[str] = ()) -> HTML:
    """A table, its index as the first column unless it only counts the rows; the columns ``words`` hold text.

    On a narrow screen it scrolls by itself, also for who has no mouse.
    """
    import pandas as pd
    from IPython.display import HTML

    if not isinstance(rows.index, pd.RangeIndex):
        rows = rows.rename_axis(rows.index.name or "").reset_index()
    kinds = ['<{0} class="words">' if name in words else "<{0}>" for name in rows.columns]

    def line(tag: str, cells: Sequence[Any]) -> str:
        marked = zip(kinds, cells, strict=True)
        return "<tr>" + "".join(f"{kind.format(tag)}{escape(_text(x))}</{tag}>" for kind, x in marked) + "</tr>"

    body = "".join(line("td", row) for row in rows.itertuples(index=False, name=None))
    head = line("th", [str(name).replace("_", " ") for name in rows.columns])
    inside = f'<table class="table"><thead>{head}</thead><tbody>{body}</tbody></table>'
    return HTML(f'<div class="wide" style="overflow-x: auto" tabindex="0">{inside}</div>')


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def method(*lines: str) -> HTML:
    """Lines of text under each other, such as budget and versions."""
    from IPython.display import HTML

    return HTML("".join(f"<p>{escape(line)}</p>" for text in lines for line in text.splitlines()))


def versions() -> str:
    """What this was made with, and when."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("stepsize", "torch", "numpy"))
    return f"Python {platform.python_version()}, {packages}, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}."


def command(name: str, given: Mapping[str, Any]) -> HTML:
    """The command that makes the report ``name`` again, with every parameter spelled out.

    ``given`` has their values among others: a cell passes ``globals()``.
    """
    from IPython.display import HTML

    from .run import find

    words = [f"-p {key}={quote(str(given[key]))}" for key in find(name).parameters]
    output = os.environ.get(OUTPUT, f"{name}.html")
    line = escape(" ".join(["stepsize report", name, *words, "-o", quote(output)]))
    return HTML(f'<pre style="white-space: pre-wrap"><code>{line}</code></pre>')
