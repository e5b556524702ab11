"""Tests of what the report `compare` says; that it runs with its own budget is tested with all notebooks."""

import ast
import json
import re
import shlex
from pathlib import Path

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from stepsize import store

REPORT = Path(__file__).parents[1] / "book" / "reports" / "compare.ipynb"
BUDGET = {"optimizers": "sgd, nag:torch", "lr": "0.1:10", "rates": 3, "seeds": 2, "steps": 40}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The executed report, and the runs it is made of."""
    folder = tmp_path_factory.mktemp("report")
    path = str(folder / "runs.db")
    given = {**BUDGET, "store": path}
    papermill.execute_notebook(REPORT, folder / "out.ipynb", given, progress_bar=False, kernel_name="python3")
    return nbformat.read(folder / "out.ipynb", as_version=4), store.open(path)


def outputs(notebook, kind):
    return ["".join(o["data"][kind]) for c in notebook.cells for o in c.get("outputs", []) if kind in o.get("data", {})]


def words(notebook):
    """What the report shows as HTML, without the marks."""
    return "\n".join(BeautifulSoup(html, "html.parser").get_text("\n") for html in outputs(notebook, "text/html"))


def test_title_asks_and_the_first_paragraph_answers_from_the_runs(made):
    notebook, runs = made
    assert notebook.cells[0].source.startswith("# Which ") and notebook.cells[0].source.endswith("?")
    first = next(cell for cell in notebook.cells if cell.get("outputs"))
    assert outputs(notebook, "text/markdown") == [runs.answer("test_error")]
    assert first.outputs[0]["data"]["text/markdown"] == runs.answer("test_error")


def test_runs_are_those_of_the_parameters(made):
    _, runs = made
    frame = runs.frame()
    assert len(frame) == 2 * 3 * 2
    assert list(frame["optimizer"].unique()) == ["sgd", "nag:torch"]
    assert sorted(frame["lr"].unique()) == [0.1, 1.0, 10.0]
    assert set(frame["steps"]) == {40}


def test_every_figure_has_an_alt_text_with_its_numbers(made):
    notebook, runs = made
    pictures = [
        picture
        for html in outputs(notebook, "text/html")
        for picture in BeautifulSoup(html, "html.parser").find_all("img")
    ]
    assert len(pictures) == 2
    assert runs.answer("test_error").replace("**", "") in pictures[0]["alt"]
    loss = runs.summary(budget="all").set_index("optimizer")["train_loss"]
    assert f"sgd {loss['sgd']:.3g}" in pictures[1]["alt"]


def test_table_has_a_row_for_each_optimizer_with_its_interval(made):
    notebook, runs = made
    (table,) = [
        table
        for html in outputs(notebook, "text/html")
        for table in BeautifulSoup(html, "html.parser").find_all("table")
    ]
    head, *rows = [[cell.text for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
    assert head[:4] == ["", "chosen", "test error", "n"]
    for row, expected in zip(rows, runs.summary().itertuples(), strict=True):
        between = f"{expected.mean:.4f} [{expected.low:.4f}, {expected.high:.4f}]"
        assert row[0] == expected.optimizer and row[1].startswith(expected.setting) and row[2] == between


def test_method_budget_versions_and_command_are_there(made):
    notebook, runs = made
    text = words(notebook)
    assert "2 optimizers, 6 settings, 2 seeds, 40 steps a run: 12 runs." in text
    assert runs.budget().splitlines()[-1] in text
    assert re.search(r"within 10 % of the best: sgd \d\.\d\d, nag:torch \d\.\d\d\.", text)


def test_command_gives_back_every_parameter_of_the_report(made):
    """Also a name with a space or an empty store survives the shell."""
    notebook, runs = made
    command = shlex.split(re.search(r"stepsize report compare .*", words(notebook))[0])
    given = dict(word.split("=", 1) for i, word in enumerate(command) if command[i - 1] == "-p")
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    assert list(given) == [node.targets[0].id for node in ast.parse(cell.source).body]
    assert given["optimizers"] == BUDGET["optimizers"] and given["store"] == runs.store.path
    assert command[-2:] == ["-o", "compare.html"]


def test_cells_are_short_and_the_stored_report_holds_no_output():
    for cell in json.loads(REPORT.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert len("".join(cell["source"]).splitlines()) <= 15
            assert cell["outputs"] == []
