"""The tables of docs/fidelity.md are true of Turku: some of its ways are tried, and none is worse than its table."""

import json
import os
from collections.abc import Iterator, Sequence

import pytest
from bench import fidelity
from tests.support.fidelity_table import WAYS, Trial, is_worse, plain

pytestmark = [
    pytest.mark.root,
    pytest.mark.xdist_group("fidelity-table"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files with every property"),
]


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with Trial() as running:
        yield running


@pytest.mark.parametrize(
    ("mode", "root", "ways"),
    [
        ("link-dest", "root", WAYS),
        ("link-dest", "without root", ("whole", "drill", "in place", "ordinary user")),
        ("btrfs", "root", ("paths",)),
        ("reflink", "without root", ("paths",)),
    ],
)
def test_no_cell_is_worse_than_the_document_says(trial: Trial, mode: str, root: str, ways: Sequence[str]) -> None:
    recorded = json.loads(fidelity.FIGURES.read_text())["cases"][fidelity.case_name(mode, root)]
    case = trial.case(mode, is_root=fidelity.ROOT[root])
    case.back_up()
    for way in sorted(ways, key=fidelity.ORDER.index):
        found = plain(case.restore(way)) or {}
        worse = {name: cell for name, cell in found.items() if is_worse(cell, recorded[way].get(name))}
        assert worse == {}, f"{way}: {case.said}"
