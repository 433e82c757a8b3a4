"""Parts of the project's own pages that tests read: tables below headings, links, fenced blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells, without the blanks around them."""

    cells: tuple[str, ...]

    @property
    def key(self) -> str:
        """The first cell's code, without the backticks."""
        return self.cells[0].strip("`")


def pages() -> list[Path]:
    """Every page that people read, as paths below the repository."""
    return sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("examples/*.md")])


def section(page: str, heading: str) -> str:
    """The text below ``## heading`` up to the next heading of that level."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise AssertionError(f"{page} has no section '## {heading}'")
    return match[1]


def table(text: str) -> list[Row]:
    """The rows of all tables in the text whose first cell is code."""
    rows = []
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append(Row(tuple(cell.strip().replace("\\|", "|") for cell in cells)))
    return rows


def links(page: Path) -> list[str]:
    """The targets of links in a page, code left out."""
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
