"""M2: no source's name leads out of its machine's directory: refused by the API, and again by the storage."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import backed_up_machine
from tests.support.coordinator import Coordinator
from tests.support.http_cast import SOURCES, HttpCast, status_of
from tests.support.ordered_storage import OrderedStorage, order, ordered_storage
from tests.support.v1_client import Refused

from turku.storage.backup.run import back_up

HOSTILE_NAMES = {
    "up": "../x",
    "up and away": "../../../../tmp/turku-m2",
    "dot": ".",
    "dots": "..",
    "empty": "",
    "slash": "a/b",
    "absolute": "/etc",
    "backslash": "a\\b",
    "NUL": "a\0b",
    "line break": "a\nb",
    "escape": "a\x1b[2J",
    "delete": "a\x7f",
    "new line of Unicode": "a\u2028b",
    "300 bytes": "x" * 300,
    "300 bytes in few characters": "ä" * 150,
    "a history": "etc.snapshots",
    "a history in capitals": "etc.SNAPSHOTS",
    "a history in full width": "etc.\uff53napshots",
    "hidden": ".etc",
    "an option": "-e",
    "a pattern": "*",
    "a section's end": "etc]",
    "rsyncd's own": "global",
    "a blank at the end": "etc ",
    "blanks in a row": "e  tc",
    "a variable": "$HOME",
    "rsync's own": "%m",
    "a quote": "a'b",
    "turned round": "\u202eetc",
}
TWINS = {
    "case": ("etc", "ETC"),
    "composed": ("caf\u00e9", "cafe\u0301"),
    "a ligature": ("\ufb01le", "file"),
    "the long s": ("\u017frv", "srv"),
    "sharp s": ("stra\u00dfe", "STRASSE"),
}


def declared(name: str) -> dict[str, Any]:
    return {**SOURCES, name: {"path": "/srv"}}


@pytest.fixture(scope="module")
def cast(coordinator: Coordinator) -> HttpCast:
    """One for all: what is refused leaves her as she was."""
    return HttpCast.introduce(coordinator)


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_m2_the_coordinator_refuses_the_name(cast: HttpCast, name: str) -> None:
    before = cast.source_rows()
    with pytest.raises(Refused) as refused:
        cast.alice.update_config(declared(name))
    assert refused.value.status == 400
    assert "sources" in refused.value.sentence
    assert cast.source_rows() == before


@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_m2_the_coordinator_refuses_twins_together_and_one_after_the_other(
    cast: HttpCast, twins: tuple[str, str]
) -> None:
    first, second = twins
    assert status_of(lambda: cast.alice.update_config({**declared(first), second: {"path": "/srv"}})) == 400
    cast.alice.update_config(declared(first))
    cast.alice.update_config({"home": {"path": "/home"}})
    assert status_of(lambda: cast.alice.update_config({second: {"path": "/srv"}})) == 400


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_text("content")
    return path


@pytest.fixture
def storage(tmp_path: Path, source: Path) -> Iterator[OrderedStorage]:
    with ordered_storage(tmp_path, {"good": source, "Good": source}) as running:
        running.admit()
        yield running


def entries(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


def test_m2_the_storage_leaves_out_names_that_a_hostile_coordinator_sends(storage: OrderedStorage) -> None:
    orders = {name: order() for name in HOSTILE_NAMES.values()}
    beside = entries(storage.host.volume.parent)
    storage.session({**orders, "good": order()})
    assert storage.host.log.count("is not backed up: ") == len(HOSTILE_NAMES)
    assert entries(storage.host.volume) - {".turku", ".turku-volume", ".catalogs"} == {storage.uuid}
    assert {name.strip(".").split(".")[0] for name in entries(storage.machine_dir)} == {"good"}
    assert entries(storage.host.volume.parent) == beside
    assert not Path("/tmp/turku-m2").exists()
    assert set(storage.reports) == {"good"}
    assert storage.reports["good"]["success"]


def test_m2_the_storage_backs_up_one_of_twins(storage: OrderedStorage) -> None:
    output = storage.session({"good": order(), "Good": order()})
    assert "source Good is not backed up: another one differs only by case or spelling" in output
    assert not (storage.machine_dir / "Good.snapshots").exists()
    assert set(storage.reports) == {"good"}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_m2_no_backup_begins_under_the_name(tmp_path: Path, name: str) -> None:
    with backed_up_machine(tmp_path) as machine:
        before = set(tmp_path.rglob("*"))
        job = replace(machine.job(), source_name=name)
        outcome = back_up(job, machine.storage, clock=machine.clock)
        assert not outcome.success
        assert set(tmp_path.rglob("*")) == before
