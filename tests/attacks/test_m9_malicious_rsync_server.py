"""M9: a machine's rsync daemon that lies, and a receiver that it has compromised, reach no other machine's tree.

The receiver is started by the real backup, in the real sandbox. The daemon is tests/support/malicious_rsync_server.py.
"""

import itertools
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support import rsync_programs
from tests.support.backed_up_machine import StorageClock, fingerprint, order, storage_configuration
from tests.support.malicious_rsync_server import SPOKEN, Entry, MaliciousRsyncServer, directory, symbolic_link

from turku.core.configuration.declaration import with_values
from turku.core.secret import Secret
from turku.storage.backup.job import BackupJob, BackupReport
from turku.storage.backup.run import back_up
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, snapshot_record
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.rsync import version

pytestmark = pytest.mark.storage_rsync

ATTACKER = "11111111-1111-4111-8111-111111111111"
VICTIM = "22222222-2222-4222-8222-222222222222"
SNAPSHOT = "etc_20260101-000000_abcd"
SOON_SECONDS = 150
"""The limit for a session. It takes three seconds where nothing else writes. A disk that is busy with other tests
removes trees in its own time."""
needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


class Volume:
    """A volume with the attacker's directory and, around it, what must not change."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.attacker = base / "volume" / ATTACKER
        self.victim = base / "volume" / VICTIM
        self.canary = base / "canary"
        self.attacker.mkdir(parents=True)
        (self.victim / "etc.snapshots" / SNAPSHOT).mkdir(parents=True)
        (self.victim / "etc.snapshots" / SNAPSHOT / "file").write_text("history")
        (self.victim / "etc.snapshots" / f"{SNAPSHOT}.json").write_text("{}")
        (self.victim / "etc").mkdir()
        (self.victim / "etc" / "file").write_text("working tree")
        self.canary.mkdir()
        (self.canary / "file").write_text("canary")
        self.clock = StorageClock()
        self.storage = storage_configuration(base / "storage", keep_devices=False, max_run_seconds=30)
        self._before = self._state()

    def _state(self) -> list[Any]:
        listed = sorted(path.name for path in (*self.base.iterdir(), *self.victim.parent.iterdir()))
        if ".catalogs" in listed:
            # This is the storage's own. The attacker's catalog may be there, and the victim's may not change.
            listed.remove(".catalogs")
            listed += sorted(path.name for path in self.victim.parent.glob(f".catalogs/{VICTIM}/*"))
        return [fingerprint(self.victim), fingerprint(self.canary), listed]

    def back_up(self, port: int, *, storage: StorageConfig | None = None, **options: Any) -> BackupReport:
        job = BackupJob(
            machine_dir=self.attacker,
            source_name="etc",
            order=order(**{**SPOKEN, **options}),
            rsync_port=port,
            username="one-time",
            password=Secret("one-time-password"),
        )
        return back_up(job, storage or self.storage, clock=self.clock)

    def attack(self, entries: Iterable[Entry], *, hard_links: bool = False, **behaviour: Any) -> BackupReport:
        with MaliciousRsyncServer(entries, **behaviour) as server:
            outcome = self.back_up(server.port, preserve_hard_links=hard_links)
            assert server.arguments, f"the receiver never asked: {outcome.summary}"
            return outcome

    def assert_untouched(self) -> None:
        assert self._state() == self._before


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    volume.assert_untouched()


def received(volume: Volume) -> Path:
    (snapshot,) = [path for path in (volume.attacker / "etc.snapshots").glob("etc_*") if path.is_dir()]
    return snapshot


def test_the_hostile_daemon_speaks_the_protocol_well_enough_to_be_backed_up(volume: Volume) -> None:
    outcome = volume.attack([Entry(b"file"), directory(b"directory"), Entry(b"directory/file")])
    assert outcome.success, outcome.summary
    assert (received(volume) / "directory" / "file").read_bytes() == b"owned\n"


@pytest.mark.parametrize(
    "name",
    [
        b"../canary/file",
        b"../../" + VICTIM.encode() + b"/etc/file",
        b"directory/../../../" + VICTIM.encode() + b"/etc/file",
        b"..",
        b"./../x",
        b"/tmp/turku-m9-absolute",
        b"//tmp/turku-m9-absolute",
    ],
)
def test_a_name_that_leads_out_of_the_tree_writes_nothing_there(volume: Volume, name: bytes) -> None:
    outcome = volume.attack([directory(b"directory"), Entry(name)])
    assert not outcome.success
    assert not Path("/tmp/turku-m9-absolute").exists()


@pytest.mark.parametrize("target", ["canary", f"volume/{VICTIM}/etc"])
def test_a_link_out_of_the_tree_is_kept_as_a_link_and_not_written_through(volume: Volume, target: str) -> None:
    outside = os.fsencode(volume.base / target)
    outcome = volume.attack([symbolic_link(b"link", outside), Entry(b"link/file")])
    assert not outcome.success
    assert volume.attack([symbolic_link(b"link", outside)]).success
    assert os.readlink(received(volume) / "link") == os.fsdecode(outside)


def test_a_link_of_one_run_is_not_written_through_in_the_next(volume: Volume) -> None:
    outside = os.fsencode(volume.canary)
    assert volume.attack([symbolic_link(b"link", outside)]).success
    volume.attack([directory(b"link"), Entry(b"link/file")])
    with MaliciousRsyncServer([symbolic_link(b"link", outside)]) as server:
        volume.back_up(server.port, snapshot_mode="none")
    with MaliciousRsyncServer([directory(b"link"), Entry(b"link/file")]) as server:
        volume.back_up(server.port, snapshot_mode="none")


def test_device_nodes_are_left_out(volume: Volume) -> None:
    devices = [Entry(b"disk", mode=stat.S_IFBLK | 0o666, device=(254, 0)), Entry(b"zero", mode=stat.S_IFCHR | 0o666)]
    outcome = volume.attack([Entry(b"file"), *devices])
    assert outcome.success, outcome.summary
    assert [path.name for path in received(volume).iterdir()] == ["file"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
@needs_sandbox
def test_not_even_a_receiver_that_wants_to_makes_device_nodes(volume: Volume) -> None:
    # rsync is told to make them, but the sandbox has taken the capability.
    wants_devices = 'for word; do shift; [ "$word" = --no-devices ] || set -- "$@" "$word"; done; exec "$0" "$@"'
    asked = with_values(volume.storage, rsync_command=("sh", "-c", wants_devices, rsync_programs.chosen.storage))
    with MaliciousRsyncServer([Entry(b"disk", mode=stat.S_IFBLK | 0o666, device=(254, 0))]) as server:
        outcome = volume.back_up(server.port, storage=asked)
    assert "mknod" in outcome.summary
    assert not any(stat.S_ISBLK(path.lstat().st_mode) for path in volume.attacker.rglob("*"))


def test_setuid_files_stay_behind_closed_directories(volume: Volume) -> None:
    outcome = volume.attack([Entry(b"shell", mode=stat.S_IFREG | 0o6755)])
    assert outcome.success, outcome.summary
    # The mode is part of the backup. Other users have no access because nobody gets there.
    snapshots = volume.attacker / "etc.snapshots"
    assert stat.S_IMODE(snapshots.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("place", [0, 3, 5_000, 2**30, 2**31 - 1])
def test_a_forged_hard_link_links_nothing_of_others(volume: Volume, place: int) -> None:
    volume.attack([Entry(b"file"), Entry(b"linked", linked_to=place)], hard_links=True)
    assert (volume.victim / "etc" / "file").stat().st_nlink == 1


@pytest.mark.parametrize("name", [b"../../" + VICTIM.encode() + b"/etc/file", b"/etc/shadow", b"../canary/file"])
def test_no_file_outside_is_a_base_whose_content_reaches_the_daemon(volume: Volume, name: bytes) -> None:
    outcome = volume.attack([Entry(b"file")], basis_name=name)
    trees = [path for path in volume.attacker.rglob("*") if path.is_file()]
    assert not any(b"history" in path.read_bytes() or b"root:" in path.read_bytes() for path in trees)
    assert not outcome.success or (received(volume) / "file").read_bytes() == b"owned\n"


def test_an_endless_file_is_ended_by_the_limit_on_bytes(volume: Volume) -> None:
    volume.storage = with_values(volume.storage, max_run_bytes=20_000_000)
    began = time.monotonic()
    outcome = volume.attack([Entry(b"endless", size=2**62)], endless=True)
    assert not outcome.success
    assert "max_run_bytes" in outcome.summary
    assert time.monotonic() - began < 30
    assert list((volume.attacker / "etc.snapshots").glob("etc_*")) == []


def test_a_file_of_an_enormous_claimed_size_takes_no_space_by_that(volume: Volume) -> None:
    free_before = os.statvfs(volume.attacker).f_bavail
    volume.attack([Entry(b"large", size=2**60)])
    taken = (free_before - os.statvfs(volume.attacker).f_bavail) * os.statvfs(volume.attacker).f_frsize
    assert taken < 2**30


def test_a_flood_of_small_files_is_ended_by_the_limit_on_files(volume: Volume) -> None:
    volume.storage = with_values(volume.storage, max_run_files=2_000)
    began = time.monotonic()
    # A long list of many directories: rsync begins to write while it still reads.
    outcome = volume.attack(Entry(b"%08d" % number, size=1) for number in range(300_000))
    assert not outcome.success
    assert "max_run_files" in outcome.summary
    assert time.monotonic() - began < SOON_SECONDS


def test_a_list_of_files_without_an_end_is_ended_by_the_limit_on_memory(volume: Volume) -> None:
    volume.storage = with_values(volume.storage, max_run_memory_bytes=100_000_000)
    began = time.monotonic()
    outcome = volume.attack(Entry(b"%012d" % number * 15) for number in itertools.count())
    assert not outcome.success
    assert "max_run_memory_bytes" in outcome.summary
    assert time.monotonic() - began < SOON_SECONDS


def test_a_daemon_that_falls_silent_is_ended_by_the_limit_on_time(volume: Volume) -> None:
    volume.storage = with_values(volume.storage, max_run_seconds=2)
    began = time.monotonic()
    outcome = volume.attack([Entry(b"file")], silent=True)
    assert "max_run_seconds" in outcome.summary
    assert time.monotonic() - began < 15


def test_an_old_rsync_is_refused_with_the_reason(volume: Volume) -> None:
    old = ("sh", "-c", 'echo "rsync  version 3.4.1  protocol version 32"', "rsync")
    with MaliciousRsyncServer([Entry(b"file")]) as server:
        outcome = volume.back_up(
            server.port, storage=with_values(volume.storage, rsync_command=old, allow_old_rsync=False)
        )
        assert not outcome.success
        assert version.REASON in outcome.summary
        assert "allow_old_rsync" in outcome.summary
        assert not server.received


# --- a compromised receiver, whatever its version


TAKEN_OVER = """
import json, os, pathlib, shutil, sys
work = pathlib.Path.cwd()
if "--version" in sys.argv:
    print("rsync  version 3.5.0  protocol version 32")
    raise SystemExit(0)
found = {}
for path in sys.argv[1].split(":"):
    try:
        pathlib.Path(path).write_text("owned")
        found[path] = "written"
    except OSError as error:
        found[path] = str(error)
(work / "found.json").write_text(json.dumps(found))
"""


@needs_sandbox
def test_a_taken_over_receiver_writes_to_no_other_machines_tree(volume: Volume, tmp_path: Path) -> None:
    targets = [
        str(volume.victim / "etc" / "file"),
        str(volume.victim / "etc.snapshots" / SNAPSHOT / "file"),
        f"../{VICTIM}/etc/file",
        str(volume.canary / "file"),
        str(volume.storage.state.var_dir / "config.d" / "x.json"),
    ]
    with MaliciousRsyncServer([]) as server:
        volume.back_up(server.port, storage=taken_over(volume, TAKEN_OVER, ":".join(targets)))
    [left] = volume.attacker.rglob("found.json")
    found = json.loads(left.read_text())
    assert "written" not in found.values()
    assert len(found) == len(targets)


SWAPS_DIRECTORY = f"""
import os, pathlib, sys
if "--version" not in sys.argv and "--dry-run" not in sys.argv:
    name, machine_dir = sys.argv[1:3]
    pathlib.Path("planted").write_text("owned")
    for work in (pathlib.Path(machine_dir), pathlib.Path(".."), pathlib.Path("/"), pathlib.Path("/beside0/..")):
        try:
            os.rename(work / name, work / "away")
            os.symlink("../{VICTIM}/" + name, work / name)
            pathlib.Path("swapped").write_text(str(work))
        except OSError:
            continue
"""


@pytest.mark.parametrize("name", ["etc.snapshots", "etc"])
@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_a_taken_over_receiver_cannot_lead_the_commit_into_another_machines_directory(
    volume: Volume, name: str, mode: str
) -> None:
    # Both modes have a snapshots directory by then: the source kept history before.
    assert volume.attack([Entry(b"file")]).success
    with MaliciousRsyncServer([]) as server:
        outcome = volume.back_up(
            server.port,
            storage=taken_over(volume, SWAPS_DIRECTORY, name, str(volume.attacker)),
            snapshot_mode=mode,
            retention="last 1 snapshots",
        )
    assert "exit code" not in outcome.summary
    assert list(volume.attacker.rglob("planted"))
    assert not list(volume.attacker.rglob("swapped"))
    assert not (volume.attacker / name).is_symlink()


@pytest.mark.parametrize("name", ["etc.snapshots", "etc"])
@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_a_link_that_an_older_fault_left_leads_no_commit_into_another_machines_directory(
    volume: Volume, name: str, mode: str
) -> None:
    assert volume.attack([Entry(b"file")]).success
    with suppress(FileNotFoundError):
        (volume.attacker / name).rename(volume.attacker / "away")
    (volume.attacker / name).symlink_to(f"../{VICTIM}/{name}")
    with MaliciousRsyncServer([Entry(b"file")]) as server:
        volume.back_up(server.port, snapshot_mode=mode, retention="last 1 snapshots")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("trap", ["pipe", "endless"])
@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_leftovers_of_an_older_fault_among_the_storages_notes_neither_stop_nor_fill_it(
    volume: Volume, trap: str, mode: str
) -> None:
    assert volume.attack([Entry(b"file")]).success
    snapshots = volume.attacker / "etc.snapshots"
    traps = [snapshots / ".in-place", snapshots / "latest", snapshots / ".fetch-list", *snapshots.glob("*.json")]
    for path in (*traps, volume.attacker / ".etc.writing"):
        path.unlink(missing_ok=True)
        os.mkfifo(path) if trap == "pipe" else path.symlink_to("/dev/zero")
    with MaliciousRsyncServer([Entry(b"file")]) as server:
        outcome = volume.back_up(server.port, snapshot_mode=mode)
    assert outcome.success, outcome.summary
    place = SourceDirectory(volume.attacker, "etc")
    for stored in history.stored_snapshots(place, volume.storage.state.timezone):
        snapshot_record.read(place, stored.name)


def taken_over(volume: Volume, script: str, *arguments: str) -> StorageConfig:
    """The storage with a receiver that runs ``script``, whatever rsync's arguments are."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    # It says no version.
    return with_values(volume.storage, rsync_command=(python, "-c", script, *arguments), allow_old_rsync=True)
