"""Pages link to what is there."""

import json
from pathlib import Path

import pytest
from tests.support import markdown
from tests.support.markdown import REPOSITORY

PAGES = markdown.pages()
ELSEWHERE = ("https://", "http://", "mailto:")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_and_heading_that_exist(page: Path) -> None:
    for target in markdown.links(page):
        if target.startswith(ELSEWHERE):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in markdown.anchors(file), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached = {REPOSITORY / "README.md"}
    waiting = list(reached)
    while waiting:
        page = waiting.pop()
        for target in markdown.links(page):
            file = (page.parent / target.partition("#")[0]).resolve()
            if target.startswith(ELSEWHERE) or not file.exists():
                continue
            below = file.glob("*.md") if file.is_dir() else [file]
            for found in below:
                if found.suffix == ".md" and found not in reached:
                    reached.add(found)
                    waiting.append(found)
    assert {page for page in PAGES if page not in reached} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_json_in_a_page_is_json(page: Path) -> None:
    for block in markdown.blocks(page.read_text(), "json"):
        json.loads(block)
