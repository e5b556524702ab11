"""What students and teachers read after grading: a page for each submission, a table of marks, a count of mistakes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from . import CourseError
from .folder import Course, Record, records, safe, write
from .sets import heart

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }
h1 { line-height: 1.2; } h2 { margin: 2rem 0 .3rem; font-size: 1.15rem; }
pre { background: #f3f3f3; padding: .7rem; overflow-x: auto; } .said { white-space: pre-wrap; padding: .7rem;
  border-left: .3rem solid #b3261e; background: #fdf0ef; } .right { border-color: #1b6e3c; background: #eff8f2; }
.waits { border-color: #8a6d00; background: #fdf8e6; } .mark { float: right; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #161616; } pre { background: #262626; }
  .said { background: #3a1f1d; } .right { background: #16301f; } .waits { background: #332b0c; } }
"""


def feedback(course: Course, name: str, students: Sequence[str] | None = None) -> list[Path]:
    """Write the page of every graded submission of a set; return their paths. It holds no test and no solution."""
    found = [record for record in records(course, name) if students is None or record.student in students]
    if not found:
        raise CourseError(
            f"nothing of {name} is graded in {course.folder}: run `stepsize course grade {name[:2]}` first"
        )
    written = []
    for record in found:
        path = course.at("feedback", record.student, name, f"{name}.html")
        write(path, page(record, comments(course, record)))
        written.append(path)
    return written


def comments(course: Course, record: Record) -> dict[str, str]:
    """What a teacher wrote in the gradebook beside the answers."""
    from nbgrader.api import MissingEntry

    with course.gradebook() as gradebook:
        try:
            known = gradebook.find_submission_notebook(record.set, record.set, safe(record.student))
        except MissingEntry:
            return {}
        return {c.name: c.manual_comment for c in known.comments if c.manual_comment}


def page(record: Record, remarks: dict[str, str]) -> str:
    """One submission as a page that loads nothing."""
    total = f"{record.total:g} of {record.most:g} points"
    if record.to_come:
        total += f", {record.to_come:g} more to be marked by hand"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(record.set)}: {escape(record.student)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(record.set)}</h1>",
        f"<p>{escape(record.student)}: <strong>{total}</strong></p>",
        f"<p>{escape(_sentence(record))}</p>",
    ]
    for task in record.tasks:
        mark = "–" if task.mark is None else f"{task.mark:g}"
        parts.append(f'<h2><span class="mark">{mark} / {task.points:g}</span>{escape(task.title)}</h2>')
        if task.by_hand:
            kind, said = ("waits", "Marked by hand: not yet.") if task.mark is None else ("right", "Marked by hand.")
        else:
            kind, said = ("", task.said) if task.said else ("right", "The tests hold.")
        parts.append(f'<p class="said {kind}">{escape(said)}</p>')
        if remarks.get(task.name):
            parts.append(f"<p>{escape(remarks[task.name])}</p>")
        if record.answers.get(task.name):
            parts.append(
                f"<details><summary>Your answer</summary><pre>{escape(record.answers[task.name])}</pre></details>"
            )
    return "\n".join([*parts, "</body></html>", ""])


def _sentence(record: Record) -> str:
    return record.sentence[:1].upper() + record.sentence[1:].rstrip(".") + "."


def export(course: Course, path: Path) -> int:
    """Write the marks of all sets as CSV, a line for each submission; return how many lines there are."""
    found = records(course)
    if not found:
        raise CourseError(f"nothing is graded in {course.folder}: run `stepsize course grade NN` first")
    late = _late(course)
    columns = list(dict.fromkeys(f"{record.set}: {task.name}" for record in found for task in record.tasks))
    head = ["student", "set", "total", "max", "to mark by hand", "late", "sentence", "worth a look"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*head, *columns])
        for record in sorted(found, key=lambda record: (record.student, record.set)):
            marks = {f"{record.set}: {task.name}": task.mark for task in record.tasks}
            row = [
                _plain(record.student),
                record.set,
                f"{record.total:g}",
                f"{record.most:g}",
                f"{record.to_come:g}",
                late.get((record.student, record.set), ""),
                _plain(record.sentence),
                _plain(" ".join(record.unusual)),
            ]
            row += ["" if marks.get(column) is None else f"{marks[column]:g}" for column in columns]
            table.writerow(row)
    return len(found)


def _late(course: Course) -> dict[tuple[str, str], str]:
    """Whether each submission came after its set was due; without a date or a timestamp, nothing is said."""
    by_name = {safe(student): student for student in course.students()}
    found = {}
    with course.gradebook() as gradebook:
        for assignment in gradebook.assignments:
            for submission in assignment.submissions:
                if assignment.duedate and submission.timestamp:
                    who = by_name.get(submission.student.id, submission.student.id)
                    found[who, assignment.name] = "yes" if submission.total_seconds_late > 0 else "no"
    return found


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in tuple("=+-@\t\r") else text


def mistakes(found: Iterable[Record]) -> list[tuple[int, str, str]]:
    """How often each mistake was made: count, task, what its test said with the numbers left out; commonest first."""
    counts: Counter[tuple[str, str]] = Counter()
    for record in found:
        if record.sentence.startswith("Not graded"):
            counts["the whole submission", record.sentence.partition(": ")[2][:160]] += 1
            continue
        for task in record.tasks:
            if task.said:
                words = re.sub(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", "#", heart(task.said))
                counts[task.name, words[:200]] += 1
    return sorted(((count, *what) for what, count in counts.items()), key=lambda row: (-row[0], *row[1:]))


def export_mistakes(course: Course, path: Path) -> int:
    """Write how often each mistake was made in each set as CSV."""
    found = records(course)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["set", "task", "how often", "what the test said"])
        lines = 0
        for name in sorted({record.set for record in found}):
            for count, task, said in mistakes(record for record in found if record.set == name):
                table.writerow([name, task, count, _plain(said)])
                lines += 1
    return lines
