"""A chapter has the number of its file: 14-novograd.ipynb is chapter 14, whatever is still missing before it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles as Collector

by_sphinx = Collector.assign_section_numbers


def by_file(self: Collector, env: Any) -> list[str]:
    """Sphinx's numbers, which begin anew in every part, with the first one replaced; which pages have others now."""
    before = env.toc_secnumbers
    numbered = by_sphinx(self, env)
    for page, numbers in env.toc_secnumbers.items():
        found = re.match(r"chapters/(\d+)-", page)
        if found:
            chapter = int(found[1])
            env.toc_secnumbers[page] = {at: number and (chapter, *number[1:]) for at, number in numbers.items()}
            env.titles[page]["secnumber"] = [chapter]
            for reference in env.tocs[page].findall(nodes.reference):
                if reference.get("secnumber"):
                    reference["secnumber"] = [chapter, *reference["secnumber"][1:]]
    return [page for page in numbered if env.toc_secnumbers[page] != before.get(page)]


def setup(app: Any) -> dict[str, Any]:
    Collector.assign_section_numbers = by_file  # type: ignore[method-assign]
    return {"parallel_read_safe": True}
