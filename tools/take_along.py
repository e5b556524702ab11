"""The built book to take along: one PDF, printed by Chromium, and one zip that opens from a folder."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build_book
import check_site
from pypdf import PdfReader, PdfWriter
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Nothing is fetched: a page that asked another host for something would be printed without it.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-pdf-header-footer",
)


def make_zip(site: Path, target: Path) -> Path:
    """All of the site; unpacked, its index.html opens without a server."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(site.rglob("*")):
            if file.is_file() and file.suffix not in (".zip", ".pdf"):
                archive.write(file, Path("stepsize-book") / file.relative_to(site))
    return target


def make_pdf(site: Path, names: list[str], target: Path) -> Path:
    """The pages of the table of contents in its order, with a bookmark for each.

    Raises ``RuntimeError`` where no Chromium is installed, or it prints nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError("a PDF is printed by Chromium, and none is installed: apt-get install chromium")
    writer = PdfWriter()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(_print, browser, site / f"{name}.html", Path(scratch) / f"{n}") for n, name in enumerate(names)
        ]
        for name, job in zip(names, tqdm(jobs, desc="pages", leave=False), strict=True):
            first = len(writer.pages)
            writer.append(PdfReader(job.result()), import_outline=False)
            writer.add_outline_item(title=_title(site / f"{name}.html"), page_number=first)
    writer.add_metadata({"/Title": "Stepsize: the road from SGD to NovoGrad"})
    writer.compress_identical_objects()
    writer.write(target)
    return target


def _print(browser: str, page: Path, folder: Path) -> Path:
    folder.mkdir()
    out = folder / "page.pdf"
    # The time is virtual: enough for the mathematics to be set, and gone at once.
    command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [*command, f"--print-to-pdf={out}", page.as_uri()], capture_output=True, text=True, timeout=180
    )
    if not out.is_file():
        raise RuntimeError(f"Chromium did not print {page.name}: {done.stderr.strip()[-300:]}")
    return out


def _title(page: Path) -> str:
    title = check_site.soup(page).find("h1")
    return title.get_text().rstrip("#").strip() if title else page.stem


def main() -> int:
    """Make both; 1 if the book is not built or cannot be printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build/html", help="the built book")
    parser.add_argument("--pages", nargs="*", help="print these pages alone, such as chapters/05-adam")
    parser.add_argument("--to", type=Path, default=ROOT / "_build", help="where both go")
    given = parser.parse_args()
    if not (given.site / "index.html").is_file():
        print(f"there is no book in {given.site}: make book builds it", file=sys.stderr)
        return 1
    names = given.pages or build_book.names_in_order(ROOT)
    print(f"written: {make_zip(given.site, given.to / 'stepsize-book.zip')}")
    try:
        print(f"written: {make_pdf(given.site, names, given.to / 'stepsize-book.pdf')}")
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
