"""A source's ``compress`` holds for the way back too."""

import filecmp
import json
from pathlib import Path

import pytest
from tests.support.fleet import Fleet

from turku.demo import programs


@pytest.mark.parametrize(
    ("options", "is_compressed"),
    [({"compress": "on"}, True), ({"compress": "off"}, False), ({}, False)],
    ids=["on", "off", "auto on one host"],
)
def test_a_backup_and_a_restore(fleet: Fleet, tmp_path: Path, options: dict[str, str], is_compressed: bool) -> None:
    log = tmp_path / "log"
    script = f'printf "%s\\n" "$*" >> {log}; exec "$0" "$@"'
    name = f"compressed-{len(fleet.storages)}"
    storage = fleet.storage(name, rsync_command=["sh", "-c", script, "rsync"], sandbox="off")
    source = tmp_path / "source"
    source.mkdir()
    (source / "text").write_text("much of the same\n" * 100_000)
    machine = fleet.machine(f"{name}-machine", {"files": {"path": str(source), **options}}, storage=storage)
    machine.ping()
    # As if a way had been seen to be slow.
    [record] = storage.machine_directory(machine.uuid).glob("files.snapshots/files_*.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "bytes_per_second": 1e6}))
    restored = tmp_path / "restored"
    programs.run("turku-agent", "restore", "--config-dir", machine.config_dir, "files", "--to", restored, "--yes")
    assert filecmp.cmp(source / "text", restored / "text", shallow=False)
    runs = [line.split() for line in log.read_text().splitlines() if "rsync://" in line]
    [backup] = [words for words in runs if words[-1] == "./"]
    [restore] = [words for words in runs if words[-1] != "./"]
    assert ("--compress" in backup) == is_compressed
    assert ("--compress" in restore) == is_compressed
    assert ("--compress-level=9" in restore) == is_compressed
    assert "--no-inc-recursive" in restore
