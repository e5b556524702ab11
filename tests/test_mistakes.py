"""Every mistake is caught: the named ones and those a machine makes by editing the source, each by a test of the rules.

Running this file writes the table of who catches what to ``_build/mutants.md``.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import LAWS, SCALE, golden_steps
from stepsize.laws import gradients, known, path, settings
from stepsize.rules import RULES, Deviation, Rule

TABLE = Path(__file__).parents[1] / "_build" / "mutants.md"

DEVIATIONS = [(rule, deviation) for rule in RULES.values() for deviation in rule.deviations.values()]
MISTAKES = [(rule, deviation) for rule, deviation in DEVIATIONS if deviation.kind == "mistake"]
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)


def each(pairs: list[tuple[Rule, Deviation]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("rule", "deviation"), pairs, ids=[d.rule.name for _, d in pairs])


# -- The named deviations -----------------------------------------------------------------------------------------


def halfway(hyper: dict[str, Any]) -> dict[str, Any]:
    """The rate falls to a tenth after ten of twenty steps, and every other number by a tenth."""

    def lower(name: str, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(lower(name, part) for part in x)
        return x if isinstance(x, bool) or x is None else x * (0.1 if name == "lr" else 0.9)

    return {name: [x] * 10 + [lower(name, x)] * 10 for name, x in hyper.items()}


@each(DEVIATIONS)
def test_deviation_parts_from_the_rule(rule, deviation):
    seed = torch.seed()  # Fresh on each run: whatever the gradients, the deviation shows.
    p, gs = torch.randn(3, 4, dtype=torch.float64), gradients(20, 3, 4, seed=seed)
    apart = []
    for name, hyper in settings(rule).items():
        own = dict(deviation.rule.defaults) if name == "defaults" else known(deviation.rule, hyper)
        there, here = (path(one, p, gs, halfway(values)) for one, values in ((rule, hyper), (deviation.rule, own)))
        assert there.isfinite().all(), f"the rule itself is spoiled (seed {seed})"
        apart.append(float((there - here).abs().nan_to_num(torch.inf).max()))
        if apart[-1] > 1e-6:
            return
    raise AssertionError(f"the paths differ by {apart} (seed {seed})")


@functools.cache
def killers(name: str, deviation: str) -> tuple[str, ...]:
    """The laws of the rules that the deviation breaks."""
    return tuple(law for law, holds in LAWS.items() if breaks(RULES[name].deviations[deviation].rule, holds))


def breaks(rule: Rule, holds: Callable[[Rule], None]) -> bool:
    try:
        holds(rule)
    except pytest.skip.Exception:
        return False
    except (NameError, ValueError):
        raise  # The edit itself is broken: that is not a catch.
    except Exception:
        return True
    return False


@each(MISTAKES)
def test_mistake_is_caught(rule, deviation):
    assert killers(rule.name, deviation.name), "no test of the rules fails under this mistake"


@each_rule
def test_rule_has_enough_mistakes(rule):
    """Five, and six for an adaptive rule: one that does not simply scale with the gradient."""
    assert sum(d.kind == "mistake" for d in rule.deviations.values()) >= (5 if SCALE.get(rule.name) == "linear" else 6)


@each(DEVIATIONS)
def test_hint_is_one_short_sentence_that_does_not_give_the_code(rule, deviation):
    hint = deviation.hint
    assert len(hint) < 140 and hint[-1] in ".?", hint
    assert not re.search(r"[.?!] [A-Z]", hint), f"more than one sentence: {hint}"
    told = [old.strip() for old in deviation.changes if not old.strip().isidentifier()]
    assert not any(old in hint for old in told), f"the hint gives the code: {hint}"


# -- Mistakes that a machine makes --------------------------------------------------------------------------------

# rule -> {edited text: why it is the same function}.
EQUIVALENT: dict[str, dict[str, str]] = {
    "adafactor": {
        "row_var = beta2 * row_var - (1 - beta2) * row_sum(g * g + eps[0])": "a row's share of the total has no sign"
    },
    "lambc": {"ratio = where(norm(p) == 0, 1.0, norm(p) / norm(u))": "a finite clip leaves a zero direction zero"},
}

FLIPS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
NEGATIONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt
}  # fmt: skip


def edits(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of one node."""
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in FLIPS:
                yield ast.BinOp(left, FLIPS[type(op)](), right)
            yield left
            if not isinstance(op, ast.Pow):
                yield right
        case ast.UnaryOp(ast.USub(), operand):
            yield operand
        case ast.Compare(left, [op], right) if type(op) in NEGATIONS:
            yield ast.Compare(left, [NEGATIONS[type(op)]()], right)
        case ast.Name("beta1" | "beta2" as name, ast.Load()):
            yield ast.Name("beta2" if name == "beta1" else "beta1", ast.Load())
        case ast.Attribute(value, "maximum" | "minimum" as name):
            yield ast.Attribute(value, "minimum" if name == "maximum" else "maximum", ast.Load())
        case ast.Call(ast.Attribute(value, "sqrt" | "square" | "abs"), []):
            yield value


def mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The edited statement, and the rule with that one edit."""
    tree = ast.parse(rule.source)
    [function] = tree.body
    assert isinstance(function, ast.FunctionDef)
    for statement in function.body:
        for parent in ast.walk(statement):
            for field, value in ast.iter_fields(parent):
                for at, child in enumerate(value if isinstance(value, list) else [value]):
                    for new in edits(child):
                        if isinstance(new, ast.Name) and new.id not in rule.source:
                            continue  # A swap with a beta that the rule does not have.
                        put(parent, field, at, new)
                        text = ast.unparse(statement)
                        namespace = dict(rule.function.__globals__)
                        exec(compile(ast.fix_missing_locations(tree), f"<{rule.name}: {text}>", "exec"), namespace)
                        put(parent, field, at, child)
                        mutant = rule.changed(rule.name, {})
                        mutant.__dict__["function"] = namespace[function.name]
                        yield text, mutant


def put(parent: ast.AST, field: str, at: int, node: ast.AST) -> None:
    value = getattr(parent, field)
    if isinstance(value, list):
        value[at] = node
    else:
        setattr(parent, field, node)


@functools.cache
def edited(name: str) -> tuple[int, tuple[str, ...]]:
    """How many edits a machine makes in a rule, and which of them the golden steps let through."""
    made = list(mutants(RULES[name]))
    return len(made), tuple(text for text, mutant in made if not breaks(mutant, golden_steps))


@each_rule
def test_golden_steps_catch_every_edit_of_the_source(rule):
    made, survivors = edited(rule.name)
    assert made > 0
    assert sorted(survivors) == sorted(EQUIVALENT.get(rule.name, {})), "survivors on the left, equivalents on the right"


def test_no_mistake_survives():
    """Writes the table, and a line to the screen."""
    rows = {d.rule.name: killers(rule.name, d.name) for rule, d in MISTAKES}
    lines = [["mistake", *LAWS], ["---"] * (len(LAWS) + 1)]
    lines += [[name, *("x" if law in killed else "" for law in LAWS)] for name, killed in rows.items()]
    found = {name: edited(name) for name in RULES}
    by_machine = [["rule", "edits", "caught", "the same function"], ["---"] * 4]
    for name, (made, survivors) in found.items():
        by_machine.append([name, str(made), str(made - len(survivors)), "; ".join(f"`{text}`" for text in survivors)])
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in part) for part in (lines, by_machine)))
    by_law = ", ".join(f"{law} {sum(law in killed for killed in rows.values())}" for law in LAWS)
    alive = [name for name, killed in rows.items() if not killed]
    print(f"\n{len(rows)} mistakes, {len(alive)} survive; caught by {by_law}")
    made, equivalent = sum(n for n, _ in found.values()), sum(len(same) for _, same in found.values())
    print(f"{made} edits by machine, {equivalent} of them the same function, the others caught by the golden steps")
    assert not alive
