"""The notebooks as files: each runs under papermill, stores only what is compared, and keeps its cells short.

What the tagged cells print is compared by nbval, which make test runs over chapters/ beside these tests.
"""

from __future__ import annotations

from pathlib import Path

import clean_notebooks
import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(ROOT.glob("chapters/*.ipynb"))
REPORTS = sorted(ROOT.glob("book/reports/*.ipynb"))
NAMES = [str(path.relative_to(ROOT)) for path in CHAPTERS + REPORTS]
LONGEST_CELL = 15
# A report takes its budget as parameters; the same code runs with a small one here.
SMALL = {"rates": 3, "seeds": 2, "steps": 60, "rounds": 2, "seconds": 0.05}


@pytest.mark.parametrize("name", NAMES)
def test_papermill_runs(name: str, tmp_path: Path) -> None:
    path = ROOT / name
    budget = {key: value for key, value in SMALL.items() if key in papermill.inspect_notebook(path)}
    papermill.execute_notebook(
        path,
        tmp_path / "run.ipynb",
        budget,
        cwd=path.parent,
        kernel_name="python3",
        progress_bar=False,
        execution_timeout=120,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_is_clean(name: str) -> None:
    assert clean_notebooks.problems(nbformat.read(ROOT / name, as_version=4)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_and_names_the_python_kernel(name: str) -> None:
    notebook = nbformat.read(ROOT / name, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_no_code_cell_is_long(name: str) -> None:
    for number, cell in enumerate(nbformat.read(ROOT / name, as_version=4).cells, start=1):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if cell.cell_type == "code":
            assert len(lines) <= LONGEST_CELL, f"cell {number} has {len(lines)} lines"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("chapters/")])
def test_a_chapter_compares_some_of_its_numbers(name: str) -> None:
    cells = nbformat.read(ROOT / name, as_version=4).cells
    assert any(clean_notebooks.COMPARED in cell.metadata.get("tags", []) for cell in cells)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("book/reports/")])
def test_a_report_takes_parameters(name: str) -> None:
    assert papermill.inspect_notebook(ROOT / name)


def _compared(**fields: object) -> nbformat.NotebookNode:
    return new_code_cell("print(2)", metadata={"tags": [clean_notebooks.COMPARED]}, **fields)


def _run() -> nbformat.NotebookNode:
    """A notebook as an editor leaves it after a run."""
    printed = [new_output("stream", text="2\n")]
    shown = [new_output("execute_result", data={"text/plain": "2"}, execution_count=7)]
    return new_notebook(
        cells=[
            new_markdown_cell("text"),
            _compared(outputs=printed, execution_count=5),
            _compared(outputs=shown, execution_count=7),
            new_code_cell("3", outputs=shown, execution_count=8, metadata={"papermill": {"status": "completed"}}),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "widgets": {"application/vnd.jupyter.widget-state+json": {}},
            "papermill": {"duration": 1.0},
        },
    )


def test_the_cleaner_keeps_outputs_in_compared_cells_alone() -> None:
    cleaned = clean_notebooks.clean(_run())
    _, first, second, other = cleaned.cells
    assert first.outputs[0].text == "2\n" and first.execution_count == 1
    assert second.outputs[0].execution_count == 1
    assert other.outputs == [] and other.execution_count is None and "papermill" not in other.metadata
    assert set(cleaned.metadata) == {"kernelspec"}
    nbformat.validate(cleaned)


def test_the_cleaner_is_idempotent_and_leaves_its_input_alone() -> None:
    before = _run()
    once = clean_notebooks.clean(before)
    assert before.cells[3].outputs
    assert clean_notebooks.clean(once) == once
    assert clean_notebooks.problems(once) == []


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (_compared(), "holds no output"),
        (new_code_cell("1", outputs=[new_output("stream", text="1\n")]), "nothing compares"),
        (new_code_cell("1", execution_count=3), "execution counts"),
        (_compared(outputs=[new_output("stream", text="2\n")]), "execution counts"),
        (new_code_cell("1", metadata={"papermill": {}}), "metadata of a run"),
    ],
)
def test_the_check_refuses_what_should_not_be_stored(
    cell: nbformat.NotebookNode, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    stored = path.read_bytes()
    assert clean_notebooks.main(["--check", str(path)]) == 1
    assert words in capsys.readouterr().err
    assert path.read_bytes() == stored


def test_the_cleaner_mends_all_but_a_missing_output(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    nbformat.write(_run(), path)
    assert clean_notebooks.main([str(path)]) == 0
    assert clean_notebooks.main(["--check", str(path)]) == 0
    nbformat.write(new_notebook(cells=[_compared()]), path)
    assert clean_notebooks.main([str(path)]) == 1
