"""Attributes are compared where the agent says that something changed, of everything at intervals, and never by default."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, fingerprint

from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.snapshots import MODES, SnapshotMode


@pytest.fixture
def mode() -> type[SnapshotMode]:
    return MODES["link-dest"]


@pytest.fixture
def reporting(machine: BackedUpMachine, spied: Path) -> BackedUpMachine:
    """A machine whose agent tells moments, with a first snapshot."""
    for name in ("one", "directory/two", "\udcff odd\nname"):
        (machine.source_dir / name).parent.mkdir(exist_ok=True)
        (machine.source_dir / name).write_text(name, errors="surrogateescape")
    machine.moment_ns = 1_000
    assert machine.back_up().success
    spied.write_text("")
    return machine


def names(machine: BackedUpMachine, *paths: bytes, since_ns: int = 500) -> None:
    machine.changed_entries = lambda _timeout_seconds: ChangedEntries(since_ns, paths)


def give_attribute(machine: BackedUpMachine, name: str = "one") -> None:
    os.setxattr(machine.source_dir / name, "user.new", b"value")


def has_attribute(machine: BackedUpMachine, name: str = "one") -> bool:
    return "user.new" in os.listxattr(machine.newest_tree() / name)


def attribute_runs(spied: Path) -> list[bool]:
    """Return, of each rsync that ran, whether it compared attributes."""
    return ["--xattrs" in line for line in spied.read_text().splitlines() if "--stats" in line]


def test_nothing_is_compared_where_nothing_changed(reporting: BackedUpMachine, spied: Path) -> None:
    names(reporting)
    outcome = reporting.back_up()
    assert outcome.strategy == "unchanged", outcome.summary
    assert attribute_runs(spied) == [False]


def test_entries_that_the_agent_names_are_compared_and_transferred(reporting: BackedUpMachine, spied: Path) -> None:
    odd = os.fsencode("\udcff odd\nname")
    names(reporting, b"one", odd, b"directory", b".", b"not there")
    outcome = reporting.back_up()
    assert outcome.strategy == "unchanged", outcome.summary
    assert attribute_runs(spied) == [False, True]
    first = fingerprint(reporting.newest_tree().resolve())
    give_attribute(reporting)
    give_attribute(reporting, "\udcff odd\nname")
    give_attribute(reporting, "directory")
    outcome = reporting.back_up()
    assert outcome.strategy == "incremental", outcome.strategy_reason
    assert has_attribute(reporting)
    assert has_attribute(reporting, "directory")
    assert has_attribute(reporting, "\udcff odd\nname")
    assert reporting.differences(reporting.newest_tree()) == []
    # Looking at attributes changes nothing of the snapshot that is looked at.
    assert fingerprint(reporting.place.tree(reporting.snapshots()[0])) == first
    assert "user.new" not in os.listxattr(reporting.place.tree(reporting.snapshots()[0]) / "one")


def test_the_machine_alone_is_harmed_by_what_it_does_not_name(reporting: BackedUpMachine) -> None:
    names(reporting)
    give_attribute(reporting)
    assert reporting.back_up().strategy == "unchanged"
    # The next full look finds it.
    reporting.clock.moment += timedelta(days=8)
    outcome = reporting.back_up()
    assert outcome.strategy == "incremental", outcome.strategy_reason
    assert has_attribute(reporting)


@pytest.mark.parametrize("why", ["it cannot tell", "it tells of too short a time", "its moment is not known"])
def test_all_are_compared_where_it_is_not_certain(reporting: BackedUpMachine, spied: Path, why: str) -> None:
    if why == "it tells of too short a time":
        names(reporting, since_ns=1_001)
    elif why == "its moment is not known":
        names(reporting)
        reporting.moment_ns = None
        assert reporting.back_up().success
        spied.write_text("")
    give_attribute(reporting)
    outcome = reporting.back_up()
    assert outcome.strategy == "incremental", outcome.strategy_reason
    assert True in attribute_runs(spied)[:2]
    assert has_attribute(reporting)


def test_all_are_compared_after_a_run_that_left_some_out(reporting: BackedUpMachine) -> None:
    names(reporting)
    give_attribute(reporting)
    assert reporting.back_up(not_preserved=["attributes"]).strategy == "unchanged"
    outcome = reporting.back_up()
    assert outcome.strategy == "incremental", outcome.strategy_reason
    assert has_attribute(reporting)


def test_a_changed_file_comes_with_its_attributes(reporting: BackedUpMachine) -> None:
    names(reporting, b"one")
    (reporting.source_dir / "one").write_text("another")
    give_attribute(reporting)
    (reporting.source_dir / "new").write_text("new")
    os.setxattr(reporting.source_dir / "new", "user.new", b"value")
    outcome = reporting.back_up()
    assert outcome.strategy == "incremental", outcome.strategy_reason
    assert has_attribute(reporting)
    assert has_attribute(reporting, "new")


def test_entries_that_the_agent_names_are_compared_although_a_directory_cannot_be_read(
    reporting: BackedUpMachine,
) -> None:
    if os.geteuid() == 0:
        reporting.daemon.__exit__(None, None, None)
        reporting.daemon.wrapper = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        reporting.daemon.__enter__()
    (reporting.source_dir / "closed").mkdir()
    (reporting.source_dir / "closed").chmod(0)
    give_attribute(reporting)
    names(reporting, b"one")
    try:
        outcome = reporting.back_up()
    finally:
        (reporting.source_dir / "closed").chmod(0o700)
    assert outcome.strategy == "incremental", outcome.strategy_reason
    assert outcome.missing_files == 1, outcome.summary
    assert has_attribute(reporting)
