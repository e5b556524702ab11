"""The sets of exercises as students meet them: in one form, no cell too long, right for every draw, and linked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import clean_notebooks
import nbformat
import pytest
from stepsize.course import sets
from stepsize.rules import RULES

ROOT = Path(__file__).parents[1]
SETS = sets.all_sets()
every_set = pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)

HEADING = re.compile(
    r"## (?P<n>\d+)\. .+ \((?P<points>\d+) points?, (?:marked by hand, )?(?P<minutes>\d+) minutes(?:, about .+)?\)"
)
# As the checker names a mistake: one, a pair, what a library does, or another rule.
NAMED = re.compile(r"(?:well-known mistake|mistakes at once|This is how|What you wrote is):? ([\w-]+(?: \+ [\w-]+)?)")


def _sections(one: sets.ExerciseSet) -> list[tuple[re.Match[str], list[dict]]]:
    """Each task's heading, with its cells."""
    found: list[tuple[re.Match[str], list[dict]]] = []
    for cell in one.cells:
        first = cell["source"].partition("\n")[0]
        if cell["cell_type"] == "markdown" and first.startswith("## "):
            heading = HEADING.fullmatch(first)
            assert heading, f"{one.name}: {first!r} does not say points and minutes"
            found.append((heading, []))
        if found:
            found[-1][1].append(cell)
    return found


@every_set
def test_a_set_opens_with_what_it_teaches_and_how_long_it_takes(one: sets.ExerciseSet) -> None:
    opening = one.cells[0]["source"]
    number, sections = one.name[:2], _sections(one)
    assert opening.startswith(f"# Exercises {number}: ")
    assert f"chapter {number}" in opening and "Shift-Enter" in opening
    minutes = sum(int(heading["minutes"]) for heading, _ in sections)
    assert re.search(rf"\b{minutes} minutes", opening), f"the tasks take {minutes} minutes together"
    (chapter,) = (ROOT / "chapters").glob(f"{number}-*.ipynb")
    assert chapter.stem == one.name


@every_set
def test_every_task_prints_the_points_it_is_worth(one: sets.ExerciseSet) -> None:
    sections = _sections(one)
    assert [int(heading["n"]) for heading, _ in sections] == list(range(1, len(one.tasks) + 1))
    assert [float(heading["points"]) for heading, _ in sections] == [task.points for task in one.tasks]
    assert all(task.points > 0 for task in one.tasks)


@every_set
def test_every_task_is_asked_answered_and_tested_in_this_order(one: sets.ExerciseSet) -> None:
    for task, (heading, cells) in zip(one.tasks, _sections(one), strict=True):
        kinds = [(sets.marks(cell).get("solution", False), sets.marks(cell).get("grade", False)) for cell in cells]
        marked = [kind for kind in kinds if any(kind)]
        assert marked == ([(True, True)] if task.by_hand else [(True, False), (False, True)]), heading[0]
        locked = [sets.marks(cell)["locked"] for cell in cells if sets.marks(cell)]
        assert locked == ([False] if task.by_hand else [False, True]), heading[0]
        text = cells[0]["source"]
        hints = re.findall(r"<details>\s*<summary>Hint (\d)</summary>\s*(\S.*?)</details>", text, re.DOTALL)
        assert [number for number, _ in hints] == ([] if task.by_hand else ["1", "2", "3"]), heading[0]
        if task.by_hand:
            points = re.findall(r"^(?:- |\| )(\d+)(?: points?:| \|)", text, re.MULTILINE)
            assert sum(map(int, points)) == task.points, "the rubric's points are those of the task"
            assert len(points) >= 3


@every_set
def test_no_hint_holds_a_line_of_the_answer(one: sets.ExerciseSet) -> None:
    asked = "\n".join(cell["source"] for cell in one.cells if cell["cell_type"] == "markdown" and not sets.marks(cell))
    squeezed = re.sub(r"\s", "", asked)
    for line in sets.secret_lines(one):
        assert re.sub(r"\s", "", line) not in squeezed, line


@every_set
def test_no_code_cell_is_long(one: sets.ExerciseSet) -> None:
    for cell in one.cells:
        lines = [line for line in cell["source"].splitlines() if "### " not in line]
        if cell["cell_type"] == "code":
            assert len(lines) <= 15, f"{cell['id']} has {len(lines)} lines"
            assert all(len(line) <= 120 for line in lines), cell["id"]


@every_set
def test_the_stored_notebook_is_clean_and_valid(one: sets.ExerciseSet) -> None:
    notebook = nbformat.read(one.path, as_version=4)
    nbformat.validate(notebook)
    assert clean_notebooks.problems(notebook) == []
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@every_set
def test_wrong_answers_hold_a_pair_of_mistakes_and_code_that_stops(one: sets.ExerciseSet) -> None:
    named = [wrong.named or "" for wrong in one.wrong_answers]
    assert any(" + " in text for text in named)
    assert any(
        re.search(r"\w+Error|Your code stopped|must return|must have the shape|returned", text) for text in named
    )


@every_set
def test_what_wrong_answers_are_called_the_library_knows(one: sets.ExerciseSet) -> None:
    known = {name for rule in RULES.values() for name in rule.deviations} | set(RULES)
    for wrong in one.wrong_answers:
        for name in NAMED.findall(wrong.named or ""):
            assert set(name.split(" + ")) <= known, f"{wrong.task}/{wrong.mistake}: {name}"


@every_set
def test_the_reference_is_right_for_other_draws(one: sets.ExerciseSet) -> None:
    # In a process of its own, as sets.judge runs it, but with seeds that no submission chose.
    cells = [vars(cell) for cell in one.to_run(one.solutions)]
    jobs = [{"what": str(seed), "seed": seed, "cells": cells} for seed in (11, 22)]
    program = "from stepsize.course.sets import _serve; _serve()"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in json.loads(done.stdout):
        assert {task: text for task, text in row["said"].items() if text} == {}, f"seed {row['what']}"


@every_set
def test_the_chapter_says_where_its_set_is(one: sets.ExerciseSet) -> None:
    chapter = nbformat.read(ROOT / "chapters" / f"{one.name}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    _, _, exercises = text.partition("## Exercises")
    assert f"`stepsize course release {one.name[:2]}`" in exercises.partition("\n## ")[0]
    assert f"`exercises/{one.name}`" in exercises.partition("\n## ")[0]
