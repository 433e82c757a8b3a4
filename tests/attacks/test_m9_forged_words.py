"""M9, M13: a machine's daemon that forges what rsync prints has no say in what is kept, believed or repaired.

What a sender has its receiver print comes among the receiver's own lines. Whatever it is, ``turku-storage verify``
changes no past snapshot, nothing in the trash and no inode that an earlier snapshot shares, and each checksum in the
catalog is that of the content. In all modes that keep history.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import xxhash
from tests.conformance.snapshots.conftest import loop_volumes, volume
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, order
from tests.support.forging_rsync_server import TIME, Forged, ForgingRsyncServer
from tests.support.malicious_rsync_server import SPOKEN

from turku.core.secret import Secret
from turku.demo import programs
from turku.storage import catalog
from turku.storage.backup.job import BackupJob, BackupReport
from turku.storage.backup.run import back_up
from turku.storage.catalog import EntryKind
from turku.storage.disk import deletion
from turku.storage.fs import subvolume
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import damage, scrub
from turku.storage.integrity.damage import DamageRecord
from turku.storage.integrity.scrub import ScrubShare
from turku.storage.snapshots import MODES, SnapshotMode

__all__ = ["loop_volumes", "volume"]

OLD = b"what was written in better times\n"
EVIL = b"OWNED OWNED OWNED OWNED OWNED OW\n"
NOBODYS = xxhash.xxh128(b"no such content").digest()
assert len(OLD) == len(EVIL)


@pytest.fixture(params=sorted(name for name, mode in MODES.items() if mode.keeps_history))
def mode(request: pytest.FixtureRequest) -> type[SnapshotMode]:
    return MODES[request.param]


class Victim:
    """A machine with days of history, some of them in the trash, which is then compromised."""

    def __init__(self, machine: BackedUpMachine, config_dir: Path) -> None:
        self.machine = machine
        self._config_dir = config_dir
        write(machine.source_dir / "old.doc", OLD)
        for number in range(4):
            write(machine.source_dir / "diary", f"day {number}\n".encode(), TIME - 3 + number)
            os.utime(machine.source_dir, (TIME, TIME))
            machine.clock.moment += timedelta(days=1)
            outcome = machine.back_up(retention="last 2 snapshots" if number == 3 else "last 1000 snapshots")
            assert outcome.success, outcome.summary
        self.past = self.state()
        assert any(name.startswith(".trash-") for name, _path in self.past)

    def attack(self, server: ForgingRsyncServer, **options: object) -> BackupReport:
        self.machine.clock.moment += timedelta(days=1)
        with server:
            job = BackupJob(
                machine_dir=self.machine.machine_dir,
                source_name="etc",
                order=order(**{**SPOKEN, **options}),
                rsync_port=server.port,
                username="one-time",
                password=Secret("one-time-password"),
            )
            return back_up(job, self.machine.storage, clock=self.machine.clock)

    def succeed(self, server: ForgingRsyncServer, **options: object) -> None:
        outcome = self.attack(server, **options)
        assert outcome.success, outcome.summary

    def verify(self) -> str:
        done = programs.run("turku-storage", "verify", "--config-dir", self._config_dir, expected_codes=range(256))
        return done.stdout.decode() + "\n".join(done.last_lines)

    def state(self) -> dict[tuple[str, str], tuple[object, ...]]:
        """Every entry of history and trash, as exactly as can be told."""
        found: dict[tuple[str, str], tuple[object, ...]] = {}
        for tree in sorted(self.machine.place.snapshots_dir.iterdir()):
            is_kept = not tree.name.startswith(".") or tree.name.startswith(".trash-")
            if is_kept and tree.is_dir() and not tree.is_symlink():
                for path in [tree, *sorted(tree.rglob("*"))]:
                    found[tree.name, str(path.relative_to(tree))] = exactly(path)
        return found

    def assert_past_is_unchanged(self) -> None:
        now = self.state()
        assert {key: now.get(key) for key in self.past} == self.past

    def assert_catalog_is_true(self) -> None:
        with catalog.open_catalog(self.machine.place, zone=self.machine.storage.state.timezone) as known:
            for name in self.machine.snapshots():
                tree = self.machine.place.tree(name)
                listed = {entry.path: entry for entry in known.files(name)}
                assert sorted(listed) == sorted(os.fsencode(path.relative_to(tree)) for path in tree.rglob("*"))
                for path, entry in listed.items():
                    stored = tree / os.fsdecode(path)
                    status = stored.lstat()
                    if entry.kind is EntryKind.FILE:
                        assert (entry.size, entry.mtime_ns) == (status.st_size, status.st_mtime_ns), (name, path)
                        assert entry.checksum is not None, (name, path)
                        assert entry.checksum == xxhash.xxh128(stored.read_bytes()).digest(), (name, path)

    def newest(self) -> Path:
        return self.machine.place.tree(self.machine.snapshots()[-1])


def write(path: Path, content: bytes, time: int = TIME) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    os.utime(path, (time, time))


def exactly(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = path.read_bytes() if path.is_file() else b""
    attributes = [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
    return (
        *(status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid),
        *(status.st_size, status.st_mtime_ns, content, attributes),
    )


@pytest.fixture
def victim(mode: type[SnapshotMode], tmp_path: Path, volume: Path) -> Iterator[Victim]:
    keys: dict[str, Any] = {"volumes": {"data": {"path": str(volume)}}, "snapshot_mode": mode.name, "trash_days": 14}
    with backed_up_machine(tmp_path, volume=volume, keep_devices=False, **keys) as machine:
        yield Victim(machine, tmp_path / "storage")


def line(itemized: bytes, checksum: bytes, name: bytes) -> bytes:
    return b":" + itemized + b"|" + checksum.hex().encode() + b"|" + name + b"\n"


LINKED = [Forged(b"old.doc", OLD, is_first_of_linked=True), Forged(b"zz", OLD, linked_to=1)]
NEGOTIATED = b"Client negotiated checksum: xxh128\n"
UNFINISHED = b":>f+++++++++|" + b" " * 32 + b"|a name that takes in what comes next "
STATISTICS = [
    b"Number of files: 1 (reg: 1)\n",
    b"Number of created files: 0\n",
    b"Number of deleted files: 0\n",
    b"Number of regular files transferred: 0\n",
    b"Total file size: 1 bytes\n",
    b"Total transferred file size: 0 bytes\n",
    b"Literal data: 0 bytes\n",
]


@pytest.mark.parametrize("forged", [NOBODYS, xxhash.xxh128(EVIL).digest()], ids=["nobody's", "the attacker's"])
def test_m13_a_forged_line_about_a_hard_link_of_an_unchanged_file_repairs_nothing(
    victim: Victim, forged: bytes
) -> None:
    # F2 and F3 of the audit: `zz` is the inode of all past snapshots, and the line gives it another checksum.
    printed = line(b"hf+++++++++", forged, b"zz")
    victim.succeed(
        ForgingRsyncServer(LINKED, said=[NEGOTIATED, printed], said_before_file=[printed], said_after=[printed]),
        preserve_hard_links=True,
    )
    victim.assert_catalog_is_true()
    printed = line(b">f..t......", forged, b"old.doc")
    changed = [Forged(b"old.doc", EVIL, time=TIME + 555), Forged(b"zz", OLD)]
    victim.succeed(ForgingRsyncServer(changed, said=[NEGOTIATED, printed], said_after=[printed]))
    victim.assert_catalog_is_true()
    said = victim.verify()
    assert "damage" not in said.replace("0 damaged", "").replace("no damage", ""), said
    victim.assert_past_is_unchanged()
    victim.assert_catalog_is_true()
    assert (victim.newest() / "old.doc").read_bytes() == EVIL


@pytest.mark.parametrize(
    "said",
    [
        [line(b"*deleting  ", b"", b"old.doc")],
        [line(b">f+++++++++", NOBODYS, b"old.doc"), line(b".f..t......", NOBODYS, b"zz")],
        [line(b">f+++++++++", NOBODYS, b"../../etc.snapshots/old.doc")],
        STATISTICS,
        [UNFINISHED],
        [b":"],
        [b"x" * 4000] * 9,
        [b"a message that has no end"],
    ],
    ids=["deleted", "changed", "outside", "statistics", "takes in a line", "mark", "cut", "no end"],
)
def test_m9_no_words_of_a_daemon_keep_a_changed_file_from_being_read(victim: Victim, said: list[bytes]) -> None:
    changed = [Forged(b"old.doc", EVIL, time=TIME + 555), Forged(b"zz", OLD)]
    server = ForgingRsyncServer(changed, said=said, said_before_file=said, said_after=said)
    victim.succeed(server)
    victim.assert_catalog_is_true()
    assert (victim.newest() / "old.doc").read_bytes() == EVIL
    victim.verify()
    victim.assert_past_is_unchanged()
    victim.assert_catalog_is_true()
    assert (victim.newest() / "old.doc").read_bytes() == EVIL


def test_m9_another_content_of_the_same_size_and_time_is_read_although_its_line_is_hidden(
    victim: Victim, mode: type[SnapshotMode]
) -> None:
    # A file that is known to be damaged has all files compared, whatever their size and time.
    damage.write(victim.machine.place, [DamageRecord("diary", "content", "next_backup", ())])
    same = [Forged(b"diary", b"day 9\n"), Forged(b"old.doc", EVIL, is_first_of_linked=True)]
    server = ForgingRsyncServer(same, said_before_file=[UNFINISHED])
    victim.succeed(server, preserve_hard_links=True)
    assert ((victim.newest() / "old.doc").read_bytes() == EVIL) == (not mode.shares_blocks)
    victim.assert_catalog_is_true()
    victim.assert_past_is_unchanged()


def test_m9_the_files_of_a_run_that_broke_off_are_read_by_the_next(victim: Victim) -> None:
    # Other content under another time, then under the old time, then nothing: the last run has no line about it.
    for time in (TIME + 555, TIME):
        evil = [Forged(b"diary", b"day 3\n"), Forged(b"old.doc", EVIL, time=time), Forged(b"zz", OLD, time=time)]
        assert not victim.attack(ForgingRsyncServer(evil, breaks_off=True), preserve_hard_links=True).success
    last = [Forged(b"diary", b"day 3\n"), Forged(b"old.doc", EVIL), Forged(b"zz", OLD)]
    victim.succeed(ForgingRsyncServer(last), preserve_hard_links=True)
    victim.assert_catalog_is_true()
    victim.verify()
    victim.assert_past_is_unchanged()
    victim.assert_catalog_is_true()


def test_m13_a_row_whose_checksum_is_unknown_takes_none_that_a_machine_made_up(victim: Victim) -> None:
    # Not reproduced by the audit: a row that spans old snapshots takes its checksum from a later one of that inode.
    place, zone = victim.machine.place, victim.machine.storage.state.timezone
    assert catalog.rebuild(place, zone=zone) == 2
    with catalog.open_catalog(place, zone=zone) as known:
        assert {entry.checksum for entry in known.history(b"old.doc")} == {None}
    printed = [line(b".f..t......", NOBODYS, b"old.doc"), line(b"hf+++++++++", NOBODYS, b"zz")]
    server = ForgingRsyncServer(LINKED, said=[NEGOTIATED, *printed], said_before_file=printed, said_after=printed)
    victim.succeed(server, preserve_hard_links=True)
    victim.succeed(ForgingRsyncServer([LINKED[0]], said_after=printed), preserve_hard_links=True)
    content = xxhash.xxh128(OLD).digest()
    with catalog.open_catalog(place, zone=zone) as known:
        entries = [*known.history(b"old.doc"), *known.history(b"zz")]
        assert {entry.checksum for entry in entries} <= {None, content}
    # The snapshots between go, so that rows become one.
    for name in victim.machine.snapshots()[1:-1]:
        deletion.mark(place, name)
    catalog.forget(place, zone=zone)
    victim.past = {key: value for key, value in victim.state().items() if key in victim.past}
    with catalog.open_catalog(place, zone=zone) as known:
        assert {entry.checksum for entry in known.history(b"old.doc")} <= {None, content}
    victim.verify()
    victim.assert_past_is_unchanged()
    victim.assert_catalog_is_true()


def test_m13_a_damaged_file_whose_only_copy_is_in_the_base_comes_with_the_next_backup(
    victim: Victim, mode: type[SnapshotMode]
) -> None:
    machine = victim.machine
    trees = [path for path in machine.place.snapshots_dir.iterdir() if path.is_dir() and not path.is_symlink()]
    base = victim.newest()
    damaged = [tree for tree in trees if not mode.shares_blocks or tree == base]
    for tree in damaged if mode.shares_blocks else [base]:
        flip(tree / "old.doc", tree)
    if mode.shares_blocks:
        # The others have a good copy: it is gone with them.
        for name in machine.snapshots()[:-1]:
            deletion.mark(machine.place, name)
        for tree in trees:
            if tree.name.startswith(".trash-"):
                deletion.mark(machine.place, tree.name)
        catalog.forget(machine.place, zone=machine.storage.state.timezone)
    before = victim.state()
    made = scrub.verify(machine.place, zone=machine.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())
    assert [(each.path, each.state) for each in made.damages] == [("old.doc", "next_backup")]
    damage.write(machine.place, made.open_damages)
    assert damage.to_fetch(machine.place) == {b"old.doc"}
    assert victim.state() == before
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy == ("in-place" if mode.shares_blocks else "incremental")
    assert (victim.newest() / "old.doc").read_bytes() == OLD
    assert machine.differences(victim.newest()) == []
    now = victim.state()
    assert {key: now.get(key) for key in before} == before
    made = scrub.verify(machine.place, zone=machine.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())
    assert {each.state for each in made.damages} <= {"repaired", "gone"}
    damage.write(machine.place, made.open_damages)
    now = victim.state()
    # Repaired by another file in the damaged one's place: whatever shares its inode and is not known to be it stays.
    assert {name: now[name, "old.doc"][7] for name, path in before if path == "old.doc" and name[0] != "."} == {
        name: OLD for name, path in before if path == "old.doc" and name[0] != "."
    }
    victim.assert_catalog_is_true()


def flip(path: Path, tree: Path) -> None:
    is_sealed = subvolume.is_subvolume(tree)
    if is_sealed:
        subvolume.set_read_only(tree, read_only=False)
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"W")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if is_sealed:
        subvolume.set_read_only(tree, read_only=True)
    os.sync()
