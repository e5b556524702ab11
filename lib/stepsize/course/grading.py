"""Mark submissions, several at once, each behind its own walls; nbgrader, alone at the gradebook, keeps the marks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import CourseError, sandbox, sets
from .folder import Course, Mark, Record, is_kept, load, record_path, safe, with_marks, write
from .sandbox import Cell, Limits, Outcome
from .sets import ExerciseSet, sentence
from .submissions import Assembled, assemble, nothing_of, read_submission

# Not forbidden, as all of them have honest uses; but rare in an answer.
UNUSUAL = (
    "RULES", "stepsize.rules", "stepsize.course", "STEPSIZE_", "_getframe", "inspect", "gc.", "ctypes", "_exit", "fork",
    "settrace", "builtins", "subprocess", "socket", "os.system", "signal", "atexit", "mmap", "sys.modules", "__code__",
)  # fmt: skip


def grade(
    name: str,
    folder: str | Path,
    *,
    workers: int = 2,
    seconds: float = 20.0,
    unsafe: bool = False,
    students: Sequence[str] | None = None,
    force: bool = False,
    tell: Callable[[int, int, Record], None] = lambda *_: None,
) -> list[Record]:
    """Grade what was handed in for the set ``name``; ``tell(done, all, record)`` is called as each is finished.

    What was graded before is not graded again unless its file or the set has changed, or ``force``. Returns a record
    for each submission, in order of the students.
    """
    course = Course(folder)
    with course.alone():
        one = course.released(name)
        everybody = [s for s in course.students() if course.at("submitted", s, name).is_dir()]
        if students:
            unknown = sorted(set(students) - set(everybody))
            if unknown:
                raise CourseError(f"{unknown[0]} has handed in nothing for {name} in {course.at('submitted')}")
            everybody = [student for student in everybody if student in students]
        if not everybody:
            raise CourseError(
                f"nothing was handed in for {name}: put notebooks into "
                f"{course.at('submitted')}/STUDENT/{name}/{name}.ipynb"
            )
        lack = None if unsafe else sandbox.lacking()
        if lack:
            raise CourseError(f"{lack}; or grade without walls, at your own risk, with --unsafe")
        return _grade_all(course, one, everybody, workers, Limits(seconds), unsafe, force, tell)


def _grade_all(
    course: Course,
    one: ExerciseSet,
    students: Sequence[str],
    workers: int,
    limits: Limits,
    unsafe: bool,
    force: bool,
    tell: Callable[[int, int, Record], None],
) -> list[Record]:
    others = [ExerciseSet(course.at("source", name)) for name in course.names()]
    with contextlib.suppress(CourseError):
        others += sets.all_sets()
    slots = sandbox.Slots(workers)
    stop = threading.Event()
    records: dict[str, Record] = {}
    waiting: dict[str, tuple[str, Assembled, str | None]] = {}

    def ready(student: str, key: str, assembled: Assembled, fatal: str | None) -> tuple[list[Outcome], float]:
        start = time.monotonic()
        if fatal:
            error = {"kind": "Ended", "text": fatal, "line": None, "cell": None}
            return [Outcome(error=error if cell.test else None) for cell in assembled.cells], 0.0
        with slots.one() as slot:
            outcomes = sandbox.run(
                assembled.cells,
                seed=sets.seed_of(assembled.answers),
                limits=limits,
                slot=slot,
                unsafe=unsafe,
                stop=stop,
            )
        return outcomes, time.monotonic() - start

    for student in students:
        key, assembled, fatal = _read(course, one, student, others)
        before = load(course, student, one.name)
        if before and before.key == key and not force and is_kept(course, student, one.name):
            records[student] = before
            tell(len(records), len(students), before)
        else:
            waiting[student] = (key, assembled, fatal)
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = {pool.submit(ready, student, *job): student for student, job in waiting.items()}
        for job in as_completed(jobs):
            student = jobs[job]
            key, assembled, fatal = waiting[student]
            outcomes, seconds = job.result()
            records[student] = _save(course, one, student, key, assembled, fatal, outcomes, seconds)
            tell(len(records), len(students), records[student])
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return [records[student] for student in students]


def _read(
    course: Course, one: ExerciseSet, student: str, others: Sequence[ExerciseSet]
) -> tuple[str, Assembled, str | None]:
    """What decides a submission's mark as a hash, the submission ready to run, and why it cannot be graded, if so."""
    content, fatal = b"", None
    try:
        content, notes = read_submission(course, student, one.name)
        assembled = assemble(one, content, others)
        assembled.notes[:0] = notes
    except (CourseError, OSError) as error:
        assembled, fatal = nothing_of(one), str(error)
    parts = [content, one.path.read_bytes(), (fatal or "").encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest(), assembled, fatal


def _save(
    course: Course,
    one: ExerciseSet,
    student: str,
    key: str,
    assembled: Assembled,
    fatal: str | None,
    outcomes: Sequence[Outcome],
    seconds: float,
) -> Record:
    """Let nbgrader mark what was run, and keep what was found out."""
    folder = course.at("assembled", safe(student), one.name)
    shutil.rmtree(folder, ignore_errors=True)
    write(folder / f"{one.name}.ipynb", json.dumps(_executed(assembled, outcomes)))
    stamp = course.at("submitted", student, one.name, "timestamp.txt")
    if stamp.is_file() and not stamp.is_symlink() and stamp.stat().st_size < 100:
        write(folder / "timestamp.txt", stamp.read_text("utf-8", "replace"))
    try:
        _mark(course, one, student)
    except CourseError:
        (folder / "timestamp.txt").unlink(missing_ok=True)
        assembled.notes.append("its timestamp.txt could not be read")
        _mark(course, one, student)
    said = {cell.name: outcome for cell, outcome in zip(assembled.cells, outcomes, strict=True)}
    tasks = [Mark(**vars(task)) for task in one.tasks]
    for task in tasks:
        if not task.by_hand:
            outcome = said[f"test-{task.name}"]
            task.said = sentence(outcome.error)
            broken = said.get(task.name)
            if task.said and broken and broken.error and task.name in assembled.answers:
                task.said = sentence(broken.error)
            elif task.said and task.name in one.skeleton and task.name not in assembled.answers and not fatal:
                task.said = "Not handed in: the cell of this answer is missing."
    unusual = [word for word in UNUSUAL if any(_unusual(word, cell, one) for cell in assembled.cells)]
    record = Record(student, one.name, key, "", tasks, assembled.notes, unusual, round(seconds, 2), assembled.answers)
    with_marks(course, [record])
    record.sentence = _summed_up(record, fatal)
    write(record_path(course, student, one.name), json.dumps(asdict(record), indent=1, ensure_ascii=False))
    return record


def _mark(course: Course, one: ExerciseSet, student: str) -> None:
    """nbgrader's autograde, without its running of cells: they have been run."""
    first, then = (
        [f"nbgrader.preprocessors.{kind}" for kind in kinds]
        for kinds in (
            ("OverwriteKernelspec", "OverwriteCells", "CheckCellMetadata"),
            ("SaveAutoGrades", "AssignLatePenalties"),
        )
    )
    course.convert("Autograde", one.name, safe(student), sanitize_preprocessors=first, autograde_preprocessors=then)


def _unusual(word: str, cell: Cell, one: ExerciseSet) -> bool:
    """Whether a cell of the student's has a word that the reference answer of that task does without."""
    expected = one.solutions.get(cell.name, "") + one.skeleton.get(cell.name, "")
    return not cell.given and not cell.test and word in cell.source and word not in expected


def _executed(assembled: Assembled, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The notebook as it would be after running it: what a test printed is left out, for nbgrader marks by it."""
    from nbformat import v4

    notebook = json.loads(json.dumps(assembled.notebook))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell, ran, outcome in zip(code, assembled.cells, outcomes, strict=True):
        cell["outputs"] = []
        for output in [] if ran.test else outcome.outputs:
            if "text" in output:
                cell["outputs"].append(v4.new_output("stream", name="stdout", text=output["text"]))
            else:
                cell["outputs"].append(v4.new_output("display_data", data=output["data"]))
        if outcome.error:
            error, text = outcome.error, sentence(outcome.error) or ""
            cell["outputs"].append(v4.new_output("error", ename=error["kind"], evalue=text, traceback=[text]))
    return dict(notebook)


def _summed_up(record: Record, fatal: str | None) -> str:
    """One sentence on a submission."""
    if fatal:
        return f"Not graded: {fatal}."
    tested = [task for task in record.tasks if not task.by_hand]
    failed = [task for task in tested if task.said]
    if not failed:
        start = "every test holds"
    else:
        text = sets.heart(str(failed[0].said))
        start = (
            f"{len(tested) - len(failed)} of {len(tested)} tests hold; to mend first, {failed[0].name}: {text[:300]}"
        )
    return "; ".join([start, *record.notes])
