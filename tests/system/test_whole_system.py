"""A whole system is backed up, restored into an empty file system, and boots there (docs/howto/whole-system.md)."""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import whole_system
from tests.support.fleet import Fleet
from tests.support.trees import differences
from tests.support.whole_system import RunningSystem

from turku.core import command
from turku.demo.private_machine import PrivateMachine
from turku.errors import CommandFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(900), pytest.mark.xdist_group("whole-system")]

SECRETS = "etc/turku-agent/config.d/whole.json"
"""The agent's configuration, which has the secret that it registered with."""
OUTSIDE = (
    *("--one-file-system", "--exclude=/opt/turku/*/*", "--exclude=/var/lib/turku-agent", "--exclude=/mnt/*"),
    f"--exclude=/{SECRETS}",
)
"""Of the running system: what is mounted in it, and the agent's own files."""


@dataclass
class Whole:
    fleet: Fleet
    machine: PrivateMachine
    system: RunningSystem
    said: str
    """By the agent, of its first backup."""

    @property
    def root(self) -> Path:
        return self.system.root

    @property
    def snapshot(self) -> Path:
        return self.fleet.snapshots(self.machine, "system")[0]


@pytest.fixture(scope="module")
def whole(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    directory = tmp_path_factory.mktemp("whole")
    root = directory / "root"
    with ExitStack() as stack:
        # A gigabyte is too much to be kept after the test.
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        system = stack.enter_context(whole_system.running_system(root))
        machine = fleet.unregistered_machine("whole", {})
        configuration = json.loads((machine.config_dir / "config.d" / "agent.json").read_text())
        for key in ("var_dir", "lock_dir", "restore_path"):
            del configuration[key]
        whole_system.write_agent(root, configuration, {"system": {"path": "/", "preserve_hard_links": True}})
        machine.config_dir, machine.var_dir = root / "etc/turku-agent", root / "var/lib/turku-agent"
        (root / "etc/hostname").write_text("whole\n")
        (root / "var/lib/odd name [*]").mkdir()
        (root / "var/lib/odd name [*]" / "back\\slash").write_text("odd\n")
        tool = root / "usr/local/bin/tool"
        tool.touch(mode=0o755)
        # As a system has ping: CAP_NET_RAW, permitted and effective.
        os.setxattr(tool, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
        system.run("turku-update-config")
        storage = fleet.storages["primary"]
        fleet.assign(machine, storage)
        storage.update_config()
        stack.callback(shutil.rmtree, storage.volume / machine.uuid, ignore_errors=True)
        ended = system.run("turku-agent-ping")
        yield Whole(fleet, machine, system, "\n".join(ended.last_lines))


def test_the_backup_has_the_system_and_empty_mount_points(whole: Whole) -> None:
    found = differences(whole.root, whole.snapshot, *OUTSIDE)
    # The kernel changes the time of a mounted /sys whenever somebody mounts something.
    assert [line for line in found if line != ".d..t...... sys/"] == []
    for name in ("proc", "sys", "dev", "run", "tmp", "opt/turku/src", "var/lib/turku-agent"):
        assert list((whole.snapshot / name).iterdir()) == [], name
    assert not (whole.snapshot / SECRETS).exists()
    assert "other file systems are not backed up with it (one_file_system)" in whole.said
    assert "WARNING" not in whole.said


def test_the_check_says_what_is_excluded(whole: Whole) -> None:
    checked = whole.system.run("turku-agent", "check").stdout.decode()
    assert "system: /\n" in checked
    assert "note: other file systems are not backed up with it" in checked
    assert "PROBLEM" not in checked


def test_a_directory_comes_back_in_place(whole: Whole) -> None:
    shutil.rmtree(whole.root / "etc/systemd")
    for name in ("group", "hostname", "os-release"):
        (whole.root / "etc" / name).unlink()
    whole.system.run("turku-agent", "restore", "system", "/etc", "--in-place", "--yes")
    assert differences(whole.snapshot / "etc", whole.root / "etc", "--exclude=/turku-agent/config.d/whole.json") == []


def test_all_of_it_comes_back_in_place_and_what_is_mounted_stays(whole: Whole) -> None:
    shutil.rmtree(whole.root / "usr/share")
    (whole.root / "run/mounted").write_text("not of the backup\n")
    (whole.root / "usr/bin/perl").unlink()
    said = "\n".join(whole.system.run("turku-agent", "restore", "system", "--in-place", "--yes").last_lines)
    assert "NOT" not in said
    # The kernel changes the time of what is mounted at /sys whenever somebody mounts something.
    assert differences(whole.snapshot, whole.root, *OUTSIDE, "--exclude=/run", "--exclude=/sys") == []
    assert (whole.root / "run/mounted").read_text() == "not of the backup\n"
    assert (whole.root / "proc/self").exists()


def test_a_file_is_found_in_the_history(whole: Whole) -> None:
    listed = whole.system.run("turku-agent", "ls", "system", "/etc/hostname").stdout.decode()
    assert "etc/hostname" in listed


def test_it_boots_from_a_fresh_file_system(whole: Whole, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    command.run(["mount", "--bind", fresh, whole.root / "mnt"], timeout_seconds=60)
    try:
        whole.system.run("turku-agent", "restore", "system", "--to", "/mnt", "--yes")
    finally:
        command.run(["umount", whole.root / "mnt"], timeout_seconds=60)
    assert differences(whole.snapshot, fresh) == []
    with whole_system.booted(fresh) as (state, init):
        assert state in ("running", "degraded"), whole_system.failed_units(init)
        if state == "degraded":
            print(whole_system.failed_units(init))
        assert (init / "root/etc/hostname").read_text() == "whole\n"
        assert (init / "exe").readlink().name == "systemd"
    shutil.rmtree(fresh)


def test_a_lost_machine_comes_back_on_a_bare_root(whole: Whole, tmp_path: Path) -> None:
    """The whole way of docs/howto/lost-host.md. It is the last test, because the former system loses its secret."""
    (whole.root / "etc/turku-agent/sources.d/more.json").write_text('{"opt": {"path": "/usr/local"}}')
    (whole.root / "srv/data").write_text("data\n")
    whole.fleet.make_due(whole.machine, "system")
    whole.system.run("turku-agent-ping")
    uuid = whole.machine.uuid
    snapshots = whole.fleet.snapshots(whole.machine, "system")
    code = whole.fleet.coordinator.manage("machine", "re-enrol", uuid, "--raw").strip()
    bare = tmp_path / "bare"
    with whole_system.running_system(bare) as system:
        configuration = json.loads((whole.root / SECRETS).read_text())
        whole_system.write_agent(bare, configuration, {})
        (bare / "etc/turku-agent/sources.d/whole.json").unlink()
        (bare / "etc/only-of-the-bare-root").touch()
        system.run("turku-agent", "re-enrol", code)
        own = [bare / "var/lib/turku-agent" / name for name in ("config.d/10-machine_uuid.json", "ssh_key")]
        before = [path.read_bytes() for path in (*own, bare / SECRETS)]
        whole.fleet.storage_of(whole.machine).update_config()
        said = "\n".join(system.run("turku-agent", "restore", "system", "--to", "/", "--delete", "--yes").last_lines)
        assert "NOT" not in said
        # The identity is the new one, whatever came back around it.
        assert [path.read_bytes() for path in (*own, bare / SECRETS)] == before
        assert (bare / "srv/data").read_text() == "data\n"
        assert not (bare / "etc/only-of-the-bare-root").exists()
        found = differences(snapshots[-1], bare, *OUTSIDE, "--exclude=/run", "--exclude=/sys")
        # The agent's own directories and what is mounted have times of their own.
        assert [line for line in found if not line.startswith(".d..t...... ")] == []
        assert (bare / "etc/turku-agent/sources.d/more.json").exists()
        # Its sources came with it, and its history goes on: nothing is transferred again.
        system.run("turku-update-config")
        whole.fleet.make_due(whole.machine, "system")
        system.run("turku-agent-ping")
        [*_, newest] = whole.fleet.runs(whole.machine, "system")
        assert (newest["success"], newest["strategy"]) == (True, "incremental"), newest
        with pytest.raises(CommandFailed):
            whole.system.run("turku-agent-ping")
    with whole_system.booted(bare) as (state, init):
        assert state in ("running", "degraded"), whole_system.failed_units(init)
        assert (init / "root/etc/hostname").read_text() == "whole\n"
    shutil.rmtree(bare)
