"""The installed commands run the rsync that was chosen for their side, for a backup and for a restore."""

import filecmp
import os
from pathlib import Path

import pytest
from tests.support import rsync_programs
from tests.support.fleet import Fleet

from turku.demo import programs

pytestmark = pytest.mark.both_rsyncs


def test_a_backup_and_a_restore(fleet: Fleet, tmp_path: Path) -> None:
    # Slowly, so that a look into /proc finds both at work.
    storage = fleet.storage("sides", rsync_command=["rsync", "--bwlimit=1000"])
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(1024 * 1024))
    machine = fleet.machine("sides-machine", {"files": {"path": str(source)}}, storage=storage)
    with rsync_programs.watched() as backup:
        machine.ping()
    assert fleet.snapshots(machine, "files")
    backup.assert_as_chosen()
    restored = tmp_path / "restored"
    with rsync_programs.watched() as restore:
        programs.run("turku-agent", "restore", "--config-dir", machine.config_dir, "files", "--to", restored, "--yes")
    assert filecmp.cmp(source / "large", restored / "large", shallow=False)
    restore.assert_as_chosen()
