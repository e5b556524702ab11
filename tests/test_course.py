"""The classroom: every set judges right from wrong, nothing leaks, and the round trip works whatever is handed in."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from stepsize import cli
from stepsize.course import CourseError, sandbox, sets, submissions
from stepsize.course import folder as books
from stepsize.course.feedback import mistakes, page
from stepsize.course.folder import Course, Mark, Record
from stepsize.course.release import release
from stepsize.course.submissions import assemble

ROOT = Path(__file__).parents[1]
SETS = sets.all_sets()
LACK = sandbox.lacking()
walled = pytest.mark.skipif(LACK is not None, reason=str(LACK))


def _write(course: Path, student: str, one: sets.ExerciseSet, notebook: Any) -> None:
    path = course / "submitted" / student / one.name / f"{one.name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook), "utf-8")


def _without(notebook: dict[str, Any], *names: str) -> dict[str, Any]:
    kept = [cell for cell in notebook["cells"] if sets.marks(cell).get("grade_id") not in names]
    return notebook | {"cells": kept}


# --- every set ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def judged() -> Iterator[dict[str, list[sets.Judgement]]]:
    """What every set says of its reference, its skeleton and its wrong answers; two sets at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield dict(zip([one.name for one in SETS], pool.map(sets.judge, SETS), strict=True))


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
class TestEverySet:
    def test_reference_scores_full_and_skeleton_nothing_with_instructions(self, one, judged) -> None:
        said = {judgement.what: judgement.said for judgement in judged[one.name]}
        assert {task: text for task, text in said["reference"].items() if text} == {}
        assert set(said["skeleton"]) == {task.name for task in one.tasks if not task.by_hand}
        for task, text in said["skeleton"].items():
            assert text and text.startswith("Not begun: write your answer here"), task

    def test_every_wrong_answer_fails_and_is_named_as_it_says(self, one, judged) -> None:
        said = {judgement.what: judgement.said for judgement in judged[one.name]}
        for wrong in one.wrong_answers:
            text = said[f"{wrong.task}/{wrong.mistake}"][wrong.task]
            assert text, f"{wrong.task}/{wrong.mistake} passes"
            assert not wrong.named or wrong.named in text, f"{wrong.task}/{wrong.mistake}: {text}"

    def test_tasks_have_points_hints_time_and_wrong_answers(self, one) -> None:
        marked = [sets.marks(cell) for cell in one.cells if sets.marks(cell)]
        names = [mark["grade_id"] for mark in marked]
        assert len(set(names)) == len(names)
        assert all(mark["schema_version"] == 3 for mark in marked)
        assert len(one.tasks) >= 5
        by_hand = [task for task in one.tasks if task.by_hand]
        assert by_hand == [one.tasks[-1]]
        text = "\n".join(cell["source"] for cell in one.cells if cell["cell_type"] == "markdown")
        assert len(re.findall(r"<details", text)) >= 3 * (len(one.tasks) - 1)
        assert len(re.findall(r"\bminutes\b", text)) >= len(one.tasks)
        assert "ubric" in text
        for task in one.tasks[:-1]:
            wrong = [answer for answer in one.wrong_answers if answer.task == task.name]
            assert len(wrong) >= 5, f"{task.name} has {len(wrong)} wrong answers"
            assert f"test-{task.name}" in names

    def test_at_least_nine_in_ten_wrong_answers_are_named(self, one) -> None:
        named = [answer for answer in one.wrong_answers if answer.named]
        assert len(named) >= 0.9 * len(one.wrong_answers)

    def test_the_source_holds_no_output(self, one) -> None:
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in one.cells)


def test_the_teachers_page_says_what_the_sets_are() -> None:
    page_text = (ROOT / "book/teachers.md").read_text("utf-8")
    for one in SETS:
        first = one.cells[0]["source"]
        minutes = re.search(r"about (\d+) minutes", first)
        assert minutes, one.name
        points = sum(task.points for task in one.tasks)
        title = first.splitlines()[0].partition(": ")[2]
        row = f"| {one.name[:2]} {title} | {len(one.tasks)} | {points:g} | {minutes[1]} | {len(one.wrong_answers)} |"
        assert row in page_text, row


# --- the leak gate --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course with every set released."""
    folder = tmp_path_factory.mktemp("released") / "course"
    for one in SETS:
        release(one, folder)
    return folder


def _secrets() -> dict[str, str]:
    """Every line that must not get out, and its set; not what the open parts of a set say, or the library itself."""
    shown = {
        line.strip() for one in SETS for cell in one.submission({})["cells"] for line in cell["source"].splitlines()
    }
    library = "\n".join(path.read_text("utf-8") for path in (ROOT / "lib").rglob("*.py"))
    lines = {line: one.name for one in SETS for line in sets.secret_lines(one)}
    return {line: name for line, name in lines.items() if line not in shown and line not in library and len(line) > 20}


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
class TestLeakGate:
    def test_students_get_no_answer_hidden_test_or_output(self, one, released: Path) -> None:
        path = released / "release" / one.name / f"{one.name}.ipynb"
        text = path.read_text("utf-8")
        assert "BEGIN SOLUTION" not in text and "HIDDEN TESTS" not in text
        notebook = sets.read(text)
        lines = {line.strip() for cell in notebook["cells"] for line in cell["source"].splitlines()}
        assert lines & sets.secret_lines(one) == set()
        assert sets.secret_lines(one), "a set without secrets cannot leak, nor can it be tested"
        for cell in notebook["cells"]:
            assert not cell.get("outputs") and not cell.get("execution_count")
            assert set(cell["metadata"]) <= {"nbgrader", "deletable", "editable", "tags", "jupyter"}
            allowed = {"grade", "grade_id", "locked", "points", "schema_version", "solution", "task", "checksum"}
            assert set(sets.marks(cell)) <= allowed | {"cell_type"}
        assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}

    def test_the_stub_stands_for_every_answer(self, one, released: Path) -> None:
        notebook = sets.read((released / "release" / one.name / f"{one.name}.ipynb").read_text("utf-8"))
        found = {sets.marks(c)["grade_id"]: c["source"] for c in notebook["cells"] if sets.marks(c).get("solution")}
        assert found == one.skeleton
        stubs = (sets.STUB, sets.TEXT_STUB)
        assert all(any(stub in text for stub in stubs) for text in found.values())

    def test_the_zip_holds_the_same_and_nothing_else(self, one, released: Path) -> None:
        with zipfile.ZipFile(released / "release" / f"{one.name}.zip") as archive:
            assert archive.namelist() == [f"{one.name}/{one.name}.ipynb"]
            path = released / "release" / one.name / f"{one.name}.ipynb"
            assert archive.read(archive.namelist()[0]) == path.read_bytes()

    def test_the_copy_says_how_to_run_it_in_colab(self, one, released: Path) -> None:
        assert "pip install git+" in (released / "release" / one.name / f"{one.name}.ipynb").read_text("utf-8")


def test_nothing_of_the_sets_is_in_the_published_site() -> None:
    site = ROOT / "_build/html"
    if not (site / "index.html").exists():
        pytest.skip("the site is not built: make book")
    secrets, found = _secrets(), []
    assert len(secrets) > 50, "the gate has nothing to look for"
    for path in site.rglob("*"):
        if path.is_file() and path.suffix in (".html", ".ipynb", ".md", ".txt", ".py", ".js", ".json", ".inv", ""):
            text = path.read_text("utf-8", "replace")
            text = BeautifulSoup(text, "html.parser").get_text() if path.suffix == ".html" else text
            found += [f"{path.relative_to(site)}: {line} ({name})" for line, name in secrets.items() if line in text]
            found += [f"{path}: {mark}" for mark in ("### BEGIN SOLUTION", "### BEGIN HIDDEN") if mark in text]
    assert found == []


def test_the_book_is_not_made_from_the_sets() -> None:
    assert re.search(r"exclude_patterns:[^]]*\bexercises\b", (ROOT / "_config.yml").read_text(), re.DOTALL)


# --- putting a submission together ----------------------------------------------------------------------------------


class TestAssembling:
    one = SETS[0]

    def _take(self, notebook: Any) -> submissions.Assembled:
        return assemble(self.one, json.dumps(notebook).encode(), SETS)

    def test_answers_are_taken_and_tests_are_the_sets_own(self) -> None:
        notebook = self.one.submission(self.one.solutions)
        for cell in notebook["cells"]:
            if sets.marks(cell).get("grade_id", "").startswith("test-"):
                cell["source"] = "pass"
        taken = self._take(notebook)
        assert taken.answers == self.one.solutions
        assert taken.cells == self.one.to_run(self.one.solutions)
        assert "edited tests do not count" in taken.notes[0]

    def test_untouched_copy_has_no_notes(self) -> None:
        assert self._take(self.one.submission({})).notes == []

    def test_deleted_cells_are_named_and_the_rest_is_kept(self) -> None:
        first, *others = self.one.solutions
        taken = self._take(_without(self.one.submission(self.one.solutions), first, f"test-{others[0]}"))
        assert set(taken.answers) == set(others)
        assert taken.notes == [f"missing: the cell of {first}"]
        assert [cell.name for cell in taken.cells] == [cell.name for cell in self.one.to_run({})]

    def test_answers_without_metadata_are_found_by_what_they_define(self) -> None:
        notebook = self.one.submission(self.one.solutions)
        for cell in notebook["cells"]:
            cell["metadata"] = {}
        del notebook["metadata"]
        code = {name for name, text in self.one.skeleton.items() if re.search(r"^(def|class) ", text, re.MULTILINE)}
        assert code and set(self._take(notebook).answers) >= code

    def test_cells_of_the_students_own_are_run_where_they_stand(self) -> None:
        notebook = self.one.submission(self.one.solutions)
        second = list(self.one.solutions)[1]
        at = next(i for i, cell in enumerate(notebook["cells"]) if sets.marks(cell).get("grade_id") == second)
        notebook["cells"].insert(at, {"cell_type": "code", "metadata": {}, "source": "mine = 1", "outputs": []})
        names = [cell.name for cell in self._take(notebook).cells]
        assert names.index("cell 1 of yours") < names.index(second)

    def test_the_last_of_two_cells_with_one_mark_counts(self) -> None:
        notebook = self.one.submission(self.one.solutions)
        first = next(iter(self.one.solutions))
        again = next(c for c in notebook["cells"] if sets.marks(c).get("grade_id") == first)
        notebook["cells"].append(again | {"source": "again = 1"})
        taken = self._take(notebook)
        assert taken.answers[first] == "again = 1"
        assert "there twice" in taken.notes[0]

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"{broken", "the notebook cannot be read: "),
            (b"\xff\xfe", "the notebook cannot be read: "),
            (b"[]", "it is not a notebook of version 4"),
            (b'{"cells": [1]}', "a cell of no known kind"),
            (b'{"cells": []}', "none of the answer cells of"),
            (b'{"cells": [{"cell_type": "code", "metadata": null, "source": 3}]}', "none of the answer cells of"),
            (b"[" * 100_000, "the notebook cannot be read"),
        ],
    )
    def test_what_is_no_notebook_of_the_set_is_refused_in_a_sentence(self, content: bytes, sentence: str) -> None:
        with pytest.raises(CourseError, match=sentence):
            assemble(self.one, content, SETS)

    @pytest.mark.skipif(len(SETS) < 2, reason="there is but one set")
    def test_the_notebook_of_another_set_is_recognised(self) -> None:
        with pytest.raises(CourseError, match=f"this is the notebook of {SETS[1].name}, not of {self.one.name}"):
            self._take(SETS[1].submission(SETS[1].solutions))


# --- the round trip -------------------------------------------------------------------------------------------------


def _run(*words: str) -> int:
    return cli.main(["course", *words])


@pytest.fixture(scope="class")
def course(one, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(one.name) / "course"
    release(one, folder, due="2027-01-01T12:00:00")
    wrong = one.wrong_answers[0]
    first = next(iter(one.solutions))
    _write(folder, "ada", one, one.submission(one.solutions))
    _write(folder, "bea", one, one.submission({}))
    _write(folder, "cyd", one, one.submission(one.solutions | {wrong.task: wrong.text}))
    _write(folder, "dan", one, '{"cells": [')
    (folder / "submitted/eva" / one.name).mkdir(parents=True)
    odd = _without(one.submission(one.solutions), first)
    odd["metadata"] = {"kernelspec": {"name": "no-such-kernel", "display_name": "?", "language": "julia"}}
    _write(folder, "fay o'b [x]", one, odd)
    os.mkfifo(folder / "submitted/eva" / one.name / f"{one.name}.ipynb")
    (folder / "submitted/gus" / one.name).mkdir(parents=True)
    for student, when in [("ada", "2026-12-31 10:00:00 UTC"), ("bea", "2027-01-02 10:00:00 UTC")]:
        (folder / "submitted" / student / one.name / "timestamp.txt").write_text(when)
    assert _run("grade", one.name, "--course", str(folder), "--workers", "2") == 0
    return folder


@walled
@pytest.mark.parametrize("one", SETS[:2], ids=lambda one: one.name, scope="class")
class TestRoundTrip:
    def test_everybody_has_a_mark_and_a_sentence(self, one, course: Path) -> None:
        found = {record.student: record for record in books.records(Course(course), one.name)}
        tested = sum(task.points for task in one.tasks if not task.by_hand)
        wrong = one.wrong_answers[0]
        lost = next(task.points for task in one.tasks if task.name == wrong.task)
        assert found["ada"].total == tested and found["ada"].sentence == "every test holds"
        assert found["ada"].to_come == sum(task.points for task in one.tasks if task.by_hand)
        assert found["bea"].total == found["dan"].total == found["eva"].total == found["gus"].total == 0
        assert found["cyd"].total == tested - lost
        assert not wrong.named or wrong.named in str([task.said for task in found["cyd"].tasks])
        assert "cannot be read" in found["dan"].sentence
        assert found["eva"].sentence == "Not graded: what was handed in is not a file of its own."
        assert found["gus"].sentence == f"Not graded: the notebook {one.name}.ipynb is missing."
        assert 0 < found["fay o'b [x]"].total < tested
        with sqlite3.connect(course / "gradebook.db") as book:
            assert book.execute("select count(*) from submitted_assignment").fetchone() == (7,)
            waiting = book.execute("select count(*) from grade where auto_score is null and manual_score is null")
            assert waiting.fetchone() == (3,)

    def test_what_is_graded_is_not_graded_again_unless_it_changes(self, one, course: Path, capsys) -> None:
        def written() -> dict[str, int]:
            return {path.stem: path.stat().st_mtime_ns for path in (course / "records" / one.name).iterdir()}

        before = written()
        assert _run("grade", one.name, "--course", str(course)) == 0
        assert written() == before
        assert f"[7/7] {'gus':<11}" in capsys.readouterr().out
        _write(course, "dan", one, one.submission({}))
        assert _run("grade", one.name, "--course", str(course)) == 0
        assert {student for student, when in written().items() if when != before[student]} == {"dan"}
        _write(course, "dan", one, '{"cells": [')
        assert _run("grade", one.name, "--course", str(course), "--student", "dan") == 0

    def test_the_same_submission_gets_the_same_mark_twice(self, one, course: Path) -> None:
        before = books.load(Course(course), "cyd", one.name)
        assert _run("grade", one.name, "--course", str(course), "--student", "cyd", "--force") == 0
        again = books.load(Course(course), "cyd", one.name)
        assert before is not None and again is not None
        assert (again.tasks, again.sentence) == (before.tasks, before.sentence)

    def test_feedback_names_the_mistake_and_holds_no_test_or_solution(self, one, course: Path, capsys) -> None:
        assert _run("feedback", one.name, "--course", str(course)) == 0
        assert "7 pages in" in capsys.readouterr().out
        for student in ("bea", "cyd", "dan"):
            parsed = BeautifulSoup(
                (course / "feedback" / student / one.name / f"{one.name}.html").read_text(), "html.parser"
            )
            assert not parsed.find_all(["script", "link", "img", "iframe"])
            words = parsed.get_text()
            assert "### BEGIN" not in words and "test-" not in words
            if student != "cyd":
                assert not [line for line in sets.secret_lines(one) if line in words]
        words = " ".join((course / "feedback/cyd" / one.name / f"{one.name}.html").read_text().split())
        record = books.load(Course(course), "cyd", one.name)
        assert record is not None
        said = next(task.said for task in record.tasks if task.said)
        assert " ".join(said.split())[:40].replace("'", "&#x27;") in words

    def test_marks_are_written_as_a_table(self, one, course: Path, tmp_path: Path) -> None:
        grades, wrongs = tmp_path / "grades.csv", tmp_path / "mistakes.csv"
        assert _run("export", "--course", str(course), "-o", str(grades), "--mistakes", str(wrongs)) == 0
        rows = {row["student"]: row for row in csv.DictReader(grades.open(encoding="utf-8"))}
        assert len(rows) == 7
        tested = sum(task.points for task in one.tasks if not task.by_hand)
        assert rows["ada"]["total"] == f"{tested:g}" and rows["ada"]["set"] == one.name
        assert (rows["ada"]["late"], rows["bea"]["late"], rows["cyd"]["late"]) == ("no", "yes", "")
        assert rows["ada"][f"{one.name}: {one.tasks[0].name}"] == f"{one.tasks[0].points:g}"
        assert rows["ada"][f"{one.name}: {one.tasks[-1].name}"] == ""
        assert rows["dan"]["sentence"].startswith("Not graded: the notebook cannot be read")
        assert sum(int(row["how often"]) for row in csv.DictReader(wrongs.open(encoding="utf-8"))) >= 4

    def test_a_mark_given_by_hand_is_counted_and_kept(self, one, course: Path) -> None:
        last = one.tasks[-1]
        with Course(course).gradebook() as gradebook:
            grade = gradebook.find_grade(last.name, one.name, one.name, "ada")
            grade.manual_score, grade.needs_manual_grade = last.points, False
            gradebook.db.commit()
        found = {record.student: record for record in books.records(Course(course), one.name)}
        assert found["ada"].total == found["ada"].most
        assert found["ada"].to_come == 0

    def test_nbgraders_own_autograde_is_switched_off_and_does_no_harm(self, one, course: Path) -> None:
        command = [sys.executable, "-m", "nbgrader", "autograde", one.name, "--student", "bea", "--force"]
        done = subprocess.run(command, cwd=course, capture_output=True, text=True, check=False)
        assert done.returncode and "run `stepsize course grade`" in done.stderr
        assert _run("grade", one.name, "--course", str(course), "--student", "bea") == 0
        assert (course / "autograded/bea" / one.name / f"{one.name}.ipynb").exists()

    def test_releasing_again_is_safe_and_other_tasks_are_refused(self, one, course: Path, tmp_path: Path) -> None:
        copy = course / "release" / one.name / f"{one.name}.ipynb"
        before = copy.read_bytes()
        assert _run("release", one.name, "--course", str(course)) == 0
        assert copy.read_bytes() == before
        changed = tmp_path / one.name / f"{one.name}.ipynb"
        changed.parent.mkdir()
        changed.write_text(json.dumps(_without(one.submission({}), f"test-{one.tasks[0].name}")))
        with pytest.raises(CourseError, match="has other tasks than the 7 submissions"):
            release(sets.ExerciseSet(changed.parent), course)
        assert copy.read_bytes() == before
        assert len(books.records(Course(course), one.name)) == 7


@walled
def test_a_killed_grading_goes_on_where_it_was(tmp_path: Path) -> None:
    one = SETS[0]
    folder = tmp_path / "course"
    release(one, folder)
    for student in ("a", "b", "c"):
        _write(folder, student, one, one.submission(one.solutions))
    command = [
        sys.executable,
        "-m",
        "stepsize.cli",
        "course",
        "grade",
        one.name,
        "--course",
        str(folder),
        "--workers",
        "1",
    ]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    line = first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert line.startswith("[1/3] ")
    done = line.split()[1]
    at = (folder / "records" / one.name / f"{done}.json").stat().st_mtime_ns
    time.sleep(0.01)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.count("every test holds") == 3
    assert (folder / "records" / one.name / f"{done}.json").stat().st_mtime_ns == at


# --- mistakes of the teacher ----------------------------------------------------------------------------------------


class TestMistakesInTheInput:
    def _refused(self, capsys, *words: str) -> str:
        assert _run(*words) == 2
        _, errors = capsys.readouterr()
        assert errors.startswith("stepsize: ") and errors.count("\n") == 1
        return errors.removeprefix("stepsize: ").strip()

    def test_unknown_sets_folders_and_options_are_named(self, capsys, tmp_path: Path) -> None:
        course = ["--course", str(tmp_path / "course")]
        name = SETS[0].name
        assert self._refused(capsys, "release", "77", *course).startswith("there is no set '77': ")
        said = self._refused(capsys, "release", name[:-1] + "x", *course)
        assert "did you mean" in said
        assert "there is no course in" in self._refused(capsys, "grade", name, *course)
        release(SETS[0], tmp_path / "course")
        assert self._refused(capsys, "grade", name, *course).startswith(f"nothing was handed in for {name}")
        assert "is released in" in self._refused(capsys, "grade", "77", *course)
        assert self._refused(capsys, "feedback", name, *course).startswith(f"nothing of {name} is graded")
        assert self._refused(capsys, "export", *course).startswith("nothing is graded in")
        assert "--workers must be a number" in self._refused(capsys, "grade", name, *course, "--workers", "many")
        assert "--due must be a date" in self._refused(capsys, "release", name, *course, "--due", "soon")
        assert self._refused(capsys, "grad") == "there is no command 'grad'; did you mean 'grade'?"
        _write(tmp_path / "course", "ada", SETS[0], "{")
        said = self._refused(capsys, "grade", name, *course, "--student", "eve")
        assert said.startswith(f"eve has handed in nothing for {name}")

    def test_without_walls_grading_is_refused_unless_told(self, capsys, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(sandbox.shutil, "which", lambda _: None)
        release(SETS[0], tmp_path / "course")
        _write(tmp_path / "course", "dan", SETS[0], "{")
        said = self._refused(capsys, "grade", SETS[0].name, "--course", str(tmp_path / "course"))
        assert "not installed: apt install bubblewrap" in said and "--unsafe" in said
        assert _run("grade", SETS[0].name, "--course", str(tmp_path / "course"), "--unsafe") == 0

    def test_two_at_work_in_one_course_wait_for_each_other(self, capsys, tmp_path: Path) -> None:
        release(SETS[0], tmp_path / "course")
        with Course(tmp_path / "course").alone():
            said = self._refused(capsys, "release", SETS[0].name, "--course", str(tmp_path / "course"))
        assert said.startswith("another `stepsize course` is at work")


def _record(student: str, said: str | None, answer: str = "x = 1") -> Record:
    task = Mark("step", "1. The <step>", 2.0, False, 0.0 if said else 2.0, said)
    return Record(student, "01-sgd", "key", "a sentence", [task], answers={"step": answer})


def test_mistakes_are_counted_whatever_their_numbers() -> None:
    found = [
        _record("a", "got 0.8, not 1"),
        _record("b", "got 1e-3, not -2"),
        _record("c", "wrong sign"),
        _record("d", None),
    ]
    assert mistakes(found) == [(2, "step", "got #, not #"), (1, "step", "wrong sign")]


def test_nothing_that_a_student_writes_becomes_part_of_the_page() -> None:
    made = page(_record("<script>", "<img src=x onerror=alert(1)>", "</pre><script>"), {"step": "<b>"})
    parsed = BeautifulSoup(made, "html.parser")
    assert not parsed.find_all(["script", "img", "b"])
