"""The words of ``stepsize course``: what it takes, and what it prints."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import CourseError

EXAMPLES = """
examples:
  stepsize course release 05 --course spring
      the students' copy of set 05, as a notebook and as a zip, in spring/release
  stepsize course grade 05 --course spring
      grades spring/submitted/STUDENT/05-adam/05-adam.ipynb, for every STUDENT, each behind its own walls
  stepsize course feedback 05 --course spring
      a page for each student, in spring/feedback
  stepsize course export --course spring -o grades.csv

What is graded is not graded again unless its file changes: after a crash or Ctrl-C the same command goes on.
"""
ACTIONS = ("release", "grade", "feedback", "export")


def add_parser(commands: Any) -> None:
    """Add ``course`` and what follows it to the parsers of the command line."""
    course = commands.add_parser(
        "course",
        help="hand out sets of exercises, grade them and explain the marks",
        description="Keep a course: hand out sets, grade what comes back, write feedback and marks.",
        epilog=EXAMPLES,
    )
    actions = course.add_subparsers(
        title="what to do", metavar="{" + ",".join(ACTIONS) + "}", required=True, parser_class=type(course)
    )

    def action(name: str, run: Callable[[argparse.Namespace], int], words: str) -> Any:
        parser = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".", epilog=EXAMPLES)
        parser.add_argument(
            "--course", metavar="DIR", default="course", help="the folder of the course (default course)"
        )
        parser.set_defaults(command=run)
        return parser

    release = action("release", _release, "make the students' copy of a set")
    release.add_argument("set", metavar="NN", help="such as 05 or 05-adam")
    release.add_argument(
        "--due", metavar="DATE", help="what comes later is marked late, such as 2027-03-01T18:00+01:00"
    )
    release.add_argument("--sets", metavar="DIR", help="where the sets are (default: exercises/ of the repository)")
    grade = action("grade", _grade, "grade all that was handed in for a set")
    grade.add_argument("set", metavar="NN", help="such as 05 or 05-adam")
    grade.add_argument("--workers", metavar="N", help="submissions at once (default: one a core)")
    grade.add_argument("--timeout", metavar="SECONDS", default="20", help="processor time of each cell (default 20)")
    grade.add_argument("--student", metavar="NAME", action="append", help="only this one; may be given again")
    grade.add_argument("--force", action="store_true", help="grade again what is graded")
    grade.add_argument("--unsafe", action="store_true", help="run submissions without walls, with all your rights")
    feedback = action("feedback", _feedback, "write a page for each graded submission of a set")
    feedback.add_argument("set", metavar="NN", help="such as 05 or 05-adam")
    feedback.add_argument("--student", metavar="NAME", action="append", help="only this one; may be given again")
    export = action("export", _export, "write the marks of all sets as a table")
    export.add_argument("-o", "--output", metavar="FILE", default="grades.csv", help="default grades.csv")
    export.add_argument("--mistakes", metavar="FILE", help="also write how often each mistake was made")


def _ready() -> None:
    missing = [name for name in ("nbgrader", "nbformat", "IPython") if find_spec(name) is None]
    if missing:
        raise CourseError(f"{', '.join(missing)} is not installed: pip install 'stepsize[classroom]'")


def _release(given: argparse.Namespace) -> int:
    from . import sets
    from .release import release

    _ready()
    one = sets.find(given.set, Path(given.sets) if given.sets else None)
    due = None
    if given.due:
        try:
            due = datetime.fromisoformat(given.due).isoformat()
        except ValueError as error:
            raise CourseError(f"--due must be a date such as 2027-03-01T18:00, got {given.due!r}") from error
    copy = release(one, given.course, due)
    print(f"{one.name}: {len(one.tasks)} tasks, {sum(task.points for task in one.tasks):g} points")
    print(f"for the students: {copy}\n             and {copy.parent.with_suffix('.zip')}")
    print(f"put what they hand in into {copy.parents[2] / 'submitted' / 'STUDENT' / one.name / copy.name}")
    return 0


def _grade(given: argparse.Namespace) -> int:
    from .feedback import mistakes
    from .folder import Course, Record
    from .grading import grade

    _ready()
    course = Course(given.course)
    name = _released_name(course, given.set)
    workers = _number("--workers", given.workers, int, 1, 64) if given.workers else os.cpu_count() or 1
    seconds = _number("--timeout", given.timeout, float, 0.5, 3600)
    width = max(map(len, course.students()), default=1)

    def tell(done: int, many: int, record: Record) -> None:
        marks = f"{record.total:g}/{record.most:g}" + (f" (+{record.to_come:g} by hand)" if record.to_come else "")
        line = f"[{done:>{len(str(many))}}/{many}] {record.student:<{width}}  {marks:<18} {record.seconds:5.1f} s  "
        print(line + record.sentence[:160], flush=True)

    start = time.monotonic()
    found = grade(
        name,
        given.course,
        workers=int(workers),
        seconds=seconds,
        unsafe=given.unsafe,
        students=given.student,
        force=given.force,
        tell=tell,
    )
    mean = sum(record.total for record in found) / len(found)
    took = time.monotonic() - start
    print(f"\n{name}: {len(found)} graded in {took:.0f} s; mean {mean:.2f} of {found[0].most:g} points")
    counts = mistakes(found)
    if counts:
        print("what went wrong, and how often:")
        for count, task, said in counts[:12]:
            print(f"{count:>4} x {task}: {said}")
        if len(counts) > 12:
            print(f"     and {len(counts) - 12} more: `stepsize course export --mistakes FILE` writes them all")
    if any(record.to_come for record in found):
        print("some tasks wait to be marked by hand: see the page “For teachers”")
    unusual = [f"{record.student} ({', '.join(record.unusual)})" for record in found if record.unusual]
    if unusual:
        print(f"answers that use what answers rarely need, worth a look: {'; '.join(unusual)}")
    return 0


def _feedback(given: argparse.Namespace) -> int:
    from .feedback import feedback
    from .folder import Course

    _ready()
    course = Course(given.course)
    name = _released_name(course, given.set)
    with course.alone():
        pages = feedback(course, name, given.student)
    print(f"{len(pages)} pages in {course.at('feedback')}, such as {pages[0]}")
    return 0


def _export(given: argparse.Namespace) -> int:
    from .feedback import export, export_mistakes
    from .folder import Course

    _ready()
    course = Course(given.course)
    with course.alone():
        for path in filter(None, [given.output, given.mistakes]):
            if not Path(path).resolve().parent.is_dir():
                raise CourseError(f"there is no folder {Path(path).resolve().parent} to write {Path(path).name} into")
        lines = export(course, Path(given.output))
        print(f"{lines} submissions in {given.output}")
        if given.mistakes:
            print(f"{export_mistakes(course, Path(given.mistakes))} mistakes in {given.mistakes}")
    return 0


def _released_name(course: Any, text: str) -> str:
    """The name of a set that is released in this course."""
    from . import sets

    if not course.folder.is_dir():
        raise CourseError(f"there is no course in {course.folder}: `stepsize course release NN --course DIR` makes one")
    return sets.find(text, course.at("source"), f"released in {course.folder}").name


def _number(option: str, text: str, kind: type, least: float, most: float) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise CourseError(f"{option} must be a number from {least:g} to {most:g}, got {text!r}")
    return float(value)
