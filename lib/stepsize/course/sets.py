"""The sets of exercises: where they are, what is asked in them, and whether each judges right from wrong."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import CourseError
from .sandbox import Cell

STUB = 'raise NotImplementedError("write your answer here, and delete this line")'
TEXT_STUB = "*Write your answer here, and delete this line.*"
SECONDS = 10.0


@dataclass(frozen=True)
class Task:
    """One task: its name, its title, its points, and whether it is marked by hand."""

    name: str
    title: str
    points: float
    by_hand: bool


@dataclass(frozen=True)
class WrongAnswer:
    """A wrong answer for one task, and the text that its test must say; None if it need only fail."""

    task: str
    mistake: str
    named: str | None
    text: str


@dataclass(frozen=True)
class ExerciseSet:
    """The folder of one set, ``NN-name``, with its notebook ``NN-name.ipynb``."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.ipynb"

    @cached_property
    def notebook(self) -> dict[str, Any]:
        return read(self.path.read_text("utf-8"))

    @property
    def cells(self) -> list[dict[str, Any]]:
        return list(self.notebook["cells"])

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks in order; the title of one is the last heading before its answer."""
        found, title, by_hand = [], self.name, {}
        titles: dict[str, str] = {}
        for cell in self.cells:
            mark = marks(cell)
            headings = re.findall(r"^#+ (.*)$", cell["source"], re.MULTILINE) if cell["cell_type"] == "markdown" else []
            if mark.get("solution"):
                titles[mark["grade_id"]] = title
            elif headings:
                title = re.sub(r"\s*\(.*", "", headings[-1])
            if mark.get("grade"):
                name = mark["grade_id"].removeprefix("test-")
                by_hand[name] = bool(mark.get("solution"))
                found.append(Task(name, titles.get(name, title), float(mark["points"]), by_hand[name]))
        return found

    @property
    def solutions(self) -> dict[str, str]:
        """The reference answer of every cell that is to be answered, by name."""
        return {marks(c)["grade_id"]: unmarked(c["source"]) for c in self.cells if marks(c).get("solution")}

    @property
    def skeleton(self) -> dict[str, str]:
        """What students find in those cells."""
        return {marks(c)["grade_id"]: without_answer(c) for c in self.cells if marks(c).get("solution")}

    @property
    def wrong_answers(self) -> list[WrongAnswer]:
        found = []
        for path in sorted((self.folder / "submissions").glob("*/*.py")):
            text = path.read_text("utf-8")
            first = text.partition("\n")[0]
            match = re.fullmatch(r"# (?:named: (.+)|fails)", first.strip())
            if not match:
                raise CourseError(f"{path} must begin with `# named: …` or `# fails`, not with {first!r}")
            if path.parent.name not in self.solutions:
                raise CourseError(f"{path} answers no task of {self.name}: there are {', '.join(self.solutions)}")
            found.append(WrongAnswer(path.parent.name, path.stem, match[1], text))
        return found

    def to_run(self, answers: Mapping[str, str], tests: Sequence[str] | None = None) -> list[Cell]:
        """The set's cells with ``answers`` put in, as they are graded; of its tests, all or those of some tasks."""
        cells = []
        for cell in self.cells:
            if cell["cell_type"] != "code":
                continue
            name = marks(cell).get("grade_id", cell.get("id", "given"))
            if marks(cell).get("solution"):
                cells.append(Cell(name, answers.get(name, "")))
            elif marks(cell).get("grade"):
                if tests is None or name.removeprefix("test-") in tests:
                    cells.append(Cell(name, cell["source"], test=True))
            else:
                cells.append(Cell(name, cell["source"], given=True))
        return cells

    def submission(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """A whole notebook as a student hands it in, with these ``answers``; the others are left as released."""
        released = json.loads(json.dumps(self.notebook))
        for cell in released["cells"]:
            mark = marks(cell)
            if mark.get("solution"):
                cell["source"] = answers.get(mark["grade_id"], without_answer(cell))
            elif mark.get("grade"):
                cell["source"] = without_hidden(cell["source"])
        return dict(released)


def default_folder() -> Path:
    """Where the sets of this repository are."""
    return Path(__file__).parents[3] / "exercises"


def all_sets(folder: Path | None = None) -> list[ExerciseSet]:
    """Every set in ``folder``, in order."""
    folder = folder or default_folder()
    found = [
        ExerciseSet(path) for path in sorted(folder.glob("[0-9][0-9]-*")) if (path / f"{path.name}.ipynb").exists()
    ]
    if not found:
        raise CourseError(f"there are no sets in {folder}: they come with the repository, not with the package")
    return found


def find(text: str, folder: Path | None = None, where: str | None = None) -> ExerciseSet:
    """The set of that number or name, such as ``01`` or ``01-sgd``; ``where`` says in an error where it is missing."""
    try:
        there = {found.name: found for found in all_sets(folder)}
    except CourseError:
        if where is None:
            raise
        raise CourseError(f"no set is {where}: run `stepsize course release NN` first") from None
    for name, found in there.items():
        number, _, rest = name.partition("-")
        if text in (name, rest) or (text.isdigit() and int(text) == int(number)):
            return found
    near = difflib.get_close_matches(text, there, n=1, cutoff=0.5)
    end = f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}"
    raise CourseError(f"no set {text!r} is {where}: {end}" if where else f"there is no set {text!r}: {end}")


def read(text: str) -> dict[str, Any]:
    """A notebook whose cells hold their source as one string; ValueError if it is none."""
    notebook = json.loads(text)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("it is not a notebook of version 4")
    for cell in notebook["cells"]:
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            raise ValueError("it has a cell of no known kind")
        source = cell.get("source", "")
        cell["source"] = "".join(map(str, source)) if isinstance(source, list) else str(source)
        if not isinstance(cell.get("metadata"), dict):
            cell["metadata"] = {}
    return notebook


def marks(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What nbgrader knows of a cell; empty if nothing."""
    found = cell["metadata"].get("nbgrader")
    return found if isinstance(found, dict) else {}


def unmarked(source: str) -> str:
    """A reference answer without the two lines around it."""
    return "".join(
        line for line in source.splitlines(True) if "### BEGIN" not in line and "### END" not in line
    ).rstrip()


def without_answer(cell: Mapping[str, Any]) -> str:
    """The cell as students get it: the stub in place of the answer."""
    stub = STUB if cell["cell_type"] == "code" else TEXT_STUB
    return re.sub(
        r"^([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION[^\n]*$",
        lambda found: found[1] + stub,
        cell["source"],
        flags=re.MULTILINE | re.DOTALL,
    )


def without_hidden(source: str) -> str:
    """A test as students get it."""
    return re.sub(
        r"^[ \t]*### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS[^\n]*\n?", "", source, flags=re.M | re.S
    ).rstrip()


def secret_lines(one: ExerciseSet) -> set[str]:
    """Every line that no student may get: those of answers and of hidden tests that do not also stand in the open."""
    secret: set[str] = set()
    for cell in one.cells:
        for kind in ("SOLUTION", "HIDDEN TESTS"):
            for part in re.findall(rf"### BEGIN {kind}[^\n]*\n(.*?)### END {kind}", cell["source"], re.DOTALL):
                secret |= {line.strip() for line in part.splitlines()}
    released = one.submission({})
    shown = {line.strip() for cell in released["cells"] for line in cell["source"].splitlines()}
    # A line as short as `else:` gives nothing away, and stands everywhere.
    return {line for line in secret - shown if len(line) > 12}


# --- does the set judge right from wrong? ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What a set's tests said of one submission: the error's text of each failed task, None for each passed one."""

    what: str
    said: dict[str, str | None]


def judge(one: ExerciseSet) -> list[Judgement]:
    """Run the reference, the skeleton and every wrong answer through the set's tests, in one process without walls."""
    plan: list[tuple[str, dict[str, str], list[str] | None]]
    plan = [("reference", one.solutions, None), ("skeleton", one.skeleton, None)]
    for wrong in one.wrong_answers:
        plan.append((f"{wrong.task}/{wrong.mistake}", one.solutions | {wrong.task: wrong.text}, [wrong.task]))
    jobs = [
        {
            "what": what,
            "seed": seed_of(answers),
            "cells": [vars(cell) for cell in one.to_run(answers, tests)],
        }
        for what, answers, tests in plan
    ]
    program = "from stepsize.course.sets import _serve; _serve()"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise CourseError(f"the set {one.name} could not be judged: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return [Judgement(row["what"], row["said"]) for row in json.loads(done.stdout)]


def seed_of(answers: Mapping[str, str]) -> int:
    """A number that depends only on what was answered: the same submission meets the same gradients."""
    return zlib.crc32(json.dumps(dict(sorted(answers.items()))).encode())


def _serve() -> None:
    """In the process of :func:`judge`: read the jobs, and run each in a fork."""
    from . import runner

    jobs = json.loads(sys.stdin.read())
    originals = runner.preload()
    session = runner.Session(originals, SECONDS, 0)
    # What the set gives before its first answer is the same for all: imports, mostly.
    shared = list(itertools.takewhile(lambda cell: cell["given"], jobs[0]["cells"]))
    for cell in shared:
        session.cell(cell["source"], cell["name"], given=True)
    for job in jobs:
        del job["cells"][: len(shared)]
    print(json.dumps([{"what": job["what"], "said": dict(_forked(session, job))} for job in jobs]))


def _forked(session: Any, job: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        session.start(job["seed"])
        with os.fdopen(write_end, "w") as out:
            for cell in job["cells"]:
                if cell["test"]:
                    out.write(json.dumps([cell["name"], session.test(cell["source"], cell["name"])]) + "\n")
                    out.flush()
                else:
                    session.cell(cell["source"], cell["name"], cell["given"])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as inbox:
        replies = [json.loads(line) for line in inbox]
    os.waitpid(pid, 0)
    told = {name: reply["error"] for name, reply in replies}
    for cell in job["cells"]:
        if cell["test"]:
            error = told.get(cell["name"], {"kind": "Ended", "text": "not run", "line": None, "cell": None})
            yield cell["name"].removeprefix("test-"), sentence(error)


def sentence(error: Mapping[str, Any] | None) -> str | None:
    """An error as a student reads it; None for none."""
    if error is None:
        return None
    kind, text = error["kind"], str(error["text"]).strip()
    if kind in ("AssertionError", "Ended", "Late"):
        return text or "a test of this task failed, and says no more"
    if kind == "NotImplementedError":
        return f"Not begun: {text}" if text else "Not begun."
    where = f" in line {error['line']} of `{error['cell']}`" if error.get("line") and error.get("cell") else ""
    return f"{kind}{where}: {text}" if text else f"{kind}{where}"


def heart(said: str) -> str:
    """What matters of a test's words, on one line: the mistake it names and where to look, else its first line."""
    lines = [" ".join(line.split()) for line in said.split("\n") if line.strip()]
    for index, line in enumerate(lines):
        if line.startswith("This is the path of"):
            return " ".join(lines[index : index + 2]).removeprefix("This is the path of ")
    return lines[0] if lines else said
