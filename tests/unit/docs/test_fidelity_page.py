"""The tables of what comes back say what was tried, with a reason for everything that does not."""

import copy
import json

import pytest
from bench import fidelity
from tests.support.fidelity_table import MODES, WAYS

FOUND = json.loads(fidelity.FIGURES.read_text())
LOST = {"state": "lost", "having": 1, "differing": 1, "found": ["'a': is gone"]}


def test_the_page_has_the_tables_that_its_figures_make() -> None:
    text = fidelity.PAGE.read_text()
    assert fidelity.rewritten(text, FOUND) == text, "run: python -m bench.fidelity --tables"


def test_all_was_tried() -> None:
    ways = {name: set(found) for name, found in FOUND["cases"].items()}
    assert ways == {
        **{fidelity.case_name(mode, title): set(WAYS) for mode in MODES for title in fidelity.ROOT},
        **{name: {"whole"} for name in fidelity.PEERS},
    }


def test_nothing_of_ours_lets_anybody_do_more_than_before() -> None:
    for name, found in FOUND["cases"].items():
        for way, row in found.items():
            assert name in fidelity.PEERS or "wider" not in {cell["state"] for cell in (row or {}).values()}, way


def test_a_loss_that_nobody_explains_makes_no_table() -> None:
    found = copy.deepcopy(FOUND)
    found["cases"]["btrfs, root"]["whole"]["hard links"] = LOST
    with pytest.raises(ValueError, match="nobody says why 'hard links' is not kept by 'whole' of 'btrfs, root'"):
        fidelity.tables(found)


def test_a_loss_in_some_of_the_modes_or_files_is_shown_as_such() -> None:
    found = copy.deepcopy(FOUND)
    rows = found["cases"]["link-dest, root"]
    rows["drill"]["security.selinux"] = {**LOST, "having": 10}
    line = next(line for line in fidelity.tables(found).splitlines() if line.startswith("| security.selinux "))
    assert "| partly/no" in line
