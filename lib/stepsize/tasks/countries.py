"""What spans-bert reads: short passages about countries, of real facts in our wording, and questions on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import NamedTuple, TypeVar

import torch

T = TypeVar("T")

# How a passage says each kind of fact, and how a question asks for it.
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "currency": (
        ("The currency is the {}.", "People pay with the {}.", "The {} is the currency."),
        ("What is the currency of {}?", "What do people in {} pay with?"),
    ),
    "former currency": (
        ("The former currency was the {}.", "People once paid with the {}."),
        ("What was the former currency of {}?", "What did people in {} once pay with?"),
    ),
    "code": (
        ("The code of the currency is {}.", "Banks write {}."),
        ("What is the code of the currency of {}?", "What do banks in {} write?"),
    ),
    "since": (
        ("The currency dates from {}.", "Since {} the currency has been used."),
        ("From when does the currency of {} date?", "Since when has the currency of {} been used?"),
    ),
    "official": (
        ("Official: {}.", "The state uses {}."),
        ("What is official in {}?", "What does the state of {} use?"),
    ),
    "spoken": (
        ("The main tongue is {}.", "{} is spoken most."),
        ("What is the main tongue of {}?", "What is spoken most in {}?"),
    ),
    "share": (
        ("{} speak the main language.", "The main language is spoken by {}."),
        ("How many in {} speak the main language?", "By how many in {} is the main language spoken?"),
    ),
    "clock": (
        ("Clocks follow {}.", "The time zone is that of {}."),
        ("What do clocks in {} follow?", "What is the time zone of {}?"),
    ),
    "week": (
        ("The week begins on {}.", "{} is the first day of the week."),
        ("When does the week in {} begin?", "What is the first day of the week in {}?"),
    ),
}
FACTS = 4
# Currencies of before and after: a fixed day, so that the passages do not depend on today.
FIRST, TODAY = date(1700, 1, 1), date(2025, 1, 1)


class Example(NamedTuple):
    """A question, a passage, and the characters of the passage from ``start`` that answer it."""

    country: str
    question: str
    passage: str
    answer: str
    start: int


def countries() -> dict[str, dict[str, str]]:
    """The facts of every country or territory of which at least ``FACTS`` are known, by its English name."""
    from babel import Locale, UnknownLocaleError
    from babel.core import get_global
    from babel.languages import get_official_languages, get_territory_language_info
    from babel.numbers import get_territory_currencies

    english = Locale("en")
    zones = get_global("territory_zones")
    found = {}
    for code in sorted(get_global("territory_languages")):
        facts: dict[str, str] = {}
        money = get_territory_currencies(code, FIRST, TODAY, include_details=True)
        used = [plain(english.currencies[x["currency"]]) for x in money]
        now = [i for i, x in enumerate(money) if x["to"] is None]
        if len(now) == 1:
            (i,) = now
            facts |= {"currency": used[i], "code": money[i]["currency"], "since": str(money[i]["from"].year)}
            before = [name for name in used[:i] if name != used[i]]
            facts |= {"former currency": before[-1]} if before else {}
        shares = {x: float(info["population_percent"] or 0) for x, info in get_territory_language_info(code).items()}
        main = max(shares, key=lambda x: shares[x], default="")
        if main in english.languages:
            facts |= {"spoken": english.languages[main], "share": f"{shares[main]:g} percent"}
        official = [english.languages[x] for x in get_official_languages(code, de_facto=True) if x in english.languages]
        if official:
            facts["official"] = " and ".join(filter(None, (", ".join(official[:-1]), official[-1])))
        if len(zones.get(code, ())) == 1:
            facts["clock"] = zones[code][0].rpartition("/")[2].replace("_", " ")
        with suppress(UnknownLocaleError):
            facts["week"] = english.days["format"]["wide"][Locale.parse(f"und_{code}").first_week_day]
        if len(facts) >= FACTS:
            found[english.territories[code]] = facts
    return found


def plain(name: str) -> str:
    """A currency's name without the years in brackets that tell two of one name apart."""
    return re.sub(r"\s*\(.*\)", "", name)


def example(known: dict[str, dict[str, str]], names: Sequence[str], random: torch.Generator) -> Example:
    """``FACTS`` facts of one of the countries ``names``, in any order and wording, and a question about one of them."""
    country = pick(names, random)
    kinds = list(known[country])
    told = [kinds[i] for i in torch.randperm(len(kinds), generator=random)[:FACTS].tolist()]
    asked = pick(told, random)
    passage, start = f"{country}.", 0
    for kind in told:
        before, _, after = pick(WORDINGS[kind][0], random).partition("{}")
        if kind == asked:
            start = len(f"{passage} {before}")
        passage = f"{passage} {before}{known[country][kind]}{after}"
    return Example(country, pick(WORDINGS[asked][1], random).format(country), passage, known[country][asked], start)


def pick(options: Sequence[T], random: torch.Generator) -> T:
    return options[int(torch.randint(len(options), (), generator=random))]
