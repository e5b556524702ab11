"""The built site: whole, sufficient to itself, readable at every width, and its figures alive without a kernel."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import check_site
import nbformat
import pytest
import selenium_axe_python
import take_along
import yaml
from pypdf import PdfReader
from stepsize import claims
from stepsize.rules import RULES
from stepsize.rules.base import SYMBOLS

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build/html"
SCREENSHOTS = ROOT / "_build/screenshots"
PHONE, TABLET, DESKTOP = 390, 820, 1280

PAGES = [str(page.relative_to(SITE)) for page in check_site.pages(SITE)]
READ = [page for page in PAGES if page != "index.html"]  # which only leads to the welcome page
CHAPTERS = [page for page in PAGES if page.startswith("chapters/")]


def test_the_site_is_built() -> None:
    assert PAGES, "there is no _build/html: run make book first"
    assert CHAPTERS


def test_the_first_page_leads_to_the_welcome() -> None:
    onward = check_site.soup(SITE / "index.html").find("meta", attrs={"http-equiv": "Refresh"})
    assert onward["content"].endswith("url=book/welcome.html")


def test_every_page_of_the_table_of_contents_is_built() -> None:
    for name in _files(yaml.safe_load((ROOT / "_toc.yml").read_text())):
        assert f"{name}.html" in PAGES


def test_nothing_is_loaded_from_another_host() -> None:
    assert check_site.third_party_loads(SITE) == []


def test_no_link_within_the_site_is_broken() -> None:
    assert check_site.broken_links(SITE) == []


def test_every_picture_has_alt_text() -> None:
    assert check_site.pictures_without_words(SITE) == []


def test_the_check_sees_what_is_wrong_with_a_page(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(
        '<h1 id="top">x</h1><img src="data:," alt="a line"><a href="https://a.org">y</a>'
    )
    assert check_site.problems(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<script src="https://cdn.example/x.js"></script><link rel="stylesheet" href="//cdn.example/x.css">'
        '<style>@import "https://cdn.example/y.css"; p { background: url(https://cdn.example/z.png) }</style>'
        '<script type="module">import x from "https://cdn.example/m.js"; fetch("https://cdn.example/d.json")</script>'
        '<a href="nowhere.html">a</a><a href="good.html#bottom">b</a><a href="good.html#top">c</a><img src="good.html">'
        '<meta http-equiv="Refresh" content="0; url=gone.html">'
    )
    found = check_site.problems(tmp_path)
    assert len(found) == 10
    loads = ["x.js", "x.css", "y.css", "z.png", "m.js", "d.json"]
    for words in [*loads, "nowhere.html", "gone.html", "#bottom", "no alt text"]:
        assert [line for line in found if words in line], words


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_offers_its_notebook(page: str) -> None:
    source = Path(page).with_suffix(".ipynb")
    links = {node.get("href") for node in check_site.soup(SITE / page).find_all("a")}
    assert f"../_sources/{source}" in links
    offered, ours = (nbformat.read(folder / source, 4) for folder in (SITE / "_sources", ROOT))
    assert [cell for cell in offered.cells if cell.id != "install"] == ours.cells


@pytest.mark.parametrize("page", CHAPTERS)
def test_figures_drawn_by_a_chapter_have_a_caption(page: str) -> None:
    for image in check_site.soup(SITE / page).select(".cell_output img"):
        figure = image.find_parent("figure")
        assert figure is not None and figure.find("figcaption") is not None, f"no caption: {image.get('alt')}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_has_the_number_of_its_file(page: str) -> None:
    number = check_site.soup(SITE / page).select_one("h1 .section-number")
    assert number.get_text().strip(" .") == str(int(Path(page).name[:2]))


def test_the_ledger_shows_every_claim() -> None:
    ledger = check_site.soup(SITE / "book/claims.html")
    for claim in claims.CLAIMS.values():
        assert claim.says in ledger.find(id=claim.id).get_text()


def test_the_notation_page_has_words_for_every_symbol() -> None:
    rows = [row.find_all("td") for row in check_site.soup(SITE / "book/notation.html").select("table tr")]
    rows = [cells for cells in rows if len(cells) == 3]
    assert len(rows) == len(SYMBOLS)
    for cells in rows:
        assert all(cell.get_text(strip=True) for cell in cells), (
            f"book/notation.md has no words for {cells[1].get_text()}"
        )


@pytest.mark.parametrize("page", READ)
def test_a_page_works_from_a_folder_without_network(browser: Any, page: str) -> None:
    _open(browser, page, DESKTOP)
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert complaints == []
    marked = len(check_site.soup(SITE / page).select(".math"))
    drawn = browser.execute_script("return document.querySelectorAll('mjx-container').length")
    errors = browser.execute_script("return [...document.querySelectorAll('mjx-merror')].map(e => e.textContent)")
    assert errors == []
    assert drawn >= marked
    if page in CHAPTERS:
        assert drawn > 0
    for width in (PHONE, TABLET, DESKTOP):
        for theme in ("light", "dark"):
            _show(browser, width, theme)
            if theme == "light":
                wide = browser.execute_script(TOO_WIDE)
                assert wide == [], f"{page} scrolls sideways at {width} pixels"
            _photograph(browser, f"{page.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png")


@pytest.mark.parametrize("page", READ)
def test_a_page_keeps_the_rules_for_everyone(browser: Any, page: str) -> None:
    """WCAG 2.2 to level AA, as far as axe-core can see it; then what another mode and another width can change."""
    script = (Path(selenium_axe_python.__file__).parent / "axe-core/axe.min.js").read_text("utf-8")
    levels = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    colours = {"type": "rule", "values": ["color-contrast"]}
    places = {"type": "rule", "values": ["target-size", "scrollable-region-focusable"]}
    _open(browser, page, DESKTOP)
    browser.execute_script(script)
    for width, theme, rules in ((DESKTOP, "light", levels), (DESKTOP, "dark", colours), (PHONE, "light", places)):
        _show(browser, width, theme)
        # Colours fade into those of the other mode; what has come to scroll is opened to the keyboard a moment later.
        browser.execute_async_script("setTimeout(arguments[0], 600)")
        found = browser.execute_async_script(AXE, rules)
        assert found == [], f"at {width} pixels, {theme}"


@pytest.mark.parametrize("page", READ)
def test_a_page_is_no_heavier_than_it_may_be(browser: Any, page: str) -> None:
    """A page with an explorable figure and no mathematics: 1.0 MB; what MathJax and figures add is bounded, too."""
    _open(browser, page, DESKTOP)
    names = browser.execute_script(
        "return [location.href, ...performance.getEntriesByType('resource').map(entry => entry.name)]"
    )
    files = {Path(unquote(urlsplit(name).path)) for name in names if name.startswith("file:")}
    sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
    pictures = sum(size for name, size in sizes.items() if name.endswith((".png", ".svg", ".jpg")))
    mathematics = sum(size for file in files if "mathjax" in str(file) for size in [file.stat().st_size])
    rest = sum(sizes.values()) - pictures - mathematics
    print(f"{page}: {rest / 1e6:.2f} MB, pictures {pictures / 1e6:.2f}, mathematics {mathematics / 1e6:.2f}")
    assert rest <= 1.0e6 + 0.1e6 * page.startswith("chapters/"), sorted(sizes.items(), key=lambda item: -item[1])[:6]
    assert pictures <= 1.5e6 and mathematics <= 1.6e6


@pytest.mark.parametrize("page", CHAPTERS)
def test_pictures_of_a_chapter_load_late_and_keep_their_place(page: str) -> None:
    pictures = check_site.soup(SITE / page).select("article .cell_output img[src$='.png'], article figure img")
    assert pictures
    for picture in pictures:
        if picture.get("src", "").startswith("data:"):
            continue
        assert picture.get("loading") == "lazy" and int(picture["width"]) > 0 and int(picture["height"]) > 0


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_says_what_its_words_mean_and_how_to_cite_it(page: str) -> None:
    parsed = check_site.soup(SITE / page)
    terms = parsed.select("a[href*='glossary.html#term-']")
    assert terms and all(len(term.get("title", "")) > 15 for term in terms)
    cite = parsed.select_one("details.stepsize-cite")
    assert f"{page}" in cite.text and "@incollection" in cite.text


@pytest.mark.parametrize("page", CHAPTERS)
def test_downloaded_notebook_begins_by_installing_what_it_needs(page: str) -> None:
    first, install, *rest = nbformat.read(SITE / "_sources" / page.replace(".html", ".ipynb"), 4).cells
    assert (
        first.cell_type == "markdown"
        and "git clone" in install.source
        and 'find_spec("stepsize") is None' in install.source
    )
    assert not any("pip install" in cell.source for cell in rest)
    colab = [a["href"] for a in check_site.soup(SITE / page).select("a[href*='colab.research']")]
    assert colab and all("/blob/notebooks/chapters/" in href for href in colab)


def test_map_leads_to_every_method() -> None:
    boxes = check_site.soup(SITE / "book/map.html").select(".stepsize-map a")
    assert {box.select_one("text").text for box in boxes} >= set(RULES)
    assert any("chapters/14-novograd" in box["href"] for box in boxes)


def test_there_are_a_sitemap_an_index_a_page_for_what_is_not_there_and_cards() -> None:
    sitemap = (SITE / "sitemap.xml").read_text("utf-8")
    assert all(f"/{page}</loc>" in sitemap for page in CHAPTERS) and "404" not in sitemap
    assert check_site.soup(SITE / "genindex.html").select("a[href*='glossary.html#term-']")
    lost = check_site.soup(SITE / "404.html")
    assert len(lost.select("a[href*='chapters/']")) == len(CHAPTERS)
    for page in CHAPTERS:
        card = check_site.soup(SITE / page).select_one("meta[property='og:image']")["content"]
        assert (SITE / card.partition("/stepsize/")[2]).is_file()


def test_search_works_from_a_folder(browser: Any) -> None:
    browser.get((SITE / "search.html").as_uri() + "?q=warm-up")
    found = browser.execute_async_script(
        "const done = arguments[0]; let left = 100; const look = () => {"
        "const links = [...document.querySelectorAll('#search-results li a')].map(a => a.getAttribute('href'));"
        "links.length || !left-- ? done(links) : setTimeout(look, 100); }; look();"
    )
    assert any("10-warm-up" in link for link in found)


def test_zip_opens_from_a_folder_and_a_page_is_printed(tmp_path: Path) -> None:
    archive = take_along.make_zip(SITE, tmp_path / "book.zip")
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
    assert {"stepsize-book/index.html", f"stepsize-book/{CHAPTERS[0]}"} <= names
    if not any(map(shutil.which, take_along.BROWSERS)):
        pytest.skip("no chromium to print with: apt-get install chromium")
    names = ["book/checker", "book/map"]
    printed = PdfReader(take_along.make_pdf(SITE, names, tmp_path / "book.pdf"))
    assert [entry.title for entry in printed.outline] == ["The checker", "Map of the methods"]
    assert "The checker" in printed.pages[0].extract_text()


@pytest.mark.parametrize("page", READ)
def test_a_slider_changes_its_figure(browser: Any, page: str) -> None:
    if "stepsize-explorable" not in (SITE / page).read_text(encoding="utf-8"):
        return
    _open(browser, page, DESKTOP)
    counts = browser.execute_script(
        "return [...document.querySelectorAll('.stepsize-explorable')]"
        ".map(figure => figure.querySelectorAll('input[type=range]').length)"
    )
    assert counts and all(counts), "an explorable figure without sliders"
    for figure, sliders in enumerate(counts):
        for slider in range(sliders):
            before, after = browser.execute_script(MOVE, figure, slider)
            assert before != after, f"slider {slider} of figure {figure} changes nothing"


def test_every_chapter_has_an_explorable_figure() -> None:
    for page in CHAPTERS:
        assert check_site.soup(SITE / page).select(".stepsize-explorable svg[aria-label]"), page


AXE = """
const [rules, done] = arguments;
axe.run(document, { runOnly: rules, resultTypes: ['violations'] }).then(({ violations }) => done(violations.map(
  ({ id, nodes: [first, ...rest] }) =>
    `${id}: ${rest.length + 1}, such as ${first.html.slice(0, 150)} (${first.any[0]?.message ?? ''})`)));
"""

# What reaches past the right edge and is not inside a box that scrolls by itself.
TOO_WIDE = """
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= width) return [];
const scrolls = e => e && e !== document.body &&
  (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll('article *')]
  .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e))
  .map(e => e.tagName + '.' + e.className).slice(0, 5)
  .concat('page is ' + document.documentElement.scrollWidth + ' wide');
"""

# The drawing of one figure before and after one slider goes to its other end.
MOVE = """
const figure = document.querySelectorAll('.stepsize-explorable')[arguments[0]];
const slider = figure.querySelectorAll('input[type=range]')[arguments[1]];
const drawing = () => [...figure.querySelectorAll('svg path, svg circle, svg polyline')].map(e => e.outerHTML).join();
const before = drawing(), start = slider.value;
for (const end of [slider.min, slider.max]) {
  slider.value = end;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  if (drawing() !== before) break;
}
const after = drawing();
slider.value = start;
slider.dispatchEvent(new Event('input', { bubbles: true }));
return [before, after];
"""


def _open(browser: Any, page: str, width: int) -> None:
    browser.set_window_size(width, 900)
    browser.get_log("browser")
    browser.get((SITE / page).as_uri())
    browser.execute_async_script(
        "const done = arguments[0];(window.MathJax?.startup?.promise ?? Promise.resolve()).then(() => done())"
    )


def _show(browser: Any, width: int, theme: str) -> None:
    # The window cannot be as narrow as a phone, so the page is told that it is.
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE},
    )
    browser.execute_script(
        "document.documentElement.dataset.theme = document.documentElement.dataset.mode = arguments[0]", theme
    )


def _photograph(browser: Any, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SCREENSHOTS / name))


def _files(entry: Any) -> Iterator[str]:
    """The file names in a table of contents."""
    if isinstance(entry, dict):
        yield from (entry[key] for key in ("root", "file") if key in entry)
        for value in entry.values():
            yield from _files(value)
    elif isinstance(entry, list):
        for item in entry:
            yield from _files(item)
