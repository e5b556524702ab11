"""The repository's own promises: one place for versions, two commands, a build that fails when it should."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import build_book
import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line.strip() and not line.startswith("#")]


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


MADE = {
    ".venv",
    ".venv-bench",
    "_build",
    ".git",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
}


def _files() -> list[Path]:
    """The files of the repository: what git knows or would take; in a copy without git, all that no tool made."""
    if not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if path.is_file() and not MADE & set(path.relative_to(ROOT).parts)]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in found.stdout.splitlines() if (ROOT / line).is_file()]


# --- versions


def test_requirements_name_what_the_project_names() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    named = [line for lines in extras.values() for line in lines]
    assert sorted(_lines("requirements.txt")) == sorted(PROJECT["project"]["dependencies"] + named)


def test_every_requirement_is_pinned_once_in_the_constraints() -> None:
    pins = _lines("constraints.txt")
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    names = [_name(pin) for pin in pins]
    assert len(set(names)) == len(names)
    assert {_name(line) for line in _lines("requirements.txt")} <= set(names)


def test_the_torch_pin_fits_every_build_of_that_version() -> None:
    assert [pin for pin in _lines("constraints.txt") if "+" in pin] == []


def test_versions_stand_nowhere_else() -> None:
    for name in [
        "requirements.txt",
        "environment.yml",
        "binder/environment.yml",
        ".pre-commit-config.yaml",
        "Makefile",
    ]:
        assert not re.search(r"\w==\w", (ROOT / name).read_text()), name
    assert not re.findall(r'"[\w-]+==', (ROOT / "pyproject.toml").read_text())


def test_conda_and_binder_install_the_same_as_pip() -> None:
    for name, up in [("environment.yml", ""), ("binder/environment.yml", "../")]:
        python, pip, packages = yaml.safe_load((ROOT / name).read_text())["dependencies"]
        assert pip == "pip"
        assert python == "python=" + PROJECT["project"]["requires-python"].removeprefix(">=")
        assert packages["pip"] == [f"-c {up}constraints.txt", f"-r {up}requirements.txt", f"-e {up or '.'}".rstrip("/")]
        for option in packages["pip"]:
            assert ((ROOT / name).parent / option.split()[1]).exists()


def test_the_library_imports_only_what_it_declares() -> None:
    declared = {_name(line) for line in PROJECT["project"]["dependencies"]}
    extras = {_name(line) for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines}
    owners = packages_distributions()
    for file in sorted((ROOT / "lib").rglob("*.py")):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for module in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"stepsize"}:
                allowed = declared if node in tree.body else declared | extras
                names = {_name(owner) for owner in owners.get(module, [module])}
                assert names & allowed, f"{file.name} imports {module}, which pyproject.toml does not declare"


# --- the two commands


def test_ci_runs_nothing_that_the_readme_lacks() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    told = [line.partition("#")[0].strip() for line in "".join(blocks).splitlines()]
    setting = ("set -", "cd ", "export DEBIAN_FRONTEND=")
    commands = [line for line in _lines(".ci/run") if not line.startswith(setting)]
    assert len(commands) == 2
    assert set(commands) <= set(told)
    assert commands[0].startswith("apt-get ") and commands[1] == "make test"


def test_the_readme_names_the_two_commands_and_make_knows_them() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"book", "test", "live", "clean", "help"} <= targets
    assert set(re.findall(r"`?\bmake ([a-z]+)`", readme)) | {"book", "test"} <= targets


def test_the_console_command_is_declared_and_its_module_is_there() -> None:
    module, _, function = PROJECT["project"]["scripts"]["stepsize"].partition(":")
    file = ROOT / "lib" / (module.replace(".", "/") + ".py")
    tree = ast.parse(file.read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_the_library_ships_what_is_not_python() -> None:
    shipped = PROJECT["tool"]["setuptools"]["package-data"]["stepsize"]
    folder = ROOT / "lib/stepsize"
    other = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert other == {path for pattern in shipped for path in folder.glob(pattern)}


def test_no_file_names_a_package_index_or_a_place_on_one_machine() -> None:
    # In pieces, so that this file does not hold what it looks for.
    hosts = ["pypi" + ".org", "pypi.python" + ".org", "pythonhosted" + ".org", "download.pytorch" + ".org"]
    places = ["/" + "work/", "/" + "tmp/", "/" + "home/", "/" + "root/"]
    for file in _files():
        text = file.read_text(encoding="utf-8", errors="ignore")
        for word in hosts + places:
            assert word not in text, f"{file.relative_to(ROOT)} holds {word}"


def test_every_source_file_says_first_what_it_is_for() -> None:
    for file in _files():
        if "submissions" in file.parts:
            # A wrong answer says how it must fail.
            assert re.match(r"# (named: \S|fails)", file.read_text("utf-8")), file.relative_to(ROOT)
        elif file.suffix == ".py":
            tree = ast.parse(file.read_text())
            assert ast.get_docstring(tree), f"{file.relative_to(ROOT)} has no first line that says what it is for"


# --- the book


def test_every_chapter_is_in_the_table_of_contents_and_on_the_contents_page() -> None:
    toc = (ROOT / "_toc.yml").read_text()
    contents = (ROOT / "book/contents.md").read_text()
    for path in ROOT.glob("chapters/*.ipynb"):
        assert re.search(rf"^ +- file: chapters/{path.stem}$", toc, re.MULTILINE), path.name
        assert f"(../chapters/{path.name})" in contents
    assert [int(n) for n in re.findall(r"^(?:: |  )(\d+)\. ", contents, re.MULTILINE)] == list(range(1, 24))
    assert len(re.findall(r"file: chapters/", toc)) == 23


def test_a_change_in_the_library_changes_the_hash_that_drops_the_cache(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    before = build_book.code_hash(tmp_path)
    assert build_book.code_hash(tmp_path) == before
    (tmp_path / "lib/stepsize/__pycache__").mkdir()
    (tmp_path / "lib/stepsize/__pycache__/x.pyc").write_bytes(b"compiled")
    assert build_book.code_hash(tmp_path) == before
    rule = tmp_path / "lib/stepsize/rules/sgd.py"
    text = rule.read_text()
    rule.write_text(text.replace("p - lr * g", "p + lr * g", 1))
    assert build_book.code_hash(tmp_path) != before
    rule.write_text(text)
    assert build_book.code_hash(tmp_path) == before
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    assert build_book.code_hash(tmp_path) != before


@pytest.fixture(scope="module")
def tiny_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book of three pages with the real settings, extension and build."""
    root = tmp_path_factory.mktemp("tiny") / "book root"
    (root / "lib").mkdir(parents=True)
    (root / "book").mkdir()
    (root / "chapters").mkdir()
    for name in ["_config.yml", "constraints.txt", "CITATION.cff", "book/glossary.md", "book/references.bib"]:
        shutil.copy(ROOT / name, root / name)
    for name in ["book/assets", "book/extensions"]:
        shutil.copytree(ROOT / name, root / name)
    (root / "lib/code.py").write_text('"""Nothing."""\n')
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: first\nchapters:\n- file: chapters/second\n- file: chapters/third\n"
    )
    (root / "first.md").write_text("# First\n\nText.\n")
    _write(root / "chapters/second.ipynb", "# Second", "print(1 + 1)")
    _write(root / "chapters/third.ipynb", "# Third", "print('ran ' * 2)")
    return root


def _write(path: Path, text: str, code: str) -> None:
    notebook = new_notebook(cells=[new_markdown_cell(text, id="text"), new_code_cell(code, id="code")])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def _build(root: Path) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "tools/build_book.py"), str(root)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return run.returncode, run.stdout


def test_a_failing_cell_fails_the_build_and_is_all_that_does(tiny_book: Path) -> None:
    _write(tiny_book / "chapters/second.ipynb", "# Second", "1 / 0")
    returncode, said = _build(tiny_book)
    assert returncode != 0
    assert "ZeroDivisionError" in said
    assert "running 2 notebooks" in said
    assert "ran ran" in (tiny_book / "_build/html/chapters/third.html").read_text()
    complaints = [line for line in said.splitlines() if "WARNING:" in line]
    assert complaints and all("second" in line and "notebook" in line.lower() for line in complaints)


def test_a_stray_warning_of_sphinx_or_of_python_fails_the_build(tiny_book: Path) -> None:
    code = "import warnings; warnings.warn('careful')"
    _write(tiny_book / "chapters/second.ipynb", "# Second\n\n{term}`no such term`", code)
    returncode, said = _build(tiny_book)
    assert returncode != 0
    assert "term not in glossary" in said
    assert "stderr was found" in said


def test_a_change_in_the_library_drops_what_was_run(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ["lib/rule.py", "constraints.txt", "_config.yml", "_toc.yml"]:
        (tmp_path / name).write_text("one")
    kept = [tmp_path / "_build" / name for name in (".jupyter_cache", "html", ".doctrees")]

    def build(fails: bool = False) -> list[str]:
        build_book.drop_what_is_stale(tmp_path)
        left = [folder.name for folder in kept if folder.exists()]
        for folder in kept:
            folder.mkdir(exist_ok=True)
        if not fails:
            (tmp_path / "_build/.unfinished").unlink()
        return left

    everything = [folder.name for folder in kept]
    assert build() == []
    assert build() == everything
    (tmp_path / "lib/rule.py").write_text("two")
    assert build() == []
    (tmp_path / "_toc.yml").write_text("two")
    assert build(fails=True) == [".jupyter_cache"]
    assert build() == [".jupyter_cache"]
    assert build() == everything


def test_the_settings_of_the_book_let_no_error_pass() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "cache"
    assert config["execute"]["allow_errors"] is False
    assert config["execute"]["timeout"] == 120
    assert "sphinx_thebe" not in config["sphinx"]["config"]["extensions"]
