"""The map of the methods: who changed what in which, as a picture to click, and as a list."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from stepsize.figures import look
from stepsize.rules import RULES
from stepsize.sweep import WRAPPERS


class Place(NamedTuple):
    """Where a method stands in the picture (column, row), its chapter, and what it changed in which others."""

    column: int
    row: float
    chapter: int
    changes: dict[str, str]


MAP = {
    "sgd": Place(0, 4, 1, {}),
    "sgdm": Place(1, 7, 2, {"sgd": "keeps its velocity"}),
    "nag": Place(2, 8, 3, {"sgdm": "looks ahead"}),
    "swats": Place(4, 8, 12, {"sgdm": "takes over from Adam", "adam": "hands over to momentum"}),
    "adagrad": Place(1, 4, 4, {"sgd": "a rate for each number, from all its squares"}),
    "rmsprop": Place(2, 4, 4, {"adagrad": "forgets old squares"}),
    "adadelta": Place(3, 2.9, 4, {"rmsprop": "has the units of the steps"}),
    "adam": Place(3, 5, 5, {"rmsprop": "adds momentum, corrects the start", "sgdm": "divides by the root of squares"}),
    "adamw": Place(4, 3, 6, {"adam": "decays beside the step"}),
    "nadam": Place(4, 4, 7, {"adam": "looks ahead", "nag": "divides by the root of squares"}),
    "amsgrad": Place(4, 5, 8, {"adam": "keeps the largest average"}),
    "radam": Place(4, 6, 10, {"adam": "waits until the average can be trusted"}),
    "adabound": Place(4, 7, 12, {"adam": "puts bounds on the rate"}),
    "amsbound": Place(5, 6.5, 12, {"adabound": "keeps the largest average", "amsgrad": "puts bounds on the rate"}),
    "adafactor": Place(4, 2, 16, {"adam": "keeps rows and columns of squares"}),
    "nd_adam": Place(4, 1, 17, {"adam": "turns each row, and keeps its length"}),
    "layer_lr": Place(1, 2.6, 13, {"sgd": "longer steps for layers with small gradients"}),
    "block_normalized": Place(1, 1.3, 13, {"sgd": "divides by the norm of the layer"}),
    "lars": Place(2, 0, 13, {"sgdm": "a rate in proportion to the weights of the layer"}),
    "novograd": Place(5, 2.5, 14, {"block_normalized": "averages the norm", "adam": "one second moment for a layer"}),
    "lamb": Place(4, 0, 15, {"lars": "takes the direction of Adam", "adam": "a trust ratio for each layer"}),
    "lambc": Place(5, 0, 15, {"lamb": "clips the trust ratio"}),
    "rsg": Place(1, 8.6, 18, {"sgd": "mixes the newest gradient with an average"}),
    "arsg": Place(5, 5.3, 18, {"rsg": "divides by the largest average", "amsgrad": "mixes in the newest gradient"}),
}
COLUMN, ROW, BOX = 164, 56, (134, 34)


def picture(address: Any) -> str:
    """The map as SVG; ``address(name)`` is where a method leads."""
    width, height = 6 * COLUMN, round(9.5 * ROW)
    lines, boxes = [], []
    for name, place in MAP.items():
        x, y = _at(place)
        for parent in place.changes:
            px, py = _at(MAP[parent])
            # From the right edge of the one to the left edge of the other, or straight down within a column.
            ax, bx = px + BOX[0], x
            bend = max(24, (bx - ax) / 2)
            ay, by = py + BOX[1] / 2, y + BOX[1] / 2
            lines.append(f'<path d="M{ax} {ay:.0f}C{ax + bend:.0f} {ay:.0f} {bx - bend:.0f} {by:.0f} {bx} {by:.0f}"/>')
        title = "; ".join(f"{words} ({parent})" for parent, words in place.changes.items()) or "where it begins"
        boxes.append(
            f'<a href="{address(name)}"><title>{escape(f"{name}: {title}")}</title>'
            f'<rect x="{x}" y="{y:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="6" stroke="{look(name).color}"/>'
            f'<text x="{x + BOX[0] / 2:.0f}" y="{y + 22:.0f}">{escape(name)}</text></a>'
        )
    return (
        '<div class="stepsize-map" tabindex="0" role="region" aria-label="Map of the methods, scrolls sideways">'
        f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="Map of the methods: each box leads to one.">'
        f'<g class="ways">{"".join(lines)}</g>{"".join(boxes)}</svg></div>'
    )


def _at(place: Place) -> tuple[int, float]:
    return place.column * COLUMN + 12, place.row * ROW + 10


class MethodMap(SphinxDirective):
    """``{method-map}``: the picture, and the same as a list."""

    def run(self) -> list[nodes.Node]:
        known = {*RULES, *WRAPPERS}
        if (missing := RULES.keys() - MAP.keys()) or (unknown := MAP.keys() - known):
            raise self.error(f"the map lacks {sorted(missing)} or has unknown {sorted(unknown)}")
        rows = []
        for name, place in MAP.items():
            ways = "; ".join(f"from {parent}: {words}" for parent, words in place.changes.items())
            where = chapter(place.chapter)
            rows.append(f"- [{name}]({where or 'rules.md'}): {ways or 'where it begins'}")
        listed = nodes.Element()
        self.state.nested_parse(StringList(rows, source="method map"), 0, listed)
        svg = picture(_address)
        return [nodes.raw("", svg, format="html"), *listed.children]


def _address(name: str) -> str:
    """Where a box leads, from the folder of pages."""
    return chapter(MAP[name].chapter, ".html") or f"rules.html#{name.replace('_', '-')}"


def chapter(number: int, suffix: str = ".ipynb") -> str:
    """The address, from the folder of pages, of the chapter of that number; empty while it is not written."""
    found = sorted((Path(__file__).parents[2] / "chapters").glob(f"{number:02}-*.ipynb"))
    return f"../chapters/{found[0].stem}{suffix}" if found else ""


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("method-map", MethodMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
