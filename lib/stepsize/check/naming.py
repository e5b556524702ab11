"""Which mistake is it? The deviation of a rule, the other rule, or the two mistakes, that walk as the student does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from torch import Tensor

from ..laws import at_step, base, known
from ..rules import RULES, Rule
from .walks import Case, equal, walk_of


def name_of(
    rule: Rule, cases: Sequence[Case], walked: Sequence[Sequence[tuple[Tensor, ...]]], states: bool = False
) -> tuple[str | None, str | None]:
    """The deviation of ``rule``, the other rule, or the pair of mistakes, that walks as the student does.

    With ``states``, only one whose states are the student's, too.
    """

    def departs(n: int) -> bool:
        walk = zip(walk_of(rule, cases[n]), walked[n], strict=True)
        return not all(equal(now[0], then[0]) for then, now in walk)

    # Where the student departs, most candidates fall at the first step.
    order = sorted(range(len(cases)), key=departs, reverse=True)
    alone: Iterable[tuple[str, str | None, Rule]] = list(_candidates(rule))
    # Of two mistakes that walk the same path, the one whose states are the student's, too.
    attempts = [(True, alone)] if states else [(True, alone), (False, alone), (False, _pairs(rule))]
    for whole, candidates in attempts:
        for name, hint, candidate in candidates:
            with suppress(Exception):
                if all(_walks(candidate, cases[n], walked[n], whole) for n in order):
                    return name, hint
    return None, None


def _walks(rule: Rule, case: Case, walk: Sequence[tuple[Tensor, ...]], whole: bool) -> bool:
    """Whether the rule takes the same steps; with ``whole``, also with the same states."""
    p, state = case.p, list(rule.init(case.p))
    for t, there in enumerate(walk, start=1):
        p, *state = rule(p, case.gradient(t, p), t, *state, **known(rule, at_step(case.hyper, t)))
        mine = (p, *state) if whole else (p,)
        if whole and len(mine) != len(there):
            return False
        if not all(equal(a, b) for a, b in zip(there, mine, strict=whole)):
            return False
    return True


def _candidates(rule: Rule) -> Iterator[tuple[str, str | None, Rule]]:
    """Where a library's form is asked for, the paper's; single mistakes; what libraries do; other rules."""
    family = base(rule)
    if family is not rule:
        yield family.name, None, family
    deviations = sorted(family.deviations.values(), key=lambda d: d.kind != "mistake")
    yield from ((d.name, d.hint, d.rule) for d in deviations)
    yield from ((other.name, None, other) for other in RULES.values() if other is not family)


def _pairs(rule: Rule) -> Iterator[tuple[str, str | None, Rule]]:
    """Two mistakes at once: the second edit is made in the text that the first one leaves, where it still fits."""
    family = base(rule)
    mistakes = [d for d in family.deviations.values() if d.kind == "mistake" and d.changes]
    for a, b in itertools.permutations(mistakes, 2):
        if a.changes.keys() & b.changes.keys():
            continue
        if _fits(a.rule, b.changes) and (a.name < b.name or not _fits(b.rule, a.changes)):
            both = a.rule.changed(f"{family.name}:{a.name}+{b.name}", b.changes)
            yield f"{a.name} + {b.name}", f"First: {a.hint} Then: {b.hint}", both


def _fits(rule: Rule, changes: Mapping[str, str]) -> bool:
    try:
        return bool(rule.changed(rule.name, changes).source)
    except ValueError:
        return False
