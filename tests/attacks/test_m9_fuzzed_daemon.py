"""M9: a daemon that answers an honest receiver with damaged or made-up protocol data changes nothing but its own.

What fuzzing found is here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import catalog_oracle
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.malicious_rsync_server import Entry, MaliciousRsyncServer

from turku.storage import catalog, verification
from turku.storage.stored_content import Pace
from turku.storage.verification import Share

TMPFS = Path("/dev/shm")


@pytest.fixture
def on_tmpfs(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """A machine whose volume keeps times of any year, as btrfs does too."""
    if not TMPFS.is_dir():
        pytest.skip("no file system in memory")
    with tempfile.TemporaryDirectory(dir=TMPFS) as volume, backed_up_machine(tmp_path, volume=Path(volume)) as machine:
        yield machine


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 2**63 - 1])
def test_m9_a_time_that_the_catalog_cannot_hold_fails_no_backup(on_tmpfs: BackedUpMachine, seconds: int) -> None:
    machine = on_tmpfs
    for entries in ([Entry(b"old"), Entry(b"file", mtime=seconds)], [Entry(b"old"), Entry(b"other", mtime=seconds)]):
        with MaliciousRsyncServer(entries) as server:
            machine.daemon.port = server.port
            outcome = machine.back_up()
        assert outcome.success, outcome.summary
    catalog_oracle.assert_agrees(machine)
    # With the checksums of the backups, and with those that verification takes down itself.
    for _again in range(2):
        made = verification.verify(machine.place, zone=machine.storage.zone, share=Share(), pace=Pace())
        assert made.damages == []
        catalog.rebuild(machine.place, zone=machine.storage.zone)
