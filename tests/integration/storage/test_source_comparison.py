"""Files of the same size and time, and of another content: found by comparing with the machine, through its daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core.secret import Secret
from turku.storage import history, source_comparison, verification
from turku.storage.snapshots import notes
from turku.storage.source_comparison import Compared
from turku.storage.stored_content import Pace
from turku.storage.transfer import Daemon
from turku.storage.verification import Share


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        for number in range(20):
            (machine.source_dir / f"file\n{number}").write_bytes(os.urandom(5000))
        machine.days(2)
        yield machine


def alter(path: Path) -> None:
    """As somebody does who sets the time back."""
    status = path.stat()
    path.write_bytes(os.urandom(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def daemon(machine: BackedUpMachine) -> Daemon:
    return Daemon(machine.daemon.port, machine.source, machine.daemon.username, Secret(machine.daemon.password))


def compare(machine: BackedUpMachine, share: float = 100.0) -> Compared:
    return source_comparison.compare(
        machine.storage, machine.place, daemon(machine), machine.snapshots()[-1], share=share
    )


def test_nothing_differs_where_nothing_was_altered(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file\n3").write_bytes(b"changed since, and honestly")
    compared = compare(machine)
    assert (compared.files, compared.altered) == (20, ())


def test_an_altered_file_of_the_same_size_and_time_is_found(machine: BackedUpMachine) -> None:
    alter(machine.source_dir / "file\n7")
    machine.back_up()
    assert compare(machine).altered == (b"file\n7",)
    assert not list(machine.machine_dir.glob(".comparing-*"))


def test_a_kept_file_that_is_damaged_is_not_the_machines_fault(machine: BackedUpMachine) -> None:
    verification.verify(machine.place, zone=machine.storage.zone, share=Share(), pace=Pace())
    alter(machine.place.tree(machine.snapshots()[-1]) / "file\n7")
    assert compare(machine).altered == ()


def test_a_sample_is_a_sample(machine: BackedUpMachine) -> None:
    assert 0 < sum(compare(machine, 50).files for _ in range(3)) < 60


def test_it_is_made_after_a_backup_when_asked_for_and_makes_it_suspicious(machine: BackedUpMachine) -> None:
    alter(machine.source_dir / "file\n7")
    snapshot = machine.back_up().snapshot
    assert snapshot is not None
    assert source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot) == ()
    source_comparison.ask_for(machine.storage, machine.place)
    [sign] = source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot)
    assert "1 of 21 files differ" in sign
    assert notes.read(machine.place, snapshot).suspicious == (sign,)
    assert history.unjudged(machine.place, machine.storage.zone)
    assert source_comparison.percent(machine.storage, machine.place) == 0, "asked for once, it is made once"
    always = replace(machine.storage, compare_with_source_percent=5.0)
    assert source_comparison.percent(always, machine.place) == 5.0
