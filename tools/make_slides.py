"""Lecture slides from the built chapters: headings, first sentences, equations, rules and figures, shown by reveal.js.

reveal.js is copied in from the installed package sphinx-revealjs; a slide loads nothing from another host.
"""

from __future__ import annotations

import copy
import re
import shutil
import sys
from collections.abc import Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag

# The parts of reveal.js that a slide loads.
REVEAL = ("reveal.js", "reveal.css", "reset.css")
LEFT_OUT = {"exercises"}
STYLE = """
.reveal { font: 30px/1.4 system-ui, sans-serif; color: #1a1a1a; } body { background: #fff; }
.reveal .slides { text-align: left; } .reveal h1 { font-size: 2.2em; line-height: 1.15; margin: 0 0 .5em; }
.reveal h2 { font-size: 1.35em; line-height: 1.2; margin: 0 0 .7em; } .reveal h2.small { font-size: .8em; color: #555; }
.reveal p { margin: 0 0 .8em; } .reveal ul { margin: 0 0 .8em 1.2em; } .reveal li { margin: .3em 0; }
.reveal figure { margin: 0; text-align: center; } .reveal figcaption { font-size: .65em; color: #444; }
.reveal img { max-width: 100%; max-height: 500px; } .reveal svg.picture { max-height: 480px; margin: 0 auto; }
.reveal pre { background: #f3f3f3; padding: .8em; font-size: .62em; line-height: 1.45; overflow: auto; }
.reveal code { font-family: ui-monospace, monospace; font-size: .9em; } .reveal a { color: #0b57d0; }
.reveal .slide-number { background: none; color: #555; right: auto; left: 8px; }
.reveal h2 + p + figure img, .reveal h2 + p + figure svg.picture { max-height: 400px; }
.reveal .more { font-size: .65em; } .reveal em { font-style: italic; } .reveal strong { font-weight: 650; }
"""
# Lines of the start: keys, hash in the address, and no animation for those who do not want one.
START = """
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
Reveal.initialize({ hash: true, slideNumber: 'c/t', transition: calm ? 'none' : 'slide', width: 1100, height: 700,
  margin: 0.06, center: false, pdfSeparateFragments: false });
"""


def make_slides(site: Path) -> list[Path]:
    """Write ``slides/NN-name.html`` for every chapter of the built ``site``; return the files."""
    chapters = sorted((site / "chapters").glob("[0-9]*.html"))
    if not chapters:
        return []
    target = site / "_static" / "reveal"
    target.mkdir(parents=True, exist_ok=True)
    for name in REVEAL:
        shutil.copy2(reveal_folder() / name, target / name)
    shutil.copy2(reveal_folder().parent / "LICENSE", target / "LICENSE")
    folder = site / "slides"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = []
    for page in chapters:
        path = folder / page.name
        path.write_text(deck(page), encoding="utf-8")
        written.append(path)
    return written


def reveal_folder() -> Path:
    """Where the installed package sphinx-revealjs keeps reveal.js."""
    spec = find_spec("sphinx_revealjs")
    if spec is None or spec.origin is None:
        raise SystemExit("sphinx-revealjs is not installed: run make book, which sets it up")
    return Path(spec.origin).parent / "_static" / "revealjs" / "dist"


def deck(page: Path) -> str:
    """The slides of one chapter as a page."""
    parsed = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    article = parsed.find("article")
    for needless in article.select("a.headerlink, script, .cell_input, details, .bibtex-citation"):
        needless.decompose()
    for math in article.find_all(class_="math"):
        math.attrs.pop("id", None)
    title = _text(article.find("h1"))
    slides = [slide for slide in _slides(article, page.name) if slide]
    settings = next((str(s) for s in parsed.find_all("script") if "window.MathJax" in s.get_text()), "")
    script = f'{settings}<script defer src="../_static/mathjax/tex-chtml.js"></script>'
    mathematics = script if 'class="math' in "".join(slides) or "\\[" in "".join(slides) else ""
    styles = "".join(f'<link rel="stylesheet" href="../_static/reveal/{name}">' for name in ("reset.css", "reveal.css"))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: slides</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{styles}<style>{STYLE}</style>'
        f'{mathematics}</head><body><main class="reveal"><div class="slides">\n'
        + "\n".join(f"<section>{slide}</section>" for slide in slides)
        + f'\n</div></main><script src="../_static/reveal/reveal.js"></script><script>{START}</script></body></html>\n'
    )


def _slides(article: Tag, name: str) -> Iterator[str]:
    link = f"../chapters/{name}"
    top = article.find("section")
    lead = next((p for p in top.find_all("p", recursive=False)), None)
    goals = top.find("ul", recursive=False)
    yield (
        f"<h1>{escape(_text(article.find('h1')))}</h1>{_whole(lead)}{_whole(goals)}"
        f'<p class="more"><a href="{link}">The chapter</a>. Arrow keys turn, F fills the screen, Esc shows all.</p>'
    )
    for section in top.find_all("section", recursive=False):
        anchor = section.get("id", "")
        heading = escape(_text(section.find("h2")))
        if anchor in LEFT_OUT or not heading:
            continue
        if section.find("ul", recursive=False) and "five" in anchor:
            yield f"<h2>{heading}</h2>{_whole(section.find('ul', recursive=False))}"
            continue
        first = section.find("p", recursive=False)
        equations = section.select(".output.text_latex")[:1]
        rules = section.select("pre.stepsize-rule")[:1]
        shown = "".join(_whole(part) for part in [*equations, *rules])
        figures = section.find_all("figure")
        if not shown:
            shown = "".join(_whole(part) for part in section.find_all("div", class_="math", recursive=False)[:1])
        if not shown and figures:
            shown = _figure(figures.pop(0), link, anchor)
        yield f"<h2>{heading}</h2><p>{first_sentence(first)}</p>{shown}"
        for figure in figures:
            yield f'<h2 class="small">{heading}</h2>{_figure(figure, link, anchor)}'
    exercises = [_text(p) for p in article.select(".exercise > p.admonition-title")]
    if exercises:
        yield (
            f"<h2>Exercises</h2><p>{len(exercises)} in the chapter: "
            f'<a href="{link}#exercises">{escape(exercises[0])} to {escape(exercises[-1])}</a>.</p>'
        )


def _figure(figure: Tag, link: str, anchor: str) -> str:
    """One figure: its picture with its words, and its caption."""
    caption = figure.find("figcaption")
    words = _inner(caption) if caption else ""
    picture = figure.find("svg", class_="picture")
    if picture is not None:
        drawn = str(picture)
        words += f' <a href="{link}#{anchor}">Move its sliders in the chapter</a>.'
    else:
        image = figure.find("img")
        if image is None:
            return ""
        drawn = f'<img src="{escape(image["src"])}" alt="{escape(image.get("alt", ""))}">'
    return f"<figure>{drawn}<figcaption>{words}</figcaption></figure>"


def first_sentence(paragraph: Tag | None) -> str:
    """The first sentence of a paragraph, with its markup, its links taken out."""
    if paragraph is None:
        return ""
    parts = []
    for node in _unlinked(paragraph).children:
        if isinstance(node, NavigableString):
            end = re.search(r"[.:?!](?=\s|$)", str(node))
            parts.append(escape(str(node)[: end.end()] if end else str(node), quote=False))
            if end:
                break
        else:
            parts.append(str(node))
            if re.search(r"[.:?!]$", node.get_text().strip()) and node.name in ("strong", "em"):
                break
    return re.sub(r":$", ".", "".join(parts).strip())


def _unlinked(node: Tag) -> Tag:
    """A copy whose links are plain text, and which has no anchors: they lead about in the chapter."""
    copied = copy.copy(node)
    for inner in copied.find_all(True):
        inner.attrs.pop("id", None)
    for anchor in copied.find_all("a"):
        anchor.unwrap()
    return copied


def _whole(node: Tag | None) -> str:
    return "" if node is None else str(_unlinked(node))


def _inner(node: Tag) -> str:
    return _unlinked(node).decode_contents().strip().removeprefix("<p>").removesuffix("</p>")


def _text(node: Tag) -> str:
    return " ".join(node.get_text().split()).removesuffix("#").strip()


if __name__ == "__main__":
    for made in make_slides(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")):
        print(made)
