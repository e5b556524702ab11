"""A run notebook as one HTML file that loads nothing, and that file as PDF."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Seconds that printing may take.
PATIENCE = 120

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #5a5f66; --ground: #fff; --line: #d5d8dc; --band: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e8; --soft: #a3a9b0; --ground: #16181b; --line: #3a3f45; --band: #202327; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--ground); color: var(--text);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1, h2, p, pre, figure, details { max-width: 46rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; }
p { margin: 0.7rem 0; }
a { color: inherit; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: 100%; max-width: 40rem; height: auto; border-radius: 4px; background: #fff; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.4rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; line-height: 1.35; }
th, td { padding: 0.35rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td { white-space: nowrap; }
td.words, th.words, td:first-child, th:first-child { text-align: left; }
td:first-child, td.words { white-space: normal; min-width: 4.5rem; }
td.words:last-child { min-width: 9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--band); padding: 0.7rem 0.9rem;
  border-radius: 4px; font: 0.85rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  margin: 0.8rem 0; }
code { font: 0.92em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre.error, pre.stderr { border-left: 4px solid #c62828; }
details { color: var(--soft); font-size: 0.85rem; margin: 0.4rem 0; }
summary { cursor: pointer; width: max-content; }
@media print { @page { margin: 18mm 16mm; } details { display: none; }
  body { padding: 0; max-width: none; font-size: 10.5pt; }
  figure, table, pre { break-inside: avoid; } h2 { break-after: avoid; } .wide { overflow: visible; }
  table { font-size: 8.5pt; } th, td, td:first-child { padding: 0.25rem 0.4rem; white-space: normal; min-width: 0; } }
"""


def html(notebook: Any) -> str:
    """The page of a run notebook: its text and results, the code folded."""
    body = "\n".join(parts(notebook, text=_markdown))
    title = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    name = re.sub(r"<[^>]+>", "", title[1]) if title else "Report"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}<title>{name}</title>\n<style>{STYLE}</style></head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def parts(
    notebook: Any, text: Callable[[str], str] = lambda text: text, raw: Callable[[str], str] = lambda text: text
) -> Iterator[str]:
    """A run notebook in order: what is Markdown through ``text``, what is HTML through ``raw``.

    The code of cells that show nothing goes into the fold of the next that does.
    """
    code: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield text(cell.source)
        elif cell.cell_type == "code" and cell.source.strip():
            code.append(cell.source)
            if cell.outputs:
                for one in cell.outputs:
                    words = _said(one)
                    yield raw(output(one)) if words is None else text(words)
                yield raw(fold(code))
                code = []
    if code:
        yield raw(fold(code))


def answer(notebook: Any) -> str:
    """The Markdown with which a run notebook answers its question: the first it shows."""
    return next(filter(None, (_said(one) for cell in notebook.cells for one in cell.get("outputs", []))), "")


def _said(one: Any) -> str | None:
    return "".join(one.data["text/markdown"]) if "text/markdown" in one.get("data", {}) else None


def fold(sources: Sequence[str]) -> str:
    """The code of one or more cells, folded."""
    return f"<details><summary>Code</summary><pre>{escape((chr(10) * 2).join(sources))}</pre></details>"


def output(one: Any) -> str:
    """One output of a cell, other than Markdown, in HTML."""
    from nbconvert.filters import ansi2html

    if one.output_type == "stream":
        return f'<pre class="{one.name}">{ansi2html(one.text)}</pre>'
    if one.output_type == "error":
        return f'<pre class="error">{ansi2html(chr(10).join(one.traceback))}</pre>'
    data = {kind: "".join(text) for kind, text in one.data.items() if isinstance(text, (str, list))}
    if "text/html" in data:
        return data["text/html"]
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png']}"
        return f'<figure><img alt="{escape(data.get("text/plain", ""))}" src="{source}"></figure>'
    return f"<pre>{escape(data.get('text/plain', ''))}</pre>"


def _markdown(text: str) -> str:
    from nbconvert.filters import markdown2html

    # The sign behind each heading that leads to it is of no use on one page.
    return re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(text))


def browser() -> str:
    """The program that prints; ``ValueError`` says how to get one."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise ValueError("a PDF is printed by Chromium, and none is installed: apt install chromium, or write .html")
    return found


def pdf(page: str, target: Path) -> None:
    """Print the HTML ``page`` into the file ``target``; ``OSError`` if the browser fails."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "page.html", Path(folder) / "page.pdf"
        source.write_text(page, "utf-8")
        command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [f"--user-data-dir={folder}/profile", "--disable-background-networking", "--no-pdf-header-footer"]
        command += [f"--print-to-pdf={made}", source.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if not made.exists():
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise OSError(f"Chromium did not print the page ({said})")
        shutil.move(made, target)
