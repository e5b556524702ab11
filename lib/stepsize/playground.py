"""The playground: any landscape, up to four methods at once, and a rate that may follow a line drawn by hand."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from . import landscapes, schedules
from .engines import print_js
from .explore import _Frame, _ground, _marks, compact
from .figures import looks
from .landscapes import Landscape
from .rules import RULES, Rule

# The rate's slider, and the run by which its first place is found.
SLIDER = {"low": -3.5, "high": 2.5, "places": 480}
TRIAL = 80
PLANS = ("constant", "cosine", "poly", "warmup", "one_cycle", "warm_restarts", "triangular")
POINTS = 101


@dataclass(frozen=True)
class Playground:
    """A figure to play with; a notebook shows it when it is a cell's last value, and a page without a kernel, too.

    ``methods`` are the names it begins with, four at most, ``landscape`` the surface. ``schedule``: with a field in
    which the rate's course is drawn by hand. What moves the points is the rules themselves, printed as JavaScript.
    Raises ``KeyError`` for an unknown landscape or method, ``ValueError`` for more than four.
    """

    methods: Sequence[str] = ("sgd", "sgdm", "adam", "novograd")
    landscape: str = "quadratic"
    schedule: bool = False
    name: str = "playground"

    def __post_init__(self) -> None:
        landscapes.get(self.landscape)
        if len(self.methods) > 4:
            raise ValueError(f"methods must be four at most, got {len(self.methods)}")
        for name in self.methods:
            if name not in RULES:
                raise KeyError(f"no rule named {name!r}; known: {', '.join(RULES)}")

    def told(self) -> dict[str, Any]:
        """What the module is told, beside the rules and surfaces themselves."""
        look = looks(list(RULES))
        return {
            "name": self.name,
            "slider": SLIDER,
            "schedule": self.schedule,
            "landscape": self.landscape,
            "methods": list(self.methods),
            "surfaces": {name: _surface(surface) for name, surface in _surfaces().items()},
            "rules": {
                name: {**_rule(rule), "color": one.color, "dash": " ".join(f"{2.5 * part:g}" for part in one.dash)}
                for (name, rule), one in zip(RULES.items(), look, strict=True)
            },
            "plans": {name: _plan(name) for name in PLANS} if self.schedule else {},
        }

    def still(self) -> str:
        """What stands there without JavaScript: the surface, and sixty steps of each method from its own start."""
        surface = landscapes.get(self.landscape)
        frame, paths = _Frame.around(surface), ""
        for name, look in zip(self.methods, looks(list(self.methods)), strict=True):
            path = landscapes.trajectory(name, surface, steps=60, lr=best_rates(name)[self.landscape])
            places = frame.place(path[path.isfinite().all(1)].numpy())
            inside = [f"{x:.0f} {y:.0f}" for x, y in places if abs(x) < 2000 and abs(y) < 2000]
            paths += f'<path d="M{"L".join(inside)}" stroke="{look.color}" stroke-width="2.5"/>'
        width, height = frame.size
        alt = f"{surface.title}: the paths of {', '.join(self.methods)} from one start, sixty steps each."
        return (
            f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(alt)}" '
            'style="display:block;width:100%;max-width:640px;height:auto" fill="none" stroke-linejoin="round">'
            f"<g data-ground>{_ground(surface, frame)}</g><g data-paths>{paths}</g>"
            f"<g data-marks>{_marks(surface, frame, surface.start)}</g></svg>"
        )

    def html(self) -> str:
        """The whole figure as one piece of HTML that needs no network, no kernel and no other file."""
        data = json.dumps(self.told(), separators=(",", ":")).replace("</", "<\\/")
        key = hashlib.sha256(data.encode()).hexdigest()[:8]
        rules = ",\n".join(f"{json.dumps(name)}: {_rule_source(name)}" for name in RULES)
        surfaces = ",\n".join(f"{json.dumps(name)}: {_surface_source(name)}" for name in _surfaces())
        words = "The playground needs JavaScript; the picture shows where sixty steps lead."
        return (
            f'<figure class="stepsize-playground" data-key="{key}">{self.still()}<noscript><p>{words}</p></noscript>'
            f'<script type="application/json">{data}</script></figure><script type="module">'
            f"const RULES = {{\n{rules}\n}};\nconst SURFACES = {{\n{surfaces}\n}};\n{compact(module())}"
            f'mount("{key}", RULES, SURFACES);</script>'
        )

    def _repr_html_(self) -> str:
        return self.html()


def playground(
    *methods: str, landscape: str = "quadratic", schedule: bool = False, name: str = "playground"
) -> Playground:
    """A :class:`Playground` that begins with ``methods``, by default SGD, momentum, Adam and NovoGrad."""
    return Playground(methods or Playground.methods, landscape, schedule, name)


@cache
def module() -> str:
    """The text of the module that draws and listens; it holds no method and no surface."""
    return Path(__file__).with_suffix(".mjs").read_text(encoding="utf-8")


@cache
def _surfaces() -> dict[str, Landscape]:
    return {name: surface for name, surface in landscapes.LANDSCAPES.items() if surface.dimensions == 2}


@cache
def _surface_source(name: str) -> str:
    return print_js.landscape_source(landscapes.get(name))


@cache
def _rule_source(name: str) -> str:
    # Short names weigh less, and no one reads them.
    return re.sub(r"  +", " ", print_js.rule_source(RULES[name], RULES[name].defaults, 2))


@cache
def best_rates(rule: str) -> dict[str, float]:
    """For each surface the rate, of 25 on the slider, with which ``rule`` is lowest after eighty steps.

    The height is the mean over the last ten; a run that leaves the picture is out.
    """
    places = torch.arange(0, SLIDER["places"] + 1, 20) / SLIDER["places"]
    rates = [float(f"{10 ** float(SLIDER['low'] + (SLIDER['high'] - SLIDER['low']) * place):.2g}") for place in places]
    found = {}
    for name, surface in _surfaces().items():
        paths = landscapes.trajectory(rule, surface, steps=TRIAL, lr=rates)
        low, high = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*surface.view, strict=True))
        outside = ((paths < low - (high - low)) | (paths > high + (high - low)) | ~paths.isfinite()).any(2).any(1)
        heights = surface(paths[:, -10:]).mean(1).nan_to_num(torch.inf)
        found[name] = rates[int(torch.where(outside, torch.inf, heights).argmin())]
    return found


def _surface(surface: Landscape) -> dict[str, Any]:
    frame = _Frame.around(surface)
    return {
        "title": surface.title,
        "x": frame.x,
        "y": frame.y,
        "size": frame.size,
        "start": surface.start,
        "lowest": surface.lowest,
        "noise": surface.noise,
        "ground": _ground(surface, frame),
        "marks": _marks(surface, frame, surface.start),
    }


def _rule(rule: Rule) -> dict[str, Any]:
    """The hyper-parameters as one list of numbers, where in it the rate and the moment stand, and the empty state."""
    numbers, places = list[float](), dict[str, int]()
    for name, value in rule.defaults.items():
        if isinstance(value, bool) or value is None:
            continue
        places[name] = len(numbers)
        numbers += [float(x) for x in value] if isinstance(value, tuple) else [float(value)]
    moment = next((name for name in ("momentum", "betas", "beta", "alpha", "rho") if name in places), None)
    state = [s.tolist() if s.ndim else 0.0 for s in rule.init(torch.zeros(2))]
    return {
        "numbers": numbers,
        "state": [x if not isinstance(x, list) or len(x) == 2 else x[0] for x in state],
        "lr": places["lr"],
        "rates": best_rates(rule.name),
        "moment": None if moment is None else places[moment],
        "momentName": {"betas": "beta1"}.get(moment or "", moment),
    }


def _plan(name: str) -> list[float]:
    """The factor of the rate at evenly spaced moments of a run."""
    made: Mapping[str, Any] = {"warm_restarts": {"period": 25}, "warmup": {"over": 20}}
    plan = schedules.find(name, **made.get(name, {}))
    return [round(float(plan(step, POINTS - 1)), 4) for step in range(POINTS)]
