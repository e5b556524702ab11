"""Build the book into _build/html: run what changed, two notebooks at a time, and let no warning pass."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import check_site
import make_slides
import yaml

PROCESSES = 2


def fingerprint(paths: Iterable[Path]) -> str:
    """One hash of the names and contents of the files at and below ``paths``, compiled files apart."""
    digest = hashlib.sha256(sys.version.encode())
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts and ".egg-info" not in str(file):
                digest.update(f"{file.relative_to(path.parent)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def code_hash(root: Path) -> str:
    """What the notebooks' results depend on beside their own cells: the library, the records and the versions."""
    records = [root / "book/results" / name for name in ("claims", "which-novograd.json")]
    return fingerprint([root / "lib", *records, root / "constraints.txt"])


def shell_hash(root: Path) -> str:
    """What every page depends on beside its own text: settings, table of contents, extension and assets."""
    return fingerprint([root / "_config.yml", root / "_toc.yml", root / "book/extensions", root / "book/assets"])


def source_hash(root: Path) -> str:
    """All that the site is made from."""
    folders = ["lib", "book", "chapters"]
    files = ["constraints.txt", "_config.yml", "_toc.yml", "genindex.md", "CHANGELOG.md", "tools/make_slides.py"]
    return fingerprint([root / part for part in (*folders, *files)])


def drop_what_is_stale(root: Path) -> None:
    """Remove caches that the tools themselves would wrongly keep.

    The execution cache knows only a notebook's own cells, not the library they call. Sphinx does not
    rebuild a page for a changed setting of an extension, nor repeat the warnings of a failed build.
    """
    build = root / "_build"
    pages = [build / "html", build / ".doctrees"]
    failed = build / ".unfinished"
    if failed.exists():
        _remove(pages)
    for name, now, stale in [
        (".code-hash", code_hash(root), [build / ".jupyter_cache", *pages]),
        (".shell-hash", shell_hash(root), pages),
    ]:
        known = build / name
        if not known.exists() or known.read_text() != now:
            _remove(stale)
            build.mkdir(exist_ok=True)
            known.write_text(now)
    failed.touch()


def run_notebooks(root: Path, timeout: int) -> None:
    """Execute the notebooks that the cache does not know, in parallel; a failure is left to the build to report."""
    from jupyter_cache import get_cache
    from jupyter_cache.executors.basic import ExecutionWorkerLocalMProc, ProcessData

    notebooks = [str(path.resolve()) for path in _pages(root) if path.suffix == ".ipynb"]
    if not notebooks:
        return
    cache = get_cache(str(root / "_build/.jupyter_cache"))
    for notebook in notebooks:
        cache.add_nb_to_project(notebook)
    jobs = [ProcessData(r.pk, r.uri, cache, timeout, False) for r in cache.list_unexecuted(filter_uris=notebooks)]
    if len(jobs) > 1:
        print(f"running {len(jobs)} notebooks, {PROCESSES} at a time", flush=True)
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            pool.map(ExecutionWorkerLocalMProc(), jobs, chunksize=1)


def build(root: Path) -> int:
    """Build the book of folder ``root``; 0 if every cell ran, no warning was given and the site is whole."""
    built, sources = root / "_build/.source-hash", source_hash(root)
    index = (root / "_build/html/index.html").resolve()
    if index.exists() and built.exists() and built.read_text() == sources:
        print(f"Nothing changed since the last build. The book is at {index}")
        return 0
    built.unlink(missing_ok=True)
    # An environment that asks for another backend would leave the pages without their figures.
    os.environ.pop("MPLBACKEND", None)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    drop_what_is_stale(root)
    run_notebooks(root, yaml.safe_load((root / "_config.yml").read_text())["execute"]["timeout"])
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*program, "build", str(root), "-W", "-n", "--keep-going"]
    if subprocess.run(command, check=False).returncode != 0:
        print("the book was NOT built: see the first warning above", file=sys.stderr)
        return 1
    make_slides.make_slides(root / "_build/html")
    problems = check_site.problems(root / "_build/html")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    (root / "_build/.unfinished").unlink()
    built.write_text(sources)
    print(f"The book is at {index}")
    return 0


def names_in_order(root: Path) -> list[str]:
    """What the table of contents names, in its order."""

    def named(entry: Any) -> Iterator[str]:
        if isinstance(entry, dict):
            yield from (entry[key] for key in ("root", "file") if key in entry)
            for key in ("parts", "chapters", "sections"):
                yield from named(entry.get(key, []))
        elif isinstance(entry, list):
            for one in entry:
                yield from named(one)

    return list(named(yaml.safe_load((root / "_toc.yml").read_text())))


def _pages(root: Path) -> list[Path]:
    """The files that the table of contents names."""
    return [
        root / f"{name}{suffix}"
        for name in sorted(names_in_order(root))
        for suffix in (".ipynb", ".md")
        if (root / f"{name}{suffix}").exists()
    ]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="the folder with _config.yml")
    sys.exit(build(parser.parse_args().root))
