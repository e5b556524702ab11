"""Sphinx directives made from records: ``tasks``, ``speed`` (the benchmark), ``claims`` (the ledger), ``reports``."""

from __future__ import annotations

import inspect
import itertools
import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from stepsize import claims
from stepsize.fingerprint import task_hash
from stepsize.report import page
from stepsize.report.run import is_fresh, reports
from stepsize.tasks import TASKS, Task

RESULTS = Path(__file__).parents[1] / "results"
CHAPTERS = Path(__file__).parents[2] / "chapters"


def section(task: Task, record: dict[str, Any] | None) -> str:
    """One task in MyST: its docstring, what a run costs, and what was measured."""
    better = "at least" if task.metric in task.larger else "at most"
    how = "as one program" if task.batched else "one after another, on all cores"
    parts = [
        f"## {task.name}",
        inspect.cleandoc(task.__doc__ or "").replace("``", "`"),
        f"**A run:** {task.steps:,} steps; the runs of a sweep are trained {how}. "
        f"**Target:** `{task.metric}` {better} {task.target:g} for AdamW at its default.",
    ]
    if record is None:
        parts.append("**Measured:** not yet. It needs data that no package carries.")
    else:
        mean, low, high = record["interval"]
        made = record["made"]
        stale = "" if record["code"] == task_hash(type(task)) else " **Stale:** the task's code changed since."
        parts.append(
            f"**Measured:** {record['parameters']:,} parameters; AdamW reached {mean:.4g} "
            f"(95 % interval {low:.4g} to {high:.4g}, n = {len(record['reached'])}) in {record['seconds']:.1f} s a run "
            f"({made['device']}, one thread, torch {made['torch']}, {made['date']}).{stale}"
        )
    return "\n\n".join(parts)


class Tasks(SphinxDirective):
    """``{tasks}``: a section per task, by name."""

    def run(self) -> list[nodes.Node]:
        records = _record(self, "tasks.json")
        return _parsed(self, "\n\n".join(section(task, records.get(name)) for name, task in sorted(TASKS.items())))


class Speed(SphinxDirective):
    """``{speed}``: every line of the benchmark, how cost grows, and what was measured on a GPU, if it was."""

    def run(self) -> list[nodes.Node]:
        record, gpu = _record(self, "bench.json"), _record(self, "gpu.json")
        parts = ["## Beside the rivals"]
        if record:
            parts += _measured(record)
        else:
            parts.append("Not measured yet: `make bench` writes the record that would stand here.")
        parts.append("## On a GPU")
        if not gpu:
            parts.append("Not run on a GPU yet: `make gpu` writes the record that would stand here.")
        else:
            lines = [[x["what"], x["rival"], f"{x['ratio']:.2f}", ""] for x in gpu["lines"]]
            parts.append(table(["", "rival", "ratio", ""], lines))
            parts.append(", ".join(f"{name} {text}" for name, text in gpu["made"].items()))
        return _parsed(self, "\n\n".join(parts))


class Claims(SphinxDirective):
    """``{claims}``: how many claims have which verdict, then each by chapter, with its record unfolded at a click."""

    def run(self) -> list[nodes.Node]:
        where = RESULTS / "claims"
        found = {claim_id: _recorded(claim_id, where) for claim_id in claims.CLAIMS}
        for claim_id in found:
            self.env.note_dependency(str(where / f"{claim_id}.json"))
        counts = Counter(result.verdict if result else "not recorded" for result in found.values())
        told = [[verdict, str(counts[verdict])] for verdict in (*claims.VERDICTS, "not recorded") if counts[verdict]]
        parts = [table(["verdict", "claims"], told)]
        for number, own in itertools.groupby(claims.CLAIMS.values(), key=lambda claim: claim.chapter):
            path = next(CHAPTERS.glob(f"{number:02}-*.ipynb"), None)
            title = json.loads(path.read_text("utf-8"))["cells"][0]["source"] if path else [f"Chapter {number:02}"]
            parts.append(f"## {number}. {''.join(title).splitlines()[0].lstrip('# ')}")
            if path:
                parts.append(f"Shown in [](../chapters/{path.name}).")
            parts += [entry(claim, found[claim.id]) for claim in own]
        return _parsed(self, "\n\n".join(parts))


def entry(claim: claims.Claim, result: claims.Result | None) -> str:
    """One claim of the ledger: its verdict in the line, everything else folded."""
    says = f"{escape(claim.says)} <small>({claim.source}, <code>{claim.id}</code>)</small>"
    if result is None:
        return f'<p id="{claim.id}">{says}: <strong>not recorded</strong></p>'
    stale = ", stale: the code has changed since" if result.stale else ""
    head = f"{says}: <strong>{result.verdict}</strong>, n = {result.outcome.n:,}{stale}"
    return f'<details id="{claim.id}"><summary>{head}</summary>{result._repr_html_()}</details>'


def _recorded(claim_id: str, where: Path) -> claims.Result | None:
    try:
        return claims.recorded(claim_id, where)
    except (FileNotFoundError, ValueError):
        return None


def _measured(record: dict[str, Any]) -> list[str]:
    parts = [table(["", "rival", "ratio", "to reach"], [_cells(line) for line in record["lines"]])]
    names = {"parameters": "Parameters", "runs": "Runs at once", "batch": "Batch size"}
    parts.append("## How the cost grows")
    for what, rows in record["growth"].items():
        heads = [key.replace("_", " ") for key in rows[0]]
        cells = [[f"{x:.3g}" if isinstance(x, float) else f"{x:,}" for x in row.values()] for row in rows]
        parts += [f"### {names[what]}", table(heads, cells)]
    made = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in record["made"].items())
    return [*parts, "## On what", f"Measured in one run of `make bench`: {made}."]


class Reports(SphinxDirective):
    """``{reports}``: each report's question, the answer of its recorded run, and its parameters."""

    def run(self) -> list[nodes.Node]:
        parts = []
        for name, report in reports().items():
            self.env.note_dependency(str(report.path))
            parts += [f"## {name}", f"**[{report.question}](report-{name}.md)**"]
            recorded = _notebook(self, name)
            parts.append(page.answer(recorded) if recorded else "Not recorded yet.")
            lines = "\n".join(map(str, report.parameters.values()))
            parts.append(f"```python\n{lines}\n```")
        return _parsed(self, "\n\n".join(parts))


class Report(SphinxDirective):
    """``{report} NAME``: the recorded run of one report, its code folded."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        recorded = _notebook(self, name)
        if recorded is None:
            return _parsed(self, f"Not recorded yet: `stepsize report {name} -o book/results/reports/{name}.ipynb`")
        made = recorded.metadata.stepsize
        parts = [*page.parts(recorded, raw=lambda text: f"~~~~~~{{raw}} html\n{text}\n~~~~~~")]
        parts[0] = "## The answer"  # in place of the title, which the page has
        stale = "" if is_fresh(reports()[name], recorded) else " **Stale:** the report has changed since."
        parts.append(f"*Recorded on {made['date']} with stepsize {made['stepsize']}, in {made['seconds']} s.*{stale}")
        return _parsed(self, "\n\n".join(parts))


def _notebook(directive: SphinxDirective, name: str) -> Any:
    path = RESULTS / "reports" / f"{name}.ipynb"
    directive.env.note_dependency(str(path))
    return nbformat.read(path, as_version=4) if path.exists() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def _cells(line: dict[str, Any]) -> list[str]:
    if line["ratio"] is None:
        return [line["what"], line["rival"], "not measured", line["target"]]
    spread = " [{:.2f}, {:.2f}]".format(*line["spread"]) if "spread" in line else ""
    ratio = f"{line['ratio']:.2f}{spread}"
    return [line["what"], line["rival"], ratio if line["reached"] else f"**{ratio}**, missed", line["target"]]


def _record(directive: SphinxDirective, name: str) -> dict[str, Any]:
    directive.env.note_dependency(str(RESULTS / name))
    found: dict[str, Any] = json.loads((RESULTS / name).read_text("utf-8")) if (RESULTS / name).exists() else {}
    return found


def _parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    node = nodes.Element()
    directive.state.nested_parse(StringList(text.splitlines(), source="record"), 0, node, match_titles=True)
    return node.children


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("tasks", Tasks)
    app.add_directive("speed", Speed)
    app.add_directive("claims", Claims)
    app.add_directive("report", Report)
    app.add_directive("reports", Reports)
    return {"parallel_read_safe": True}
