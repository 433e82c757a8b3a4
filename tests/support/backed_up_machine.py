"""One machine with one source behind a real rsync daemon, and a storage's volume to back it up to.

machine.source_dir      the tree that is backed up, to be changed at will
machine.back_up(...)    one backup through ``turku.storage.backup.run``, with keywords as the order's options
machine.days(5, ...)    a backup on each of five days, of a file that changes. Returns the snapshots' names
machine.place           where it lies on the volume
machine.snapshots()     names in history, oldest first
machine.differences(t)  what ``rsync -aHn --checksum --delete --itemize-changes`` says between the source and tree t
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support import rsync_programs, trees
from tests.support.rsyncd import Rsyncd

from turku.core.configuration.declaration import with_values
from turku.core.secret import Secret
from turku.protocol.messages import SourceOrder, StorageAddress
from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.backup.job import BackupJob, BackupReport, mode_name
from turku.storage.backup.run import back_up
from turku.storage.config import loading as configuration
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.rsync.file_system_support import probe_file_system
from turku.storage.snapshots import MODES

ADDRESS = StorageAddress(
    name="primary", ssh_ping_host="127.0.0.1", ssh_ping_host_keys=[], ssh_ping_port=22, ssh_ping_user="root"
)
FAILING_RSYNC = ("sh", "-c", '"$0" --exclude="/late*" "$@"; exit 12', "rsync")
"""Brings over all but names that begin with ``late``, and breaks off."""
KEEP_ALL = "last 1000 snapshots"


def order(**options: Any) -> SourceOrder:
    """An order as the coordinator would give it."""
    return SourceOrder(path="/etc", storage=ADDRESS, **{"retention": KEEP_ALL, **options})


def storage_configuration(directory: Path, **keys: Any) -> StorageConfig:
    """A checked configuration with its state below ``directory``."""
    (directory / "config.d").mkdir(parents=True, exist_ok=True)
    content = {
        "api_url": "http://127.0.0.1:1/v1",
        "name": "primary",
        "secret": "0123456789012345678901234567890",
        "volumes": {"data": {"path": str(directory / "volume")}},
        "var_dir": str(directory / "var"),
        "authorized_keys_file": str(directory / "authorized_keys"),
        "ssh_ping_host_keys": ["ssh-ed25519 AAAA"],
        "log_file": str(directory / "log"),
        # The trees of these tests hold device nodes, and disks of testers may be full.
        "keep_devices": True,
        "low_water_free_pct": 0,
        # A tester's container may not let bubblewrap work.
        "sandbox": "auto",
        # The effect of retention alone. Tests about the floor set it themselves.
        "retention_floor": "",
        "minimum_period_seconds": 0,
        "trash_days": 0,
        **keys,
    }
    (directory / "config.d" / "config.json").write_text(json.dumps(rsync_programs.of_storage(content)))
    return configuration.load(directory)


class StorageClock:
    """A minute passes between two backups, so that they come in an order of their own."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic_seconds(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a backup does not sleep")


@dataclass
class BackedUpMachine:
    """A source that can be backed up."""

    source_dir: Path
    machine_dir: Path
    daemon: Rsyncd
    storage: StorageConfig
    source: str = "etc"
    clock: StorageClock = field(default_factory=StorageClock)
    changed_entries: Callable[[float], ChangedEntries | None] = lambda _timeout_seconds: None
    """The entries that its agent names as changed lately. By default it gives no moments, and names nothing."""
    moment_ns: int | None = None
    with_holes: frozenset[bytes] | None = None
    """The files that its agent names as files with holes, or None where it cannot tell."""

    @property
    def place(self) -> SourceDirectory:
        return SourceDirectory(self.machine_dir, self.source)

    @property
    def fake_super(self) -> bool:
        return probe_file_system(self.storage, self.machine_dir).fake_super

    def job(self, **options: Any) -> BackupJob:
        return BackupJob(
            machine_dir=self.machine_dir,
            source_name=self.source,
            order=order(**options),
            rsync_port=self.daemon.port,
            username=self.daemon.username,
            password=Secret(self.daemon.password),
            machine_time_ns=self.moment_ns,
            changed_entries=self.changed_entries,
            files_with_holes=lambda _timeout_seconds: self.with_holes,
        )

    def back_up(self, **options: Any) -> BackupReport:
        self.clock.moment += timedelta(minutes=1)
        return back_up(self.job(**options), self.storage, clock=self.clock)

    def days(self, count: int, **options: Any) -> list[str]:
        """Make a history of so many days, one backup on each, and return the names of its snapshots."""
        made = []
        for _ in range(count):
            self.clock.moment += timedelta(days=1, minutes=-1)
            (self.source_dir / "diary").write_text(f"{self.clock.moment:%Y-%m-%d}\n")
            outcome = self.back_up(**options)
            assert outcome.success, outcome.summary
            assert outcome.snapshot is not None
            made.append(outcome.snapshot)
        return made

    def with_rsync(self, *rsync_command: str) -> "BackedUpMachine":
        """The same machine, its storage running another rsync, which may look around: outside the sandbox.

        What stands in for rsync need not say a version. A script starts the storage's rsync as ``"$0"``.
        """
        stand_in = tuple(rsync_programs.words(rsync_command))
        storage = with_values(self.storage, rsync_command=stand_in, sandbox="off", allow_old_rsync=True)
        return replace(self, storage=storage)

    def newest_tree(self) -> Path:
        """The backup made last: a snapshot, or the working tree of a mode without history."""
        mode = MODES[mode_name(order(), self.storage.receiving, self.machine_dir)]
        return self.place.snapshot(self.snapshots()[-1]) if mode.keeps_history else self.place.working_tree

    def snapshots(self) -> list[str]:
        return [stored.name for stored in history.stored_snapshots(self.place, self.storage.state.timezone)]

    def differences(self, tree: Path, *options: str) -> list[str]:
        """A line per difference between the source and ``tree``, as rsync itemizes them."""
        # On both sides: the source has none of the attributes that it reads, and is taken as it is.
        as_stored = ("--fake-super",) if self.fake_super else ()
        return trees.differences(self.source_dir, tree, "--numeric-ids", *as_stored, *options)


@contextmanager
def backed_up_machine(
    directory: Path, *, source: str = "etc", volume: Path | None = None, **keys: Any
) -> Iterator[BackedUpMachine]:
    """Yield a machine whose source is empty. ``volume`` is one that lies elsewhere, ``keys`` the storage's
    configuration."""
    source_dir = directory / "source"
    machine_dir = (volume or directory / "volume") / "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
    source_dir.mkdir(parents=True)
    machine_dir.mkdir(parents=True)
    with Rsyncd(directory / "rsyncd", {source: source_dir}) as daemon:
        yield BackedUpMachine(
            source_dir=source_dir,
            machine_dir=machine_dir,
            daemon=daemon,
            storage=storage_configuration(directory / "storage", **keys),
            source=source,
        )


def fingerprint(tree: Path) -> dict[bytes, tuple[Any, ...]]:
    """All that can be known of each entry of a tree: type, mode, owner, times, size, content, attributes.

    Link counts and change times are left out: a hard link from another snapshot changes them.
    """
    found: dict[bytes, tuple[Any, ...]] = {}
    _fingerprint(os.open(tree, os.O_RDONLY | os.O_DIRECTORY), b".", found)
    return found


def _fingerprint(directory: int, prefix: bytes, found: dict[bytes, tuple[Any, ...]]) -> None:
    try:
        found[prefix] = _facts(os.fstat(directory), f"/proc/self/fd/{directory}", _nothing)
        for entry in os.listdir(directory):
            name = os.fsencode(entry)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            path = prefix + b"/" + name
            if stat.S_ISDIR(status.st_mode):
                _fingerprint(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory), path, found)
            elif stat.S_ISREG(status.st_mode):
                descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
                with os.fdopen(descriptor, "rb") as stream:
                    found[path] = _facts(status, f"/proc/self/fd/{descriptor}", stream.read)
            elif stat.S_ISLNK(status.st_mode):
                found[path] = (status.st_mode, status.st_uid, status.st_gid, os.readlink(name, dir_fd=directory))
            else:
                found[path] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev)
    finally:
        os.close(directory)


def _nothing() -> bytes:
    return b""


def _facts(status: os.stat_result, reference: str, read: Callable[[], bytes]) -> tuple[Any, ...]:
    attributes = {name: os.getxattr(reference, name) for name in os.listxattr(reference)}
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        hashlib.sha256(read()).hexdigest(),
        tuple(sorted(attributes.items())),
    )
