"""A volume with the history of a machine, its neighbours, and a check of all of it after a hostile session.

    with fuzzed_volume(directory, volume, "link-dest") as fuzzed:
        outcome = fuzzed.session(port)          one backup against whatever listens there
        fuzzed.faults(outcome)                  forbidden changes, a sentence each
        fuzzed.honest_faults()                  the damage that a backup by the machine's own daemon shows

The machine has a base, earlier snapshots, one that is a link, a trash and a second source. Another machine lies beside
it on the volume, and a tree that is bait beside the volume.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from tests.support import forged_messages, random_history
from tests.support.backed_up_machine import BackedUpMachine, StorageClock, order, storage_configuration
from tests.support.rsyncd import Rsyncd

from turku.core.secret import Secret
from turku.storage import catalog
from turku.storage.backup.job import BackupJob, BackupReport
from turku.storage.backup.run import back_up

MODES = ("link-dest", "none", "btrfs", "reflink")
MACHINE = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
OTHER_MACHINE = forged_messages.OTHER_MACHINE.decode()
SECONDS_OF_A_RUN = 3
MEMORY_OF_A_RUN_BYTES = 150_000_000
BYTES_OF_A_RUN = 30_000_000
STRATEGIES = {
    "link-dest": ("incremental", "unchanged"),
    "reflink": ("in-place", "unchanged"),
    "btrfs": ("in-place", "unchanged"),
    "none": ("in-place",),
}
"""The strategies of the honest backup after hostile ones: none of them makes everything be fetched again."""
LIE = ">fc........ "
"""The itemized changes of a file that has the size and time of the other one, and other content. A machine that sent
such a file once is believed by the quick check from then on. Comparing with the source finds it
(compare_with_source)."""
# Names that a run itself makes, replaces or removes. Rules of retention are the order's, recorded after each success.
_HIDDEN = (
    *(".staging", ".assembling", ".cloning", ".former", ".fetch-list", ".in-place", ".deleting-", "latest"),
    ".retention",
)
Facts = tuple[object, ...]


@dataclass
class FuzzedVolume:
    """Made by ``fuzzed_volume``."""

    directory: Path
    """The directory of the volume and of other things that must not change: the bait, the storage's configuration."""
    volume: Path
    mode: str
    machine: BackedUpMachine
    other: BackedUpMachine
    believed_lies: int = 0
    """Files that honest backups took for unchanged, and were not: their size and time were those of the machine's."""
    _before: dict[str, Facts] = field(default_factory=dict)
    _digests: dict[tuple[int, int, int, int], str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, str]:
        return {"snapshot_mode": self.mode}

    def change_source(self, number: int) -> None:
        """A day at the machine: a file that changes, one that comes, one that goes."""
        source = self.machine.source_dir
        (source / "diary").write_text(f"day {number}\n" * (number % 50 + 1))
        if number % 3 == 0:
            (source / "directory" / f"new {number % 7}").write_text("new")
        if number % 5 == 0:
            (source / "directory" / f"new {(number + 4) % 7}").unlink(missing_ok=True)

    def session(self, port: int, **options: object) -> BackupReport:
        """A backup from whatever listens at the port, as the product makes it."""
        machine = self.machine
        machine.clock.moment += timedelta(minutes=1)
        job = BackupJob(
            machine_dir=machine.machine_dir,
            source_name=machine.source,
            order=order(**self.options, **options),
            rsync_port=port,
            username=machine.daemon.username,
            password=Secret(machine.daemon.password),
        )
        return back_up(job, machine.storage, clock=machine.clock)

    def faults(self, outcome: BackupReport | None) -> list[str]:
        """Return the forbidden changes since the call before this one."""
        before, after = self._before, self._state()
        self._before = after
        new = sorted(after.keys() - before.keys())
        machine = f"volume/{MACHINE}"
        snapshots = f"{machine}/{self.machine.source}.snapshots"
        made = None if outcome is None else outcome.snapshot
        allowed = {f"{snapshots}/{made}", f"{snapshots}/{made}.json"} if made else set()
        found = [f"{path} is gone" for path in sorted(before.keys() - after.keys())]
        found += [f"{path} was made" for path in new if path not in allowed and _top(path, snapshots) not in allowed]
        found += [f"{path} is not there" for path in allowed if path not in after]
        found += [
            f"{path} changed: {before[path]} {after[path]}"
            for path in sorted(before.keys() & after.keys())
            if before[path] != after[path]
        ]
        if made is not None and outcome is not None and not outcome.success:
            found.append(f"a failed run has made {made}")
        if os.path.lexists(forged_messages.OUTSIDE):
            found.append(f"{forged_messages.OUTSIDE.decode()} was made")
        return found

    def honest_faults(self) -> list[str]:
        """Back up from the machine's own daemon, and compare with the source, its earlier self and the catalog."""
        outcome = self.session(self.machine.daemon.port)
        found = self.faults(outcome)
        if not outcome.success:
            return [*found, f"the honest backup failed: {outcome.summary}"]
        if outcome.strategy not in STRATEGIES[self.mode]:
            found.append(f"the honest backup was {outcome.strategy}: {outcome.strategy_reason}")
        place = self.machine.place
        tree = place.working_tree if outcome.snapshot is None else place.tree(outcome.snapshot)
        differences = self.machine.differences(tree)
        self.believed_lies += sum(line.startswith(LIE) for line in differences)
        found += [f"the honest backup differs: {line}" for line in differences if not line.startswith(LIE)]
        try:
            return found + self._catalog_faults()
        except Exception as error:
            return [*found, f"the catalog cannot be compared with the trees: {error!r:.500}"]

    def _catalog_faults(self) -> list[str]:
        """Compare each row of the catalog with the trees. A checksum that is not known says nothing."""
        machine = self.machine
        faults = []
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
            names = [each.name for each in opened.snapshots()]
            if names != machine.snapshots():
                faults.append(f"the catalog has other snapshots: {names}, {machine.snapshots()}")
            for name in names:
                expected = random_history.state(machine.place.tree(name))
                # Attributes are compared elsewhere.
                rows = {entry.path: entry.content[:8] for entry in opened.files(name)}
                for path in sorted(expected.keys() | rows.keys()):
                    found, row = expected.get(path), rows.get(path)
                    there = found and found[:8]
                    if found is not None and row is not None and row[6] is None:
                        there = (*found[:6], None, found[7])
                    if there != row:
                        faults.append(f"the catalog disagrees: {name} has {path!r}: {there}, in the catalog {row}")
        return faults

    def _state(self) -> dict[str, Facts]:
        """All that a session may not change, by its path."""
        found: dict[str, Facts] = {}
        self._read(self.volume, "volume", found)
        for name in ("bait", "storage/config.d"):
            self._read(self.directory / name, name, found)
        found["names"] = tuple(sorted(os.listdir(self.directory)))
        return found

    def _read(self, directory: Path, shown: str, found: dict[str, Facts]) -> None:
        found[shown] = self._facts(os.stat(directory), directory, shown)
        with os.scandir(directory) as listing:
            for entry in listing:
                name = entry.name.encode("utf-8", "backslashreplace").decode()
                path = f"{shown}/{name}"
                if self._may_change(path):
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    self._read(Path(entry.path), path, found)
                else:
                    found[path] = self._facts(status, Path(entry.path), path)

    def _may_change(self, path: str) -> bool:
        machine, source = f"volume/{MACHINE}", self.machine.source
        snapshots = f"{machine}/{source}.snapshots/"
        if path.startswith(snapshots):
            return path.removeprefix(snapshots).startswith(_HIDDEN)
        own = [f"{machine}/.{source}.lock", f"{machine}/.{source}.writing"]
        own += [f"{machine}/{source}"] if self.mode == "none" else []
        return path in own or path.startswith(f"volume/.catalogs/{MACHINE}/{source}.")

    def _facts(self, status: os.stat_result, path: Path, shown: str) -> Facts:
        facts: Facts = (status.st_ino, status.st_mode, status.st_uid, status.st_gid)
        if stat.S_ISDIR(status.st_mode):
            return facts if self._comes_and_goes(shown) else (*facts, status.st_mtime_ns, status.st_ctime_ns)
        # A hard link from the next snapshot changes the time of the inode, and how many names it has.
        is_shared = self.mode in ("link-dest", "none") and f"/{self.machine.source}.snapshots/" in shown
        facts = (*facts, status.st_size, status.st_mtime_ns, 0 if is_shared else status.st_ctime_ns)
        if stat.S_ISLNK(status.st_mode):
            return (*facts, os.readlink(path))
        return (*facts, self._digest(status, path)) if stat.S_ISREG(status.st_mode) else facts

    def _digest(self, status: os.stat_result, path: Path) -> str:
        key = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
        if key not in self._digests:
            self._digests[key] = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        return self._digests[key]

    def _comes_and_goes(self, shown: str) -> bool:
        """Return True if the session may make names in the directory, and remove its own."""
        machine = f"volume/{MACHINE}"
        return shown in (machine, f"{machine}/{self.machine.source}.snapshots", f"volume/.catalogs/{MACHINE}")


def _top(path: str, directory: str) -> str:
    """The entry of the directory that has the path."""
    name = path.removeprefix(f"{directory}/").partition("/")[0]
    return f"{directory}/{name}"


@contextmanager
def fuzzed_volume(directory: Path, volume: Path, mode: str) -> Iterator[FuzzedVolume]:
    """``directory`` is new, ``volume`` an empty directory on a file system that has the mode."""
    sources = {name: directory / "sources" / name for name in ("etc", "other")}
    _fill(sources["etc"], sources["other"])
    machine_dir = volume / MACHINE
    machine_dir.mkdir(mode=0o700)
    for tree in (volume / OTHER_MACHINE / "etc.snapshots" / "etc_20260101-000000_abcd", directory / "bait"):
        tree.mkdir(parents=True)
        (tree / "file").write_text("history")
    configuration = storage_configuration(
        directory / "storage",
        allow_old_rsync=False,
        keep_devices=False,
        trash_days=9999,
        sandbox="required",
        max_run_seconds=SECONDS_OF_A_RUN,
        max_run_memory_bytes=MEMORY_OF_A_RUN_BYTES,
        max_run_bytes=BYTES_OF_A_RUN,
        max_run_files=5000,
    )
    clock = StorageClock()
    with Rsyncd(directory / "rsyncd", sources) as daemon:
        machine = BackedUpMachine(sources["etc"], machine_dir, daemon, configuration, clock=clock)
        fuzzed = FuzzedVolume(
            directory, volume, mode, machine, replace(machine, source_dir=sources["other"], source="other")
        )
        _make_history(fuzzed)
        fuzzed.faults(None)
        yield fuzzed


def _fill(source: Path, other: Path) -> None:
    (source / "directory" / "inner").mkdir(parents=True)
    other.mkdir()
    (source / "alpha").write_text("alpha\n" * 200)
    (source / "beta.txt").write_text("beta\n")
    (source / "empty").touch()
    (source / "directory" / "gamma").write_text("gamma\n" * 30)
    (source / "directory" / "inner" / "delta").write_text("delta")
    (source / "link").symlink_to("directory/gamma")
    # As many as the findings of a compromised machine are computed from.
    for number in range(18):
        (source / "directory" / f"{number:02}").write_text(f"{number}\n")
    (other / "file").write_text("of the other source")


def _make_history(fuzzed: FuzzedVolume) -> None:
    # A source without history had one before, too: with it, its snapshots are in the reach of a mistake.
    mode = {"snapshot_mode": "link-dest" if fuzzed.mode == "none" else fuzzed.mode}
    machine = fuzzed.machine
    machine.days(2, **mode)
    outcomes = [machine.back_up(**mode), fuzzed.other.back_up(**mode)]
    fuzzed.change_source(0)
    # What retention takes goes to the trash.
    outcomes.append(machine.back_up(**{**mode, "retention": "last 3 snapshots"}))
    if fuzzed.mode == "none":
        outcomes += [machine.back_up(**fuzzed.options), fuzzed.other.back_up(**fuzzed.options)]
    assert all(each.success for each in outcomes), [each.summary for each in outcomes if not each.success]
    assert any(name.startswith(".trash-") for name in os.listdir(machine.place.snapshots_dir))
