"""Read what was handed in, and put it together with the set: answers from the student, all else from the set."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import CourseError, sets
from .folder import Course
from .sandbox import Cell
from .sets import ExerciseSet, marks

MOST_BYTES = 200 * 2**20
MOST_SOURCE = 2**20
MOST_CELLS = 500


@dataclass(frozen=True)
class Assembled:
    """A submission put together for grading: the set's own cells and tests, the student's answers and other cells."""

    answers: dict[str, str]
    cells: list[Cell]
    notebook: dict[str, Any]
    notes: list[str]


def read_submission(course: Course, student: str, name: str) -> tuple[bytes, list[str]]:
    """The bytes of what was handed in, and notes on it; CourseError with the sentence if there is nothing to read."""
    folder = course.at("submitted", student, name)
    path, notes = folder / f"{name}.ipynb", []
    if not path.exists() and not path.is_symlink():
        others = sorted(other for other in folder.glob("*.ipynb") if not other.name.startswith("."))
        if len(others) != 1:
            raise CourseError(f"the notebook {path.name} is missing")
        path = others[0]
        notes.append(f"the notebook was named {path.name}")
    # Neither a link to another's notebook, nor a pipe that never ends.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CourseError("what was handed in is not a file of its own")
    if path.stat().st_size > MOST_BYTES:
        raise CourseError(f"the notebook is larger than {MOST_BYTES // 2**20} MB: clear its outputs before handing in")
    return path.read_bytes(), notes


def assemble(one: ExerciseSet, content: bytes, others: Sequence[ExerciseSet] = ()) -> Assembled:
    """Put the student's answers into the set: what the set gives and asks comes from the set, never from the student.

    CourseError with a sentence if nothing in ``content`` can be graded.
    """
    try:
        theirs = sets.read(content.decode("utf-8"))
    except RecursionError as error:
        raise CourseError("the notebook cannot be read: it is nested too deeply") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise CourseError(f"the notebook cannot be read: {error}") from error
    if len(theirs["cells"]) > MOST_CELLS or sum(len(c["source"]) for c in theirs["cells"]) > MOST_SOURCE:
        raise CourseError(f"the notebook has more than {MOST_CELLS} cells or a million characters of source")
    skeleton, notes = one.skeleton, []
    known = {marks(cell)["grade_id"]: cell for cell in one.cells if marks(cell)}
    given = {cell.get("id") for cell in one.cells if not marks(cell)} | {"install"}
    texts = {cell["source"].strip() for cell in one.cells if not marks(cell)}
    answers: dict[str, str] = {}
    extra: dict[str, list[str]] = {}
    anchor = ""
    edited, twice, unplaced = [], [], []
    for cell in theirs["cells"]:
        name = marks(cell).get("grade_id")
        source = cell["source"]
        if isinstance(name, str) and name in skeleton:
            if name in answers and source.strip() != skeleton[name].strip():
                twice.append(name)
            if name not in answers or source.strip() != skeleton[name].strip():
                answers[name] = source
            anchor = name
        elif isinstance(name, str) and name in known:
            if source.strip() != sets.without_hidden(known[name]["source"]).strip():
                edited.append(name.removeprefix("test-"))
            anchor = name
        elif cell.get("id") in given or source.strip() in texts:
            continue
        elif cell["cell_type"] == "code" and source.strip():
            unplaced.append((anchor, source))
    for anchor, source in unplaced:
        # A cell that has lost its marks is known by what it defines.
        name = next((n for n in skeleton if n not in answers and _defines(source, skeleton[n])), None)
        if name:
            answers[name] = source
            notes.append(f"the cell of {name} had lost its marks and was found by its name")
        else:
            extra.setdefault(anchor, []).append(source)
    ids = {str(marks(cell).get("grade_id")) for cell in theirs["cells"]}
    fits = {other.name: len(ids & {marks(cell).get("grade_id") for cell in other.cells}) for other in [*others, one]}
    best = max(fits, key=lambda name: (fits[name], name == one.name))
    if best != one.name:
        raise CourseError(f"this is the notebook of {best}, not of {one.name}")
    if not answers:
        raise CourseError(f"none of the answer cells of {one.name} is in the notebook")
    missing = [name for name in skeleton if name not in answers]
    if missing:
        notes.append(f"missing: the cell of {_listed(missing)}")
    if twice:
        notes.append(f"there twice, of which the last counts: the cell of {_listed(twice)}")
    if edited:
        notes.append(f"edited tests do not count: {_listed(edited)}")
    return _put_together(one, answers, extra, notes)


def nothing_of(one: ExerciseSet) -> Assembled:
    """What is graded when there is nothing to grade: the set with empty answers."""
    return _put_together(one, {}, {}, [])


def _put_together(
    one: ExerciseSet, answers: dict[str, str], extra: Mapping[str, Sequence[str]], notes: list[str]
) -> Assembled:
    notebook = json.loads(json.dumps(one.notebook))
    cells: list[Cell] = []
    built: list[dict[str, Any]] = []
    count = 0

    def add_extra(anchor: str) -> None:
        nonlocal count
        for source in extra.get(anchor, ()):
            count += 1
            cells.append(Cell(f"cell {count} of yours", source))
            cell = {"cell_type": "code", "id": f"yours-{count}", "metadata": {}, "source": source}
            built.append(cell | {"outputs": [], "execution_count": None})

    ran = {cell.name: cell for cell in one.to_run({name: answers.get(name, "") for name in one.skeleton})}
    add_before = extra.get("", ())
    for index, cell in enumerate(notebook["cells"]):
        name = marks(cell).get("grade_id", cell.get("id", "given"))
        if marks(cell) and add_before and index:
            add_extra("")
            add_before = ()
        if marks(cell).get("solution"):
            cell["source"] = answers.get(name, sets.without_answer(cell))
        built.append(cell)
        if cell["cell_type"] == "code":
            cells.append(ran[name])
        if marks(cell):
            add_extra(name)
    notebook["cells"] = built
    return Assembled(answers, cells, notebook, notes)


def _defines(source: str, skeleton: str) -> bool:
    """Whether a cell defines what the answer cell of that text would."""
    found = re.search(r"^(?:(def|class)\s+(\w+)|(\w+)\s*=)", skeleton, re.MULTILINE)
    if not found:
        return False
    pattern = rf"^{found[1]}\s+{found[2]}\b" if found[1] else rf"^{found[3]}\s*="
    return bool(re.search(pattern, source, re.MULTILINE))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
