"""What every page gets: pictures that keep their place, words on terms, how to cite it; and the files around them."""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
PICTURE = re.compile(r'<img(?P<before>[^>]*?)src="(?P<src>[^":]+\.png)"(?P<after>[^>]*?)/?>')
TERM = re.compile(r'<a class="reference internal" href="(?P<to>[^"#]*#term-(?P<slug>[^"]+))">')


def finish(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Change the body of one page before it is written, and where its button for Colab leads."""
    if "body" not in context or doctree is None:
        return
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if "url" in button:
                # The notebooks of that branch begin with the cell that installs what they need.
                button["url"] = re.sub(r"(colab\..*/blob)/main/", r"\1/notebooks/", button["url"])
    folder = Path(app.outdir) / Path(page).parent
    body = PICTURE.sub(lambda found: _sized(found, app, folder), context["body"])
    if not page.endswith("glossary"):
        body = TERM.sub(_with_words, body)
    # The older role is given up, and a list must hold items.
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    context["body"] = body + _citation(context["title"], page, app.config.html_baseurl)


def _sized(found: re.Match[str], app: Sphinx, folder: Path) -> str:
    """The picture with its width and height, so that nothing jumps when it comes, which is when it is looked at."""
    name = Path(found["src"]).name
    source = next((path for path in app.env.images if Path(app.env.images[path][1]).name == name), None)
    files = [Path(app.outdir) / "_images" / name, *([Path(app.srcdir) / source] if source else [])]
    rest = f"{found['before']}{found['after']}"
    size = next((_size(str(file)) for file in files if file.is_file()), None)
    if size is None or "loading=" in rest:
        return found[0]
    width = re.search(r"width:\s*([\d.]+)px", rest)
    shown = float(width[1]) if width else size[0] / 2
    sized = "" if "height=" in rest else f' width="{round(shown)}" height="{round(shown * size[1] / size[0])}"'
    # A style of one width alone would beat the page's own rule, by which a picture shrinks on a phone.
    rest = re.sub(r'\s*style="width:\s*[\d.]+px;?"', "", rest)
    return f'<img{rest.rstrip()} src="{found["src"]}"{sized} loading="lazy" decoding="async">'


@cache
def _size(file: str) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def _with_words(found: re.Match[str]) -> str:
    words = _glossary().get(found["slug"])
    return found[0] if words is None else f'<a class="reference internal" title="{escape(words)}" href="{found["to"]}">'


@cache
def _glossary() -> dict[str, str]:
    """The first sentence about each term, by the last part of its address."""
    text = (ROOT / "book/glossary.md").read_text("utf-8").split("```{glossary}")[1].split("```")[0]
    found: dict[str, str] = {}
    terms: list[str] = []
    for entry in re.split(r"\n\s*\n", text.strip()):
        lines = entry.splitlines()
        terms = [line.strip() for line in lines if not line.startswith(" ")]
        words = " ".join(line.strip() for line in lines if line.startswith(" "))
        words = re.sub(r"\{\w+\}`([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", words)
        words = re.sub(r"[*$`]|\\(?=[a-z])", "", words)
        first = re.split(r"(?<=\.)\s", words)[0]
        for term in terms:
            found[re.sub(r"[^\w]+", "-", term).strip("-")] = first
    return found


@cache
def _about() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def _citation(title: str, page: str, base: str) -> str:
    """A folded box that says how to cite the page."""
    about, plain = _about(), re.sub(r"<[^>]+>", "", title)
    version, year = about["version"], re.sub(r"\D", "", str(about.get("date-released", "2026")))[:4]
    author, book = about["authors"][0]["name"], about["title"]
    address = f"{base}{page}.html"
    key = "stepsize-" + re.sub(r"[^a-z0-9]+", "-", Path(page).name)
    bibtex = (
        f"@incollection{{{key},\n  title = {{{plain}}},\n  author = {{{{{author}}}}},\n  booktitle = {{{book}}},\n"
        f"  edition = {{version {version}}},\n  year = {{{year}}},\n  url = {{{address}}},\n}}"
    )
    line = f"{author}. “{plain}”. In: {book}, version {version}, {year}. {address}"
    return (
        f'<details class="stepsize-cite"><summary>Cite this page</summary><p>{escape(line)}</p>'
        f'<pre tabindex="0">{escape(bibtex)}</pre></details>'
    )


def add_install_cell(app: Sphinx, error: Exception | None) -> None:
    """The notebooks that a reader downloads begin by installing what they need, where it is not there."""
    if error is not None or app.builder.format != "html":
        return
    repository = app.config.html_theme_options["repository_url"]
    for file in sorted((Path(app.outdir) / "_sources/chapters").glob("*.ipynb")):
        notebook = json.loads(file.read_text("utf-8"))
        if notebook["cells"][1].get("id") != "install":
            source = INSTALL.format(repository=repository, folder=repository.rpartition("/")[2])
            cell = {"cell_type": "code", "id": "install", "metadata": {}, "execution_count": None, "outputs": []}
            notebook["cells"].insert(1, {**cell, "source": source.splitlines(keepends=True)})
            file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


# In Colab, or in any folder. The clone carries the recorded results that the chapters draw from.
INSTALL = """\
# Installs what this notebook needs, unless it is here already.
import importlib.util, sys
if importlib.util.find_spec("stepsize") is None:
    !git clone --quiet --depth 1 {repository}
    %pip install --quiet -e "{folder}[tasks]"
    sys.path.insert(0, "{folder}/lib")
"""


def write_around(app: Sphinx, error: Exception | None) -> None:
    """What stands beside the pages: ``sitemap.xml``, ``robots.txt``, and ``404.html`` for an address that is none."""
    if error is not None or app.builder.format != "html":
        return
    site, base = Path(app.outdir), app.config.html_baseurl
    pages = sorted(page for page in app.env.found_docs if page not in ("search", "genindex", "index"))
    rows = "\n".join(f"  <url><loc>{base}{page}.html</loc></url>" for page in pages)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    (site / "sitemap.xml").write_text(f"{head}{rows}\n</urlset>\n", "utf-8")
    (site / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n", "utf-8")
    chapters = [page for page in pages if page.startswith("chapters/")]
    links = "\n".join(f'<li><a href="{base}{page}.html">{app.env.titles[page].astext()}</a></li>' for page in chapters)
    (site / "404.html").write_text(NOT_FOUND.format(base=base, links=links), "utf-8")


# A server shows it under any address, so that it can neither ask for a style sheet beside it nor link to a neighbour.
NOT_FOUND = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not found: Stepsize</title>
<style>:root {{ color-scheme: light dark; }}
body {{ font: 1.1rem/1.6 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}</style></head>
<body><main><h1>A step too far</h1>
<p>There is no page at this address. Begin at <a href="{base}book/welcome.html">the first page</a>, look into
<a href="{base}search.html">the search</a>, or choose a chapter:</p><ul>
{links}
</ul></main></body></html>
"""


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", finish, priority=900)
    app.connect("build-finished", write_around)
    app.connect("build-finished", add_install_cell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
