"""The lecture slides: made from the chapters, sufficient to themselves, and found from the teachers' page."""

from __future__ import annotations

from pathlib import Path

import check_site
import make_slides
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build/html"
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("[0-9]*.ipynb"))

PAGE = """
<html><body><script>window.MathJax = {"options": {}}</script><article><section id="x">
<h1>1. Descent<a class="headerlink" href="#x">#</a></h1>
<p><strong>Walk down.</strong> It is old.</p><ul><li>write it;</li></ul>
<section id="idea"><h2>The idea</h2>
<p>Go <em>against</em> the <a href="g.html">slope</a> <span class="math">\\(g\\)</span>, with 0.5 of it. More text.</p>
<div class="cell"><div class="cell_output"><div class="output text_latex math">\\[p\\]</div></div></div></section>
<section id="picture"><h2>The picture</h2><p>Look:</p>
<figure id="f"><img src="../_images/a.png" alt="A falling line."><figcaption><p>Falls.</p></figcaption></figure>
<figure id="h"><svg class="picture" aria-label="A valley."></svg><div>slider</div><figcaption>A path.</figcaption>
<script>evil()</script></figure></section>
<section id="exercises"><h2>Exercises</h2><div class="exercise"><p class="admonition-title">Exercise 1.1</p></div>
<div class="solution">the answer is 42</div></section>
<section id="in-five-lines"><h2>In five lines</h2><ul><li>One.</li></ul></section>
</section></article></body></html>
"""


@pytest.fixture
def deck(tmp_path: Path) -> BeautifulSoup:
    page = tmp_path / "01-descent.html"
    page.write_text(PAGE)
    return BeautifulSoup(make_slides.deck(page), "html.parser")


class TestADeck:
    def test_begins_with_the_title_and_what_one_will_be_able_to_do(self, deck: BeautifulSoup) -> None:
        first = deck.find("section")
        assert first.h1.text == "1. Descent"
        assert "Walk down." in first.text and first.li.text == "write it;"

    def test_has_the_first_sentence_of_a_section_and_its_equation(self, deck: BeautifulSoup) -> None:
        idea = deck.find_all("section")[1]
        assert idea.p.text == "Go against the slope \\(g\\), with 0.5 of it."
        assert idea.find("em") and not idea.find("a")
        assert "\\[p\\]" in idea.text

    def test_shows_every_figure_once_with_its_words(self, deck: BeautifulSoup) -> None:
        assert [image["alt"] for image in deck.find_all("img")] == ["A falling line."]
        assert [picture["aria-label"] for picture in deck.find_all("svg")] == ["A valley."]
        assert [caption.text.split(".")[0] for caption in deck.find_all("figcaption")] == ["Falls", "A path"]
        assert deck.find("a", href="../chapters/01-descent.html#picture")

    def test_gives_no_solution_away_and_keeps_no_script_of_the_page(self, deck: BeautifulSoup) -> None:
        assert "42" not in deck.text and "evil" not in deck.text
        assert deck.find_all("section")[-1].text.startswith("Exercises")

    def test_ends_with_the_summary(self, deck: BeautifulSoup) -> None:
        assert "One." in deck.find_all("section")[-2].text


@pytest.mark.skipif(not (SITE / "slides").exists(), reason="the site is not built: make book")
class TestBuiltSlides:
    def test_every_chapter_has_slides_and_the_teachers_page_leads_to_them(self) -> None:
        assert [path.stem for path in sorted((SITE / "slides").glob("*.html"))] == CHAPTERS
        links = {link["href"] for link in check_site.soup(SITE / "book/teachers.html").find_all("a", href=True)}
        assert {f"../slides/{name}.html" for name in CHAPTERS} <= links

    @pytest.mark.parametrize("name", CHAPTERS)
    def test_slides_hold_the_figures_of_their_chapter(self, name: str) -> None:
        slides, chapter = (check_site.soup(SITE / folder / f"{name}.html") for folder in ("slides", "chapters"))
        assert 8 <= len(slides.find_all("section")) <= 40
        shown = {image["src"] for image in slides.find_all("img")}
        own = {image["src"] for image in chapter.select("article figure img")}
        assert shown == {source for source in own if not source.startswith("data:")} or shown >= own
        assert not slides.select(".solution, .cell_input")
        assert len((SITE / "slides" / f"{name}.html").read_bytes()) < 150_000
