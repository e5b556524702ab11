"""Run a report, or a grid of them, into HTML, PDF or a notebook: what ``stepsize report`` does."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..rules.base import suggestion
from ..store import Store
from . import page
from .notebook import FOLDER, OUTPUT
from .parameters import Parameter, checked, read

KINDS = (".html", ".pdf", ".ipynb")
MANIFEST = "manifest.json"
Say = Callable[[str], Any]


class Failed(Exception):
    """A report did not come to its end; the message says where, and what is left of it."""


@dataclass(frozen=True)
class Report:
    """One of the notebooks: its name, the question it answers, its parameters, and where it lies."""

    name: str
    question: str
    parameters: dict[str, Parameter]
    path: Path

    @property
    def sources(self) -> list[str]:
        """The text of each cell: what a recorded run of it is compared with."""
        return [_source(cell) for cell in _cells(self.path)]


def reports() -> dict[str, Report]:
    """All reports, by name; ``ValueError`` where the notebooks are missing."""
    found = {path.stem: _report(path) for path in sorted(FOLDER.glob("*.ipynb"))}
    if not found:
        raise ValueError(f"there are no reports in {FOLDER}: they come with the repository, not with the package")
    return found


def find(name: str) -> Report:
    """The report of that name; ``ValueError`` names the nearest known one."""
    known = reports()
    if name not in known:
        raise ValueError(f"there is no report {name!r}{suggestion(name, known)}")
    return known[name]


def is_fresh(report: Report, recorded: Any) -> bool:
    """Whether a run notebook is a run of the report as it stands."""
    own = [cell.source for cell in recorded.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return own == report.sources and set(recorded.metadata.stepsize.parameters) == set(report.parameters)


def _report(path: Path) -> Report:
    cells = _cells(path)
    question = _source(cells[0]).splitlines()[0].lstrip("# ")
    settings = next(_source(cell) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    return Report(path.stem, question, read(settings), path)


def _cells(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text("utf-8"))["cells"])


def _source(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


def write(name: str, given: Mapping[str, str], output: str, timeout: float | None = None, say: Say = print) -> Path:
    """Run the report ``name`` with parameters ``given`` as text, and write ``output``: .html, .pdf or .ipynb.

    Its runs are kept beside it, in a store of the same name, unless the parameter ``store`` says another: repeated,
    it trains only what is missing. ``timeout`` is in seconds, for the whole report. Raises ``ValueError``, in one
    sentence and before anything starts, for what is wrong in the input, and :class:`Failed` if a cell fails.
    """
    began = time.monotonic()
    report = find(name)
    target = _target(output)
    if "store" in report.parameters and "store" not in given:
        given = {**given, "store": str(target.with_suffix(".db"))}
    values = checked(report.parameters, given)
    part = target.with_name(f"{target.stem}.part.ipynb")
    with _told(output), tempfile.TemporaryDirectory(prefix="stepsize-") as sockets:
        # Two processes that start at once may want one port; sockets that are files can be each one's own.
        talk = {} if os.name == "nt" else {"transport": "ipc", "ip": f"{sockets}/kernel"}
        notebook = _run(report, values, part, talk, timeout, say)
    tidy(notebook, report, values, time.monotonic() - began)
    if (kept := values.get("store")) and Path(kept).exists():
        # Its process is gone without a word: what it left beside the store is folded into it.
        Store(kept, check=False).close()
    _convert(notebook, target)
    part.unlink(missing_ok=True)
    say(f"written: {target} ({time.monotonic() - began:.0f} s)")
    return target


def _target(output: str) -> Path:
    """The file to write, if it can be written."""
    target = Path(output)
    if target.suffix not in KINDS:
        raise ValueError(f"output must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {output!r}")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {target.parent} to hold {target.name}")
    if target.is_dir() or not os.access(target.absolute().parent, os.W_OK):
        raise ValueError(f"{output} cannot be written: name another file")
    for package in ("papermill", "nbconvert", "ipykernel"):
        if find_spec(package) is None:
            raise ValueError(f"a report needs {package}: pip install 'stepsize[report]'")
    if target.suffix == ".pdf":
        page.browser()
    return target


@contextmanager
def _told(output: str) -> Iterator[None]:
    """The notebook's last cell prints the command, which knows its output."""
    before = os.environ.get(OUTPUT)
    os.environ[OUTPUT] = output
    try:
        yield
    finally:
        if before is None:
            del os.environ[OUTPUT]
        else:
            os.environ[OUTPUT] = before


def _run(
    report: Report, values: Mapping[str, Any], part: Path, talk: dict[str, str], timeout: float | None, say: Say
) -> Any:
    """The notebook, run cell by cell; after each, ``part`` holds what is done. ``talk``: how to reach its process."""
    import papermill
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    began, place = time.monotonic(), ["before its first cell"]
    titles = _titles(report)
    left = dict(enumerate(titles, start=1))

    def remaining(cell: Any) -> float | None:
        return None if timeout is None else max(0.1, timeout - (time.monotonic() - began))

    def start(cell: Any, cell_index: int) -> None:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            return
        number = next(iter(left))
        title = left.pop(number)
        place[0] = f"in cell {number} of {len(titles)} ({title})"
        say(f"[{number}/{len(titles)}] {time.monotonic() - began:4.0f} s  {title}")

    def kept() -> str:
        return f"; the notebook up to there is {part}" if part.exists() else ""

    part.unlink(missing_ok=True)
    try:
        return papermill.execute_notebook(
            report.path,
            part,
            dict(values),
            kernel_name="python3",
            progress_bar=False,
            cwd=Path.cwd(),
            timeout_func=remaining,
            on_cell_execute=start,
            config=Config({"KernelManager": talk}),
            # What it made is written; asked politely it takes five seconds to go.
            shutdown_kernel="immediate",
        )
    except PapermillExecutionError as error:
        raise Failed(f"{report.name} failed {place[0]}: {error.ename}: {error.evalue}{kept()}") from None
    except CellTimeoutError:
        again = "finished runs are kept: the same command with more time goes on from there"
        raise Failed(f"{report.name} was stopped {place[0]} after its {timeout:g} s; {again}{kept()}") from None
    except RuntimeError as error:
        if "Kernel" not in str(error):
            raise
        raise Failed(
            f"{report.name} lost its process {place[0]}, perhaps for want of memory ({error}){kept()}"
        ) from None


def _titles(report: Report) -> list[str]:
    """For each cell of code but the parameters, the heading it stands under."""
    found, heading = [], "The answer"
    for cell in _cells(report.path):
        text = _source(cell)
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^##+ (.*)", text, re.MULTILINE)
            heading = headings[-1] if headings else heading
        elif text.strip() and "parameters" not in cell["metadata"].get("tags", []):
            found.append(heading)
    return found


def tidy(notebook: Any, report: Report, values: Mapping[str, Any], seconds: float) -> None:
    """Put the notebook's header in place of what papermill notes of this machine."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for noted in ("papermill", "execution"):
            cell.metadata.pop(noted, None)
    notebook.metadata["stepsize"] = {
        "report": report.name,
        "parameters": dict(values),
        "seconds": round(seconds),
        "stepsize": metadata.version("stepsize"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _convert(notebook: Any, target: Path) -> None:
    import nbformat

    # Written beside and moved: a report that is there is whole.
    fresh = target.with_name(f".{target.name}")
    if target.suffix == ".ipynb":
        nbformat.write(notebook, fresh)
    elif target.suffix == ".html":
        fresh.write_text(page.html(notebook), "utf-8")
    else:
        page.pdf(page.html(notebook), fresh)
    fresh.replace(target)


# --- many -----------------------------------------------------------------------------------------------------------


def points(texts: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of ``name=a,b``; a value that has commas stands in brackets: ``name=[a,b],[c]``."""
    axes = {}
    for text in texts:
        name, equals, values = text.partition("=")
        listed = re.findall(r"\[([^\]]*)\]|([^,\[\]]+)", values)
        if not equals or not name or not listed:
            raise ValueError(f"grid must be NAME=A,B with values, such as seeds=3,5, got {text!r}")
        if name in axes:
            raise ValueError(f"the grid has {name!r} twice")
        axes[name] = [inside or plain for inside, plain in listed]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def write_grid(
    name: str,
    given: Mapping[str, str],
    grid: Sequence[str],
    folder: str,
    kind: str = "html",
    jobs: int | None = None,
    timeout: float | None = None,
    say: Say = print,
) -> list[str]:
    """Run the report at each point of ``grid`` into ``folder``, ``jobs`` at a time; the names of those that failed.

    What the folder's manifest has as done, with these parameters and this notebook, is not done again. All share one
    store, so that no run is trained twice. Raises ``ValueError`` before anything starts, as :func:`write` does.
    """
    report = find(name)
    if f".{kind}" not in KINDS:
        raise ValueError(f"format must be one of html, pdf, ipynb, got {kind!r}")
    if Path(folder).suffix in KINDS:
        raise ValueError(f"a grid is written into a folder, got the file {folder!r}")
    if not Path(folder).absolute().parent.is_dir():
        raise ValueError(f"there is no folder {Path(folder).parent} to hold {Path(folder).name}")
    where = Path(folder)
    if "store" in report.parameters and "store" not in given:
        given = {**given, "store": str(where / "runs.db")}
    todo = {}
    existed = where.is_dir()
    where.mkdir(exist_ok=True)
    try:
        for point in points(grid):
            if twice := sorted(point.keys() & given.keys() - {"store"}):
                raise ValueError(f"{twice[0]} is given both by -p and by the grid")
            checked(report.parameters, {**given, **point})
            todo[_file(name, point, kind)] = {**given, **point}
            _target(str(where / _file(name, point, kind)))
    except ValueError:
        if not existed:
            where.rmdir()
        raise
    known = _manifest(where)
    sources = report.sources
    done = {file for file in todo if _is_done(known.get(file), todo[file], sources, where / file)}
    say(f"{len(todo)} reports: {len(done)} done already, {len(todo) - len(done)} to do")
    failed = []
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        began = {
            pool.submit(_child, name, todo[file], where / file, timeout): file for file in todo if file not in done
        }
        try:
            for future in as_completed(began):
                file, (error, seconds) = began[future], future.result()
                known[file] = {
                    "parameters": todo[file],
                    "sources": sources,
                    "status": "failed" if error else "done",
                    "error": error,
                    "seconds": round(seconds, 1),
                    "date": f"{datetime.now(UTC):%Y-%m-%d}",
                }
                _keep(where, name, known)
                say(f"{'FAILED' if error else 'done':<6} {seconds:5.0f} s  {file}" + (f": {error}" if error else ""))
                failed += [file] * bool(error)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _file(name: str, point: Mapping[str, str], kind: str) -> str:
    """The file of a point, named by what is its own."""
    own = ",".join(f"{key}={value}" for key, value in point.items())
    return f"{name}-{re.sub(r'[^A-Za-z0-9=.,@_-]+', '_', own)}.{kind}"


def _manifest(where: Path) -> dict[str, dict[str, Any]]:
    with suppress(FileNotFoundError):
        try:
            return dict(json.loads((where / MANIFEST).read_text("utf-8"))["reports"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{where / MANIFEST} is damaged: delete it, and all reports are made again") from None
    return {}


def _keep(where: Path, name: str, known: Mapping[str, Any]) -> None:
    fresh = where / f".{MANIFEST}"
    fresh.write_text(json.dumps({"report": name, "reports": known}, indent=1) + "\n", "utf-8")
    fresh.replace(where / MANIFEST)


def _is_done(entry: Mapping[str, Any] | None, given: Mapping[str, str], sources: Sequence[str], file: Path) -> bool:
    if entry is None or entry["status"] != "done" or not file.is_file():
        return False
    return entry["parameters"] == dict(given) and entry["sources"] == list(sources)


def _child(name: str, given: Mapping[str, str], file: Path, timeout: float | None) -> tuple[str, float]:
    """Run one in a process of its own: what it failed of (nothing if it did not), and its seconds."""
    began = time.monotonic()
    words = [word for key, value in given.items() for word in ("-p", f"{key}={value}")]
    words += ["--timeout", f"{timeout}"] if timeout else []
    command = [sys.executable, "-m", "stepsize.cli", "report", name, *words, "-o", str(file)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    said = (run.stderr.strip().splitlines() or [f"it ended with exit code {run.returncode}"])[-1]
    return "" if run.returncode == 0 else said.removeprefix("stepsize: "), time.monotonic() - began
