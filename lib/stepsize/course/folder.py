"""The folder of a course: sets released, what was handed in, nbgrader's gradebook, and what grading found out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import CourseError, sets
from .sets import ExerciseSet

CONFIG = """# This folder is a course of nbgrader, kept by `stepsize course`. Use its formgrader to mark by hand.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "stepsize"
c.CourseDirectory.submitted_directory = "assembled"
# nbgrader's own autograde would run students' code without walls: `stepsize course grade` runs it behind them.
c.Autograde.sanitize_preprocessors = ["stepsize.course.folder.OnlyBehindWalls"]
"""


@dataclass
class Mark:
    """The mark of one task: None while it waits to be marked by hand. ``said`` is what its test said, if it failed."""

    name: str
    title: str
    points: float
    by_hand: bool
    mark: float | None = None
    said: str | None = None


@dataclass
class Record:
    """All that grading found out about one submission."""

    student: str
    set: str
    key: str
    sentence: str
    tasks: list[Mark]
    notes: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    seconds: float = 0.0
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(task.mark or 0.0 for task in self.tasks)

    @property
    def most(self) -> float:
        return sum(task.points for task in self.tasks)

    @property
    def to_come(self) -> float:
        return sum(task.points for task in self.tasks if task.mark is None)


class Course:
    """A folder with the sets released, what was handed in, and the gradebook."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()

    def at(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def released(self, name: str) -> ExerciseSet:
        """The set as it was released, whatever has become of it since."""
        found = ExerciseSet(self.at("source", name))
        if not found.path.exists():
            raise CourseError(
                f"{name} is not released in {self.folder}: run `stepsize course release {name[:2]}` first"
            )
        return found

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.at("source").glob("*/*.ipynb"))

    def students(self) -> list[str]:
        """Everybody with a folder of their own."""
        folder = self.at("submitted")
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other command writes here: a gradebook has one writer."""
        if not self.folder.is_dir():
            raise CourseError(
                f"there is no course in {self.folder}: `stepsize course release NN --course DIR` makes one"
            )
        with open(self.at(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CourseError(f"another `stepsize course` is at work in {self.folder}: wait for it") from error
            yield

    # --- nbgrader ---------------------------------------------------------------------------------------------------

    def gradebook(self) -> Any:
        from nbgrader.api import Gradebook

        # nbgrader looks for alembic's command, which is beside Python, and perhaps not on the path.
        here = os.path.dirname(sys.executable)
        if here not in os.environ.get("PATH", "").split(os.pathsep):
            os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
        return Gradebook(f"sqlite:///{self.at('gradebook.db')}", "stepsize")

    def convert(self, name: str, assignment: str, student: str = "*", **options: Any) -> None:
        """Run one of nbgrader's converters here, by its class name; what it complains of becomes an error."""
        from nbgrader import converters
        from nbgrader.coursedir import CourseDirectory
        from traitlets.config import Config

        settings = Config()
        settings.CourseDirectory.root = str(self.folder)
        settings.CourseDirectory.db_url = f"sqlite:///{self.at('gradebook.db')}"
        settings.CourseDirectory.course_id = "stepsize"
        settings.CourseDirectory.submitted_directory = "assembled"
        settings.CourseDirectory.assignment_id = assignment
        settings.CourseDirectory.student_id = student
        settings.ClearSolutions.code_stub = {"python": sets.STUB}
        settings.ClearSolutions.text_stub = sets.TEXT_STUB
        settings.ClearSolutions.begin_solution_delimeter = "### BEGIN SOLUTION"
        settings.ClearSolutions.end_solution_delimeter = "### END SOLUTION"
        settings[name].update(Config(options | {"force": True}))
        log = logging.Logger("nbgrader")
        complaints: list[str] = []
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
        log.addHandler(handler)
        directory = CourseDirectory(config=settings)
        directory.log = log
        converter = getattr(converters, name)(coursedir=directory, config=settings)
        converter.log = log
        try:
            with warnings.catch_warnings():
                # SQLAlchemy 2 on nbgrader's own code: harmless, and three lines for each submission.
                warnings.simplefilter("ignore")
                converter.start()
        except (converters.base.NbGraderException, SystemExit, RuntimeError, OSError) as error:
            text = "; ".join(complaints) or str(error)
            raise CourseError(f"nbgrader could not do {name} of {assignment}: {text[-1000:]}") from error


def load(course: Course, student: str, name: str) -> Record | None:
    """What an earlier grading found, or None."""
    try:
        stored = json.loads(record_path(course, student, name).read_text("utf-8"))
        return Record(**(stored | {"tasks": [Mark(**task) for task in stored["tasks"]]}))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def records(course: Course, name: str | None = None) -> list[Record]:
    """All that was graded in the course, of one set or of all, with the marks as they are now."""
    found = []
    for path in sorted(course.at("records").glob("*/*.json")):
        if name in (None, path.parent.name):
            record = load(course, path.stem, path.parent.name)
            if record:
                found.append(record)
    with_marks(course, found)
    return found


def record_path(course: Course, student: str, name: str) -> Path:
    return course.at("records", name, f"{student}.json")


def is_kept(course: Course, student: str, name: str) -> bool:
    from nbgrader.api import MissingEntry

    if not course.at("autograded", safe(student), name, f"{name}.ipynb").exists():
        return False
    with course.gradebook() as gradebook:
        try:
            return bool(gradebook.find_submission_notebook(name, name, safe(student)))
        except MissingEntry:
            return False


def with_marks(course: Course, records: Sequence[Record]) -> None:
    """Bring the marks of ``records`` up to date with the gradebook, where a teacher may have marked by hand."""
    from nbgrader.api import MissingEntry

    with course.gradebook() as gradebook:
        for record in records:
            try:
                known = gradebook.find_submission_notebook(record.set, record.set, safe(record.student))
            except MissingEntry:
                continue
            found = {grade.name.removeprefix("test-"): grade for grade in known.grades}
            for task in record.tasks:
                grade = found.get(task.name)
                if grade is None:
                    continue
                waits = grade.manual_score is None and (
                    grade.auto_score is None or (task.by_hand and grade.needs_manual_grade)
                )
                task.mark = None if waits else float(grade.score)


def safe(student: str) -> str:
    """The name under which nbgrader knows a student: its patterns give some characters a meaning."""
    return re.sub(r"[^\w.@-]", lambda found: f"_{ord(found[0]):x}_", student)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(path)


def __getattr__(name: str) -> Any:
    if name != "OnlyBehindWalls":
        raise AttributeError(name)
    from nbgrader.preprocessors import NbGraderPreprocessor

    class OnlyBehindWalls(NbGraderPreprocessor):
        """Stands in nbgrader's own autograde, so that it never runs a submission."""

        def preprocess(self, nb: Any, resources: Any) -> Any:
            raise RuntimeError(
                "run `stepsize course grade`: nbgrader's own autograde would run submissions without walls"
            )

    return OnlyBehindWalls
