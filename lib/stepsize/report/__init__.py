"""Reports: notebooks that answer a question for the parameters they are given; ``stepsize report`` runs them.

What their cells call is here: parameters as lists, figures and tables for a page, the comparison in words.
"""

from .answers import (
    against,
    beside_one,
    beside_others,
    best_paths,
    better_or_worse,
    leader,
    listed,
    rate_at,
    robustness,
    scaled,
)
from .notebook import command, method, rule_file, settings, show, table, ticks, versions
from .novograds import defaults_apart, departs, departures, moves, outside, told_apart
from .parameters import names, numbers

__all__ = [
    "against",
    "beside_one",
    "beside_others",
    "best_paths",
    "better_or_worse",
    "command",
    "defaults_apart",
    "departs",
    "departures",
    "leader",
    "listed",
    "method",
    "moves",
    "names",
    "numbers",
    "outside",
    "rate_at",
    "robustness",
    "rule_file",
    "scaled",
    "settings",
    "show",
    "table",
    "ticks",
    "told_apart",
    "versions",
]
