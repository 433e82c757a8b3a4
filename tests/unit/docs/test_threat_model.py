"""The threat model has every guarantee, each with code that is there and an attack that names it."""

import re

import pytest
from tests.support import markdown
from tests.support.markdown import REPOSITORY, Row

PAGE = "docs/threat-model.md"
IDS = [
    *(f"M{number}" for number in range(1, 14)),
    *(f"S{number}" for number in range(1, 6)),
    *(f"C{number}" for number in range(1, 7)),
    *(f"N{number}" for number in range(1, 7)),
]
ATTACKS = REPOSITORY / "tests" / "attacks"
_ATTACK = re.compile(r"\[(test_\w+\.py)\]\(\.\./tests/attacks/(test_\w+\.py)\)")
_PARTS = (
    "The attacks we have in mind",
    "Assumptions",
    "Guarantees",
    "Remaining powers of each",
    "Effects of a broken assumption",
)


def rows() -> dict[str, Row]:
    found = markdown.table(markdown.section(PAGE, "Guarantees"))
    assert len({row.key for row in found}) == len(found)
    return {row.key: row for row in found}


def attacks_of(row: Row) -> list[str]:
    names = _ATTACK.findall(row.cells[4])
    assert all(shown == target for shown, target in names)
    return [target for _shown, target in names]


def test_every_guarantee_has_its_row_and_no_other_is_there() -> None:
    assert list(rows()) == IDS


def test_the_parts_come_in_their_order() -> None:
    headings = re.findall(r"^## (.*)$", (REPOSITORY / PAGE).read_text(), re.MULTILINE)
    assert tuple(headings) == _PARTS


@pytest.mark.parametrize("identifier", IDS)
def test_a_guarantee_says_what_holds_and_where(identifier: str) -> None:
    row = rows()[identifier]
    assert len(row.cells) == 5
    assert len(row.cells[1]) > 10
    assert len(row.cells[2]) > 20
    files = re.findall(r"`([\w/]+\.py)`", row.cells[3])
    assert files
    for name in files:
        assert (REPOSITORY / "src" / "turku" / name).is_file(), name


@pytest.mark.parametrize("identifier", IDS)
def test_a_guarantee_is_attacked_by_a_test_that_names_it(identifier: str) -> None:
    attacks = attacks_of(rows()[identifier])
    assert attacks
    for name in attacks:
        text = (ATTACKS / name).read_text()
        assert re.search(rf"\b{identifier}\b", text), f"{name} does not mention {identifier}"
        assert "def test_" in text


def test_every_attack_is_on_the_page() -> None:
    page = (REPOSITORY / PAGE).read_text()
    assert [path.name for path in ATTACKS.glob("test_*.py") if path.name not in page] == []


def test_every_assumption_says_what_breaks_without_it() -> None:
    text = (REPOSITORY / PAGE).read_text()
    assumed = re.findall(r"^\| (A\d+) \|", markdown.section(PAGE, "Assumptions"), re.MULTILINE)
    broken = re.findall(r"^\| (A\d+) ", markdown.section(PAGE, "Effects of a broken assumption"), re.MULTILINE)
    assert assumed == list(dict.fromkeys(broken))
    assert set(re.findall(r"\bA\d+\b", text)) == set(assumed)
