"""Sphinx directives made from the rules: ``rules``, ``mistakes`` (what the checker names) and ``playground``."""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from stepsize.optim import OPTIMIZERS
from stepsize.playground import playground
from stepsize.rules import RULES, Rule


def section(rule: Rule) -> str:
    """One rule in MyST: class, paper, equation, docstring, defaults, memory, source and variants."""
    variants = [d for d in rule.deviations.values() if d.kind == "library"]
    defaults = ", ".join(f"`{name}={value!r}`" for name, value in rule.defaults.items())
    state = ", ".join(f"`{name}` (per {kind})" for name, kind in rule.state.items()) or "none"
    lines = [
        f"## {rule.name}",
        f"`stepsize.optim.{OPTIMIZERS[rule.name].__name__}`. {rule.paper}.",
        f"$$\n\\begin{{aligned}}\n{rule.equation}\n\\end{{aligned}}\n$$",
        rule.__doc__ or "",
        f"**Defaults:** {defaults}.",
        f"**State:** {state}; numbers for a tensor of n parameters: {rule.memory}.",
        f":::{{dropdown}} Source of {rule.name}\n```python\n{rule.source}```\n:::",
    ]
    if variants:
        rows = [f"`{d.name}`\n: {d.hint}\n" for d in variants]
        lines += [f"**Variants of {rule.name}**", *rows]
    return "\n\n".join(lines)


def mistakes(rule: Rule) -> str:
    """The mistakes of one rule, folded, each with what a student is told to look at."""
    named = [d for d in rule.deviations.values() if d.kind == "mistake"]
    rows = "\n".join(f"| `{d.name}` | {d.hint} |" for d in named)
    table = f"| mistake | what the checker tells a student to look at |\n|---|---|\n{rows}"
    return f":::{{dropdown}} {rule.name}: {len(named)} mistakes\n{table}\n:::"


class Rules(SphinxDirective):
    """``{rules}``: a section per rule, in the order of the years."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, "\n\n".join(section(rule) for rule in RULES.values()))


class Mistakes(SphinxDirective):
    """``{mistakes}``: how many the checker knows, and a folded table per rule."""

    def run(self) -> list[nodes.Node]:
        count = sum(d.kind == "mistake" for rule in RULES.values() for d in rule.deviations.values())
        parts = [f"It knows {count} mistakes in {len(RULES)} rules.", *map(mistakes, RULES.values())]
        return _parsed(self, "\n\n".join(parts))


class Playground(SphinxDirective):
    """``{playground} sgd adam``: the methods to begin with; ``:schedule:`` adds a field to draw the rate in."""

    optional_arguments = 4
    option_spec: ClassVar = {"landscape": str, "name": str, "schedule": directives.flag}

    def run(self) -> list[nodes.Node]:
        given = {**self.options, "schedule": "schedule" in self.options}
        return [nodes.raw("", playground(*self.arguments, **given).html(), format="html")]


def _parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    node = nodes.Element()
    directive.state.nested_parse(StringList(text.splitlines(), source="stepsize.rules"), 0, node, match_titles=True)
    return node.children


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("rules", Rules)
    app.add_directive("mistakes", Mistakes)
    app.add_directive("playground", Playground)
    return {"parallel_read_safe": True}
