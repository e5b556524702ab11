"""Tests of `stepsize report`: what it refuses, what it writes, what it keeps when it is stopped, and many at once."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_site
import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from stepsize import cli, landscapes, own_rule, report, store
from stepsize.bench import step
from stepsize.laws import laws_of
from stepsize.report import page, run
from stepsize.report.parameters import checked, read
from stepsize.rules import RULES
from stepsize.sweep import sweep

ROOT = Path(__file__).parents[1]
NAMES = ["compare", "memory-and-speed", "robustness", "which-novograd", "your-optimizer"]
SMALL = ["-p", "optimizers=sgd,adam", "-p", "rates=3", "-p", "seeds=2", "-p", "steps=40"]


def stepsize(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepsize.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says to a mistake: one sentence, and nothing done."""
    assert cli.main(["report", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.startswith("stepsize: ")
    return printed.err.removeprefix("stepsize: ").rstrip("\n")


@pytest.fixture(autouse=True)
def rules_are_as_before() -> Iterator[None]:
    """A rule from a file stays in the process that loaded it; here the next tests run in the same one."""
    yield
    own_rule.forget()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a report of one's own: ``own_reports(name, settings, *cells)``."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setattr(run, "FOLDER", shelf)

    def make(name: str, settings: str, *cells: str) -> None:
        first = new_code_cell(settings, metadata={"tags": ["parameters"]})
        parts = [new_markdown_cell("# Does it work?"), first]
        for number, cell in enumerate(cells, start=1):
            parts += [new_markdown_cell(f"## Part {number}"), new_code_cell(cell)]
        notebook = new_notebook(cells=parts)
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, shelf / f"{name}.ipynb")

    return make


# --- what is refused before anything starts


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("compare -p tsk=digits-mlp -o x.html", "the report has no parameter 'tsk'; did you mean 'task'?"),
        ("compare -p seeds=many -o x.html", "seeds must be a whole number, got 'many'"),
        ("compare -p seeds=2.5 -o x.html", "seeds must be a whole number, got '2.5'"),
        ("compare -p seeds=0 -o x.html", "seeds must be from 1 to 1000, got 0"),
        ("compare -p steps=-3 -o x.html", "steps must be 1 or more, got -3"),
        ("compare -p task=digits-mpl -o x.html", "task: no task named 'digits-mpl'; did you mean 'digits-mlp'?"),
        ("compare -p optimizers=sgd,adm -o x.html", "optimizers: no optimizer named 'adm'; did you mean 'adam'?"),
        ("compare -p optimizers=sgd,sgd -o x.html", "optimizers has sgd twice"),
        ("compare -p optimizers=, -o x.html", "optimizers must name one or more, with commas, got ','"),
        ("compare -p lr=1:0.1 -o x.html", "lr must be auto, or LO:HI such as 1e-3:1, got '1:0.1'"),
        ("compare -p lr=fast -o x.html", "lr must be auto, or LO:HI such as 1e-3:1, got 'fast'"),
        ("compare -p seeds=2 -p seeds=3 -o x.html", "the parameter 'seeds' is given twice"),
        ("compare -p seeds -o x.html", "a parameter is given as NAME=VALUE, such as seeds=3, got 'seeds'"),
        ("compare -o x.doc", "output must end in .html, .pdf or .ipynb, got 'x.doc'"),
        ("compare -o nowhere/x.html", "there is no folder nowhere to hold x.html"),
        ("compare -p store=nowhere/x.db -o x.html", "store: there is no folder nowhere to hold x.db"),
        ("compare -o x.html --timeout soon", "timeout must be a number of seconds, got soon"),
        ("compare -o x.html --timeout 0", "timeout must be above 0 seconds, got 0"),
        ("compares -o x.html", "there is no report 'compares'; did you mean 'compare'?"),
        ("compare", "the following arguments are required: -o/--output (see stepsize report --help)"),
        ("-o x.html", "the following arguments are required: NAME (see stepsize report --help)"),
        ("robustness -p lowest_rate=20 -o x.html", "highest_rate must be above lowest_rate, 20, got 10"),
        ("robustness -p lowest_rate=nan -o x.html", "lowest_rate must be a finite number, got 'nan'"),
        ("robustness -p scales=1,x -o x.html", "scales must be numbers above 0, with commas, got '1,x'"),
        ("memory-and-speed -p model=resnet -o x.html", "model has no 'resnet'; did you mean 'resnet18'?"),
        ("memory-and-speed --store x.db -o x.html", "memory-and-speed trains nothing that a store could keep"),
        ("your-optimizer -p rule=none.py -o x.html", "there is no rule file none.py"),
        ("compare --grid seeds -o out", "grid must be NAME=A,B with values, such as seeds=3,5, got 'seeds'"),
        ("compare --grid sees=2,3 -o out", "the report has no parameter 'sees'; did you mean 'seeds'?"),
        ("compare --grid seeds=2,x -o out", "seeds must be a whole number, got 'x'"),
        ("compare --grid seeds=2 -o out.html", "a grid is written into a folder, got the file 'out.html'"),
        ("compare --grid seeds=2 -o out --format doc", "format must be one of html, pdf, ipynb, got 'doc'"),
        ("compare -p seeds=3 --grid seeds=2 -o out", "seeds is given both by -p and by the grid"),
    ],
)
def test_a_mistake_exits_2_with_one_sentence_before_anything_starts(
    words: str, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(words.split(), capsys) == sentence
    assert list(folder.iterdir()) == []


def test_a_pdf_without_chromium_is_refused_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page.shutil, "which", lambda name: None)
    sentence = "a PDF is printed by Chromium, and none is installed: apt install chromium, or write .html"
    assert refused(["compare", "-o", "x.pdf"], capsys) == sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "my.py holds no rule: it must hold one function under the decorator stepsize.rules.rule"),
        ("def (\n", "my.py, line 1: invalid syntax"),
        ("1 / 0\n", "my.py does not run (ZeroDivisionError: division by zero)"),
        (
            "from stepsize.rules import rule\n@rule(state={}, paper='', year=1, equation='')\n"
            "def adam(p, g, t, *, lr=1.0):\n    return (p - lr * g,)\n",
            "my.py does not run (ValueError: a rule named 'adam' exists already)",
        ),
        (
            "from stepsize.rules import rule\n@rule(state={}, paper='', year=1, equation='')\n"
            "def in_place(p, g, t, *, lr=1.0):\n    return (p.sub_(lr * g),)\n",
            "my.py: in_place breaks laws that training needs: inputs are left alone (an input was changed)",
        ),
    ],
)
def test_a_rule_file_that_cannot_be_trained_is_refused(
    text: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my.py").write_text(text)
    assert refused(["your-optimizer", "-p", "rule=my.py", "-o", "x.html"], capsys).startswith(words)


def test_help_of_a_report_says_its_question_parameters_and_what_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "compare", "--help"]) == 0
    told = capsys.readouterr().out
    assert "Which optimizer is best" in told and "seeds = 5" in told and "[1 to 1000]" in told
    assert cli.main(["report", "--help"]) == 0
    told = capsys.readouterr().out
    assert "stepsize report compare -p task=digits-mlp" in told and "with all your rights" in told


@pytest.mark.parametrize("name", NAMES)
def test_every_report_asks_a_question_and_says_what_each_parameter_is_and_may_be(name: str) -> None:
    found = run.find(name)
    assert found.question.endswith("?")
    for parameter in found.parameters.values():
        assert parameter.allowed, f"{parameter.name} of {name} has no brackets"
    assert checked(found.parameters, {}) == {key: p.default for key, p in found.parameters.items()}


def test_there_is_a_page_for_every_report_and_no_other() -> None:
    assert list(run.reports()) == NAMES
    for name, found in run.reports().items():
        assert (ROOT / f"book/report-{name}.md").read_text().startswith(f"# {found.question}\n")


def test_what_stands_in_brackets_must_be_something_that_is_checked() -> None:
    with pytest.raises(ValueError, match=r"\[a nice number\], which nothing can check"):
        read("x = 1  # how many [a nice number]\n")


def test_bounds_may_name_another_parameter_and_words_a_choice() -> None:
    known = read('low = 1.0  # [above 0]\nhigh = 2.0  # [above low]\nway = "up"  # [one of up, down]\nfast = True\n')
    assert checked(known, {"high": "3", "way": "down", "fast": "false"}) == {
        "low": 1.0,
        "high": 3.0,
        "way": "down",
        "fast": False,
    }
    for given, words in [
        ({"low": "2"}, "above low"),
        ({"way": "dwon"}, "did you mean 'down'"),
        ({"fast": "1"}, "true"),
    ]:
        with pytest.raises(ValueError, match=words):
            checked(known, given)


# --- what is written


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which ``compare`` was run from a clean store, as HTML, and what it printed."""
    where = tmp_path_factory.mktemp("written")
    done = stepsize("report", "compare", *SMALL, "-o", "out.html", cwd=where)
    assert done.returncode == 0, done.stderr
    (where / "said.txt").write_text(done.stdout)
    return where


def test_it_says_cell_by_cell_where_it_is(written: Path) -> None:
    said = (written / "said.txt").read_text().splitlines()
    titles = ["The answer", "The rates", "The table", "On the way", *["Method, budget and versions"] * 2]
    assert [re.sub(r"^\[(\d)/6\] +\d+ s  ", r"\1 ", line) for line in said[:-1]] == [
        f"{number} {title}" for number, title in enumerate(titles, start=1)
    ]
    assert re.fullmatch(r"written: out.html \(\d+ s\)", said[-1])


def test_the_page_loads_nothing_and_its_pictures_have_words(written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "out.html", tmp_path)
    assert check_site.problems(tmp_path) == []
    text = (tmp_path / "out.html").read_text()
    assert not re.search(r"<script|<link|@import|src=\"(?!data:)", text)
    figures = BeautifulSoup(text, "html.parser").find_all("figure")
    assert len(figures) == 2
    assert all(figure.find("img")["alt"] and figure.find("figcaption").get_text() for figure in figures)


def test_the_page_opens_with_the_answer_and_closes_with_the_command_that_made_it(written: Path) -> None:
    parsed = BeautifulSoup((written / "out.html").read_text(), "html.parser")
    first = parsed.find("h1").find_next_sibling()
    runs = store.open(written / "out.db")
    assert first.name == "p" and first.get_text() == runs.answer("test_error").replace("**", "")
    command = parsed.find_all("pre")[-2].get_text()
    assert command.startswith("stepsize report compare -p task=digits-mlp -p optimizers=sgd,adam -p lr=auto -p rates=3")
    assert command.endswith("-o out.html")
    assert all(fold.find("summary").get_text() == "Code" for fold in parsed.find_all("details"))


def test_only_the_page_and_its_store_are_left(written: Path) -> None:
    names = {path.name for path in written.iterdir() if not path.name.startswith("out.db-")}
    assert names - {"said.txt"} == {"out.html", "out.db"}
    assert len(store.open(written / "out.db")) == 2 * 3 * 2


def test_a_second_call_trains_nothing_and_may_write_a_notebook(written: Path) -> None:
    done = stepsize("report", "compare", *SMALL, "-o", "out.ipynb", cwd=written)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(written / "out.ipynb", as_version=4)
    assert "0 trained now, 12 found in out.db" in str(notebook)
    assert notebook.metadata.stepsize.parameters.seeds == 2
    assert "papermill" not in str(notebook.metadata) and str(written) not in str(notebook)
    assert run.is_fresh(run.find("compare"), notebook)
    (written / "out.ipynb").unlink()


@pytest.mark.skipif(not any(map(shutil.which, page.BROWSERS)), reason="no Chromium to print with or to look through")
class TestInABrowser:
    def test_a_pdf_is_printed(self, written: Path, tmp_path: Path) -> None:
        page.pdf((written / "out.html").read_text(), tmp_path / "out.pdf")
        made = (tmp_path / "out.pdf").read_bytes()
        assert made.startswith(b"%PDF") and len(made) > 20_000

    @pytest.mark.parametrize("width", [390, 1280])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_the_page_opens_from_a_folder_without_a_network(self, written: Path, width: int, scheme: str) -> None:
        webdriver = pytest.importorskip("selenium.webdriver")
        if not shutil.which("chromedriver"):
            pytest.skip("no chromedriver to drive the browser with")
        options = webdriver.ChromeOptions()
        options.binary_location = page.browser()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            driver.get((written / "out.html").as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert driver.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
            ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
            assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        finally:
            driver.quit()


# --- what goes wrong on the way


def test_a_failing_cell_exits_1_says_where_and_leaves_the_notebook_up_to_it(
    own_reports: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_reports("broken", "x = 2  # a number [1 to 9]", "print('before', x)", "1 / (x - 2)", "print('after')")
    Path("out.html").write_text("the last good one")
    assert cli.main(["report", "broken", "-o", "out.html"]) == 1
    told = capsys.readouterr().err
    assert told == (
        "stepsize: broken failed in cell 2 of 3 (Part 2): ZeroDivisionError: division by zero; "
        "the notebook up to there is out.part.ipynb\n"
    )
    kept = nbformat.read("out.part.ipynb", as_version=4)
    printed = "".join(o.get("text", "") for cell in kept.cells for o in cell.get("outputs", []))
    assert "before 2" in printed and "after" not in printed
    assert Path("out.html").read_text() == "the last good one"


def test_a_report_that_takes_too_long_is_stopped_and_says_so(
    own_reports: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_reports("slow", "x = 2  # a number [1 to 9]", "print('before')", "import time; time.sleep(600)")
    began = time.monotonic()
    assert cli.main(["report", "slow", "-o", "out.html", "--timeout", "4"]) == 1
    assert time.monotonic() - began < 60
    told = capsys.readouterr().err
    assert "slow was stopped in cell 2 of 2 (Part 2) after its 4 s" in told
    assert "before" in Path("out.part.ipynb").read_text()


def test_a_report_whose_process_dies_says_so(
    own_reports: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_reports("dead", "x = 2  # a number [1 to 9]", "import os; os._exit(9)")
    assert cli.main(["report", "dead", "-o", "out.html"]) == 1
    assert "dead lost its process in cell 1 of 1 (Part 1)" in capsys.readouterr().err


def test_a_report_killed_half_way_and_repeated_does_no_finished_run_again(folder: Path) -> None:
    words = [
        "report",
        "compare",
        "-p",
        "optimizers=sgd,sgdm,nag,adam,radam,novograd",
        "-p",
        "lr=1e-3:1",
        "-p",
        "rates=6",
    ]
    words += ["-p", "seeds=2", "-p", "steps=300", "-o", "out.html"]
    process = subprocess.Popen([sys.executable, "-m", "stepsize.cli", *words], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 400
    finished = 0
    while not finished and time.monotonic() < until:
        time.sleep(0.2)
        if Path("out.db").exists():
            finished = len(_keys("out.db"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)  # its kernel sees that it is alone, and ends
    before = _keys("out.db")
    assert 0 < len(before) < 72, "the report was killed before its first run, or after its last"
    stamps = _numbers("out.db")
    assert stepsize(*words).returncode == 0
    assert f"{72 - len(before)} trained now" in Path("out.html").read_text()
    assert f"{len(before)} found in out.db" in Path("out.html").read_text()
    after = _numbers("out.db")
    assert len(after) == 72 and all(after[key] == number for key, number in stamps.items())


def _keys(path: str) -> list[str]:
    try:
        return store.Store(path, create=False, check=False).keys()
    except store.StoreError:
        return []  # it is being made


def _numbers(path: str) -> dict[str, int]:
    """The number each run got when it was written."""
    found = store.Store(path, create=False)
    return dict(found._db.execute("SELECT key, number FROM runs").fetchall())


# --- many


def test_a_grid_is_written_into_a_folder_with_a_manifest_and_what_is_done_is_skipped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["report", "compare", "-p", "seeds=2", "-p", "rates=2", "--grid", "steps=20,30", "optimizers=[sgd,adam]"]
    grid += ["-o", "out", "--jobs", "2"]
    assert cli.main(grid) == 0
    told = capsys.readouterr().out
    assert "2 reports: 0 done already, 2 to do" in told
    files = ["compare-steps=20,optimizers=sgd,adam.html", "compare-steps=30,optimizers=sgd,adam.html"]
    assert {path.name for path in Path("out").iterdir()} == {*files, "manifest.json", "runs.db"}
    manifest = json.loads(Path("out/manifest.json").read_text())["reports"]
    assert {manifest[file]["status"] for file in files} == {"done"}
    assert manifest[files[1]]["parameters"]["steps"] == "30"
    stamps = [Path("out", file).stat().st_mtime_ns for file in files]
    Path("out", files[0]).unlink()
    assert cli.main(grid) == 0
    assert "2 reports: 1 done already, 1 to do" in capsys.readouterr().out
    assert Path("out", files[0]).exists() and Path("out", files[1]).stat().st_mtime_ns == stamps[1]


def test_a_grid_goes_on_after_a_failing_report_and_names_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A store in the way of one of them: it is no database.
    Path("bad.db").write_text("not a store\n" * 100)
    words = ["report", "compare", "-p", "seeds=1", "-p", "rates=2", "-p", "steps=20", "-p", "optimizers=sgd"]
    assert cli.main([*words, "--grid", "store=bad.db,good.db", "-o", "out", "--jobs", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "stepsize: 1 failed: compare-store=bad.db.html\n"
    assert "bad.db is not a store" in printed.out
    assert {path.name for path in Path("out").glob("*.html")} == {"compare-store=good.db.html"}
    manifest = json.loads(Path("out/manifest.json").read_text())["reports"]
    assert manifest["compare-store=bad.db.html"]["status"] == "failed"
    assert "failed in cell 1" in manifest["compare-store=bad.db.html"]["error"]


def test_a_value_with_commas_stands_in_brackets() -> None:
    assert run.points(["lr=auto,1e-3:1", "optimizers=[sgd,adam],[nag]"]) == [
        {"lr": "auto", "optimizers": "sgd,adam"},
        {"lr": "auto", "optimizers": "nag"},
        {"lr": "1e-3:1", "optimizers": "sgd,adam"},
        {"lr": "1e-3:1", "optimizers": "nag"},
    ]


# --- the recorded runs


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_run_is_of_the_report_as_it_stands_small_and_without_a_trace_of_its_maker(name: str) -> None:
    path = ROOT / f"book/results/reports/{name}.ipynb"
    mend = f"record it again: its last cell has the command ({path.relative_to(ROOT)})"
    recorded = nbformat.read(path, as_version=4)
    assert run.is_fresh(run.find(name), recorded), mend
    assert path.stat().st_size < 300_000
    text = path.read_text()
    assert not re.search(r"/(work|tmp|home|root)/", text)
    assert os.sep + "lib" + os.sep + "python" not in text
    outputs = [one for cell in recorded.cells for one in cell.get("outputs", [])]
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    assert page.answer(recorded).startswith(("**", "Of ", "On "))
    for html in [one.data["text/html"] for one in outputs if "text/html" in one.get("data", {})]:
        for image in BeautifulSoup("".join(html), "html.parser").find_all("img"):
            assert image["alt"] and image.find_parent("figure").find("figcaption").get_text()


# --- what the cells call


def test_a_difference_is_paired_by_seed_and_its_interval_grows_with_the_comparisons() -> None:
    easy = {seed: 0.1 * seed for seed in range(5)}
    values = {
        "mine": easy,
        "behind": {seed: x + 0.1 + 0.001 * seed for seed, x in easy.items()},
        "ahead": {seed: x - 0.1 + 0.001 * seed for seed, x in easy.items()},
        "near": {seed: x + 0.01 * (-1) ** seed for seed, x in easy.items()},
    }
    table = report.better_or_worse(values, "mine").set_index("optimizer")
    assert table["verdict"].to_dict() == {"behind": "better", "ahead": "worse", "near": "not distinguishable"}
    widths = [report.better_or_worse(values, "mine", comparisons=k)["high"].iloc[0] for k in (1, 3, 30)]
    assert widths == sorted(widths)
    larger = report.better_or_worse(values, "mine", larger=True).set_index("optimizer")["verdict"]
    assert larger.to_dict() == {"behind": "worse", "ahead": "better", "near": "not distinguishable"}
    words = "**better** than behind; **not distinguishable** from near; **worse** than ahead"
    assert report.against(table.reset_index()) == words
    assert report.leader(values)[0] == "ahead" and report.leader(values, larger=True)[0] == "behind"


def test_one_seed_decides_nothing() -> None:
    table = report.better_or_worse({"mine": {0: 1.0}, "theirs": {0: 9.0}}, "mine")
    assert table["verdict"].tolist() == ["not distinguishable"]


def test_good_rates_are_measured_by_the_best_of_all_and_not_by_each_ones_own() -> None:
    rates = (0.01, 0.1, 1.0)
    errors = {"good": (0.2, 0.1, 0.12), "poor": (0.9, 0.8, 0.9)}
    rows = [
        {"optimizer": name, "init": 1.0, "lr": lr, "seed": seed, "final_error": error}
        for name, own in errors.items()
        for lr, error in zip(rates, own, strict=True)
        for seed in range(2)
    ]
    widths = report.robustness(pd.DataFrame(rows), "final_error", within=1.5)
    assert widths[widths["optimizer"] == "poor"]["decades"].tolist() == [0.0, 0.0]
    # Half-way from 0.1 to 0.2 on the left, all the way to the edge on the right.
    assert widths[widths["optimizer"] == "good"]["decades"].tolist() == pytest.approx([1.5, 1.5])


def test_variants_of_novograd_are_told_apart_by_the_step_at_which_they_depart() -> None:
    record = report.outside()
    names = ["novograd", "novograd:timm", "novograd:apex", "novograd:torch-optimizer"]
    steps = {decay: report.moves(names, record, 0.01, decay) for decay in (0.0, 0.1)}
    assert report.departs(steps, "novograd:timm") == {"without decay": "same", "with decay 0.1": "same"}
    assert report.departs(steps, "novograd:apex")["without decay"] == "step 1"
    assert report.departs(steps, "novograd:torch-optimizer")["without decay"] == "step 2"
    assert report.defaults_apart(RULES["novograd"].deviations["timm"].rule) == "lr=0.001"


def test_a_path_on_a_landscape_is_at_the_rate_that_ends_lowest() -> None:
    paths, ends = report.best_paths("quadratic", ["sgd"], steps=50)
    rate, height = ends["sgd"]
    assert paths["sgd"].shape == (51, 2)
    for other in (rate / 3, rate * 3):
        path = landscapes.trajectory("sgd", "quadratic", steps=50, lr=other)
        assert not landscapes.get("quadratic")(path)[-1] < height


def test_state_is_counted_in_bytes_beside_torch() -> None:
    measured = step.beside(["sgd", "sgdm", "novograd"], "mlp", 0.01)
    size = 4 * sum(map(math.prod, step.MODELS["mlp"]()))
    assert measured["sgd"]["bytes"] == 0 and measured["sgdm"]["bytes"] == size
    assert measured["novograd"]["bytes"] == size + 6 * 2 * 4
    assert measured[step.MEASURE]["bytes"] == 2 * size
    assert all(one["seconds"] > 0 for one in measured.values())
    assert step.namesake_of("sgdm") == "SGD with momentum" and step.namesake_of("novograd") is None


MY_RULE = """
from stepsize.rules import rule

@rule(state={}, paper="", year=2026, equation="")
def doubled(p, g, t, *, lr=0.1):
    return (p - FACTOR * lr * g,)
"""


class TestARuleOfOnesOwn:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "doubled.py"
        path.write_text(MY_RULE.replace("FACTOR", "2"))
        yield path
        RULES.pop("doubled", None)
        own_rule._loaded.pop(str(path), None)

    def test_it_is_an_optimizer_by_name_and_a_changed_line_makes_new_runs(self, file: Path, tmp_path: Path) -> None:
        plan = {"task": "digits-mlp", "optimizers": {"doubled": {"lr": [0.05]}, "sgd": {"lr": [0.1]}}, "steps": 20}
        own_rule.load(file)
        runs = sweep(**plan, seeds=2, store=tmp_path / "runs.db")
        final = runs.frame().groupby("optimizer")["final_train_loss"].apply(list)
        assert final["doubled"] == pytest.approx(final["sgd"], rel=1e-5)
        own_rule.load(file)
        assert sweep(**plan, seeds=2, store=tmp_path / "runs.db").done == 0
        file.write_text(MY_RULE.replace("FACTOR", "3"))
        own_rule.load(file)
        assert sweep(**plan, seeds=2, store=tmp_path / "runs.db").done == 2

    def test_the_processes_of_a_sweep_know_it(self, file: Path) -> None:
        own_rule.load(file)
        plan = {"task": "digits-mlp", "optimizers": {"doubled": {"lr": [0.05]}}, "seeds": 2, "steps": 20}
        runs = sweep(**plan, workers=2)
        assert runs.done == 2 and "2 processes" in runs.how
        doubled = runs.frame()["final_train_loss"].tolist()
        assert sweep(**plan, workers=1).frame()["final_train_loss"].tolist() == doubled
        # The processes of the last sweep are still there, with the rule as it was.
        file.write_text(MY_RULE.replace("FACTOR", "3"))
        own_rule.load(file)
        tripled = sweep(**plan, workers=2).frame()["final_train_loss"].tolist()
        assert tripled != doubled
        assert sweep(**plan, workers=1).frame()["final_train_loss"].tolist() == tripled

    def test_what_does_not_run_leaves_no_rule_behind(self, file: Path) -> None:
        file.write_text(MY_RULE.replace("FACTOR", "2") + "\n1 / 0\n")
        with pytest.raises(ValueError, match="does not run"):
            own_rule.load(file)
        assert "doubled" not in RULES

    def test_a_law_that_may_be_broken_on_purpose_is_no_obstacle(self, file: Path) -> None:
        file.write_text(MY_RULE.replace("FACTOR * lr * g", "lr * g.abs()"))
        rule = own_rule.ready(file)
        assert {"mirror"} == {law.name for law in laws_of(rule) if not law.ok}
