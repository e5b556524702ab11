"""Hand a set out: put it into a course, and make the students' copy, without answers and hidden tests."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from . import CourseError, sets
from .folder import CONFIG, Course, write
from .sets import ExerciseSet, marks

INSTALL = (
    "*To run this notebook:* on your machine, set the course up as its page “How to use this book” says. In Colab, "
    "first run `%pip install git+https://github.com/stepsize-course/stepsize` in a cell of its own."
)


def release(one: ExerciseSet, folder: str | Path, due: str | None = None) -> Path:
    """Put a set into the course in ``folder``, and make the students' copy and its zip; return the copy's path."""
    course = Course(folder)
    course.folder.mkdir(parents=True, exist_ok=True)
    with course.alone():
        config = course.at("nbgrader_config.py")
        if not config.exists():
            config.write_text(CONFIG, "utf-8")
        _refuse_other_tasks(course, one)
        notebook = json.loads(json.dumps(one.notebook))
        if not any("pip install" in cell["source"] for cell in notebook["cells"]):
            notebook["cells"].insert(1, {"cell_type": "markdown", "id": "install", "metadata": {}, "source": INSTALL})
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
        source = course.at("source", one.name, f"{one.name}.ipynb")
        write(source, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        with course.gradebook() as gradebook:
            gradebook.update_or_create_assignment(one.name, **({"duedate": due} if due else {}))
        course.convert("GenerateAssignment", one.name)
        copy = course.at("release", one.name, f"{one.name}.ipynb")
        leaked = sets.secret_lines(one) & {
            line.strip() for c in sets.read(copy.read_text("utf-8"))["cells"] for line in c["source"].splitlines()
        }
        if leaked:
            shutil.rmtree(copy.parent)
            raise CourseError(f"the students' copy would hold an answer or a hidden test: {sorted(leaked)[0]!r}")
        packed = course.at("release", f"{one.name}.zip")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            # A fixed date: the same set makes the same file.
            archive.writestr(zipfile.ZipInfo(f"{one.name}/{copy.name}"), copy.read_bytes())
        course.at("submitted").mkdir(exist_ok=True)
    return copy


def _refuse_other_tasks(course: Course, one: ExerciseSet) -> None:
    """Marks already given belong to tasks by name: those of a set that was handed in must stay."""
    if not course.at("gradebook.db").exists():
        return
    from nbgrader.api import MissingEntry

    with course.gradebook() as gradebook:
        try:
            known = gradebook.find_notebook(one.name, one.name)
        except MissingEntry:
            return
        before = {cell.name for cell in known.source_cells}
        count = len(known.submissions)
    now = {marks(c)["grade_id"] for c in one.cells if marks(c)}
    if count and before != now:
        raise CourseError(
            f"{one.name} has other tasks than the {count} submissions graded in {course.folder}: release it to a new "
            "folder with --course"
        )
