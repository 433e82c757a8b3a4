"""Faults injected into a storage at work, and the rules that hold after each: see ``bench/faults.py``.

A stage is one machine with one source, backed up by the real storage through a real rsync daemon onto a file system of
its own. One fault is: change the source, begin something (a backup, ``verify``, ``gc``, ``catalog rebuild``, a
drill) in a child, let the fault happen, and look:

* each snapshot that there was is unchanged, bit for bit, and none is gone, * the next backup succeeds, and is as the
source, * after it nothing is left over, and ``verify`` finds nothing.
"""

import argparse
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support import trees
from tests.support.backed_up_machine import fingerprint, order, storage_configuration
from tests.support.imaged_volume import ImagedVolume
from tests.support.rsyncd import Rsyncd

from turku.core import log
from turku.core.clock import SYSTEM_CLOCK
from turku.core.secret import Secret
from turku.storage import catalog
from turku.storage.backup.job import BackupJob, BackupReport
from turku.storage.backup.run import back_up
from turku.storage.catalog import database
from turku.storage.commands import maintenance
from turku.storage.containment import bubblewrap, watchdog
from turku.storage.disk import history
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import drill, scrub
from turku.storage.integrity.scrub import ScrubShare
from turku.storage.rsync import version

MACHINE = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
SOURCE = "etc"
MODES = {"link-dest": "ext4", "btrfs": "btrfs", "reflink": "xfs"}
"""Snapshot modes with the file system that each is tried on."""
KEPT = 4
LONGEST_SECONDS = 60.0
"""Within which everything ends, whatever fails."""
_ERRORS = ("EIO", "ENOSPC", "ENOMEM", "EMFILE", "EACCES")
_CALLS = (
    *("openat", "openat2", "renameat", "linkat", "unlinkat", "mkdirat", "symlinkat", "fsync", "write", "pwrite64"),
    *("pread64", "read", "newfstatat", "fstat", "getdents64", "fchmod", "utimensat", "ftruncate", "ioctl", "clone3"),
)
_INJECTED = re.compile(r"\(INJECTED\)")


@dataclass
class Finding:
    """Something that should not be."""

    stage: str
    number: int
    kind: str
    text: str


@dataclass
class Later:
    """The system's clock, set wrong by so much."""

    offset: timedelta = timedelta()

    def now(self) -> datetime:
        return SYSTEM_CLOCK.now() + self.offset

    def monotonic_seconds(self) -> float:
        return SYSTEM_CLOCK.monotonic_seconds()

    def sleep(self, seconds: float) -> None:
        SYSTEM_CLOCK.sleep(seconds)


@dataclass
class Stage:
    """A machine, its source, and the volume that it is backed up to."""

    directory: Path
    mode: str
    chance: random.Random
    volume: ImagedVolume
    daemon: Rsyncd
    source_dir: Path
    findings: list[Finding] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)
    """The fingerprint of each snapshot."""
    number: int = 0
    kind: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    """The time that each action takes, without a fault."""

    def __post_init__(self) -> None:
        self.storage = storage_configuration(
            self.directory / "storage",
            volumes={"data": {"path": str(self.volume.path)}},
            snapshot_mode=self.mode,
            drill_directory=str(self.directory / "drill"),
            retention_floor="",
            # Nobody reports anything here.
            max_run_seconds=LONGEST_SECONDS / 3,
        )
        self.machine_dir = self.volume.path / MACHINE
        self.machine_dir.mkdir(mode=0o700)
        self.place = SourceDirectory(self.machine_dir, SOURCE)

    # --- the source

    def change_source(self) -> None:
        """Change, add, remove and rename some files, as a day does."""
        chance, root = self.chance, self.source_dir
        for _ in range(chance.randint(2, 8)):
            directory = root / f"d{chance.randrange(6)}"
            directory.mkdir(exist_ok=True)
            path = directory / f"f{chance.randrange(8)}"
            action = chance.random()
            if action < 0.15 and path.is_file():
                path.unlink()
            elif action < 0.3 and path.is_file():
                path.rename(directory / f"renamed{chance.randrange(4)}")
            elif action < 0.4:
                link = directory / f"link{chance.randrange(3)}"
                link.unlink(missing_ok=True)
                link.symlink_to(f"f{chance.randrange(8)}")
            else:
                path.write_bytes(chance.randbytes(chance.choice((0, 10, 3000, 80_000, 400_000))))
                path.chmod(chance.choice((0o600, 0o644, 0o755)))

    # --- what is done

    def back_up(self, *, offset: timedelta = timedelta(), retention: str = "last 1000 snapshots") -> BackupReport:
        job = BackupJob(
            machine_dir=self.machine_dir,
            source_name=SOURCE,
            order=order(retention=retention),
            rsync_port=self.daemon.port,
            username=self.daemon.username,
            password=Secret(self.daemon.password),
        )
        return back_up(job, self.storage, clock=Later(offset))

    def verify(self) -> scrub.ScrubResult:
        return scrub.verify(self.place, zone=self.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())

    def act(self, action: str) -> None:
        """Do one of the actions of a storage, and raise its errors."""
        if action == "backup":
            self.back_up()
        elif action == "verify":
            self.verify()
        elif action == "gc":
            maintenance.collect_garbage(
                argparse.Namespace(background=False), self.storage, SYSTEM_CLOCK, lambda _line: None
            )
        elif action == "rebuild":
            catalog.rebuild(self.place, zone=self.storage.state.timezone)
        else:
            drill.drill(self.storage, self.place)

    @contextmanager
    def begun(self, action: Callable[[], Any], *, waits: bool = False) -> "Iterator[Begun]":
        """Yield a child that does it. With ``waits`` it begins when it is told."""
        begun = Begun.start(action, self.directory / "child.log", waits=waits)
        try:
            yield begun
        finally:
            begun.kill()

    # --- checking

    def find(self, text: str) -> None:
        self.findings.append(Finding(self.mode, self.number, self.kind, text))

    def snapshots(self) -> list[str]:
        return [each.name for each in history.stored_snapshots(self.place, self.storage.state.timezone)]

    def check(self, *, may_be_gone: Collection[str] = ()) -> None:
        """Each known snapshot is there as it was, but for some that retention may have removed. New ones are noted."""
        there = self.snapshots()
        for name in list(self.known):
            if name not in there:
                if name not in may_be_gone:
                    self.find(f"snapshot {name} is gone")
                del self.known[name]
                continue
            now = fingerprint(self.place.tree(name))
            if now != self.known[name]:
                changed = sorted(
                    path for path in now.keys() | self.known[name].keys() if now.get(path) != self.known[name].get(path)
                )
                self.find(f"snapshot {name} has changed: {changed[:5]}")
                self.known[name] = now
        for name in there:
            if name not in self.known:
                self.known[name] = fingerprint(self.place.tree(name))

    def go_on(self) -> None:
        """The next backup succeeds, is as the source, removes the expired snapshots, and leaves nothing behind."""
        # By their dates: while a clock is behind, all others are taken for ahead, and come first.
        stored = history.stored_snapshots(self.place, self.storage.state.timezone)
        before = [
            each.name for each in sorted(stored, key=lambda each: each.moment or datetime.min.replace(tzinfo=UTC))
        ]
        outcome = self.back_up(retention=f"last {KEPT} snapshots")
        if not outcome.success:
            self.find(f"the next backup failed: {outcome.summary}")
            return
        newest = outcome.snapshot or ""
        different = trees.differences(self.source_dir, self.place.tree(newest), "--numeric-ids")
        if different:
            self.find(f"the next backup is not as the source: {different[:5]}")
        self.check(may_be_gone=before[: 1 - KEPT])
        for directory in (self.volume.path, self.machine_dir, database.file_of(self.place).parent):
            for path in directory.glob(".*.turku-tmp-*"):
                # As if it were some hours later.
                os.utime(path, (1, 1))
        self.act("gc")
        damages = self.verify().open_damages
        if damages:
            self.find(f"verify finds damage: {[(each.path, each.kind, each.state) for each in damages][:5]}")
        self._look_for_leftovers()

    def _look_for_leftovers(self) -> None:
        snapshots = self.snapshots()
        lawful = {"latest", ".retention", *snapshots, *(f"{name}.json" for name in snapshots)}
        left = set(fs.names(self.place.snapshots_dir)) - lawful
        # The lock is held by the kernel. Its file stays.
        left |= {name for name in fs.names(self.machine_dir) if name not in (f"{SOURCE}.snapshots", f".{SOURCE}.lock")}
        catalogs = database.file_of(self.place).parent
        kept = re.compile(rf"{SOURCE}\.(sqlite|sqlite\.broken|verified|damage\.json|drill\.json)")
        left |= {name for name in fs.names(catalogs) if not kept.fullmatch(name)}
        left |= {name for name in os.listdir(self.volume.path) if "tmp" in name or "unnamed" in name}
        drills = self.directory / "drill"
        if drills.is_dir():
            # As the next drill does.
            drill.remove_leftovers(self.storage.integrity)
            left |= set(os.listdir(drills))
        if left:
            self.find(f"left over: {sorted(left)}")


class Begun:
    """A child at work, in a session of its own."""

    def __init__(self, pid: int, go: int) -> None:
        self.pid = pid
        self._go = go
        self._status: int | None = None

    @classmethod
    def start(cls, action: Callable[[], Any], output: Path, *, waits: bool) -> "Begun":
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                os.close(write_end)
                descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                log.set_up("fault", terminal=True)
                if waits:
                    select.select([read_end], [], [], 30)
                action()
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        os.close(read_end)
        return cls(pid, write_end)

    def go(self) -> None:
        os.write(self._go, b"x")

    def descendants(self, name: str) -> list[int]:
        """Processes below the child that run a program of this name."""
        found = []
        for pid in watchdog.descendants(self.pid):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    found.append(pid)
        return found

    def ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def is_held_by_the_kernel(self) -> bool:
        """Return True where it waits for a disk, and no signal reaches it."""
        states = [Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]]
        for task in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):
                states.append(task.read_text().rpartition(")")[2].split()[0])
        return "D" in states

    def kill(self) -> None:
        """End it, and all below it, as a machine does that goes down."""
        if self._go >= 0:
            os.close(self._go)
            self._go = -1
        if self._status is None:
            below = list(watchdog.descendants(self.pid))
            for pid in (self.pid, *below):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if self._status is None:
                self._status = os.waitpid(self.pid, 0)[1]


@contextmanager
def stage(directory: Path, mode: str, seed: str) -> Iterator[Stage]:
    """A stage with a history of some days."""
    source_dir = directory / "source"
    source_dir.mkdir(parents=True)
    with ImagedVolume(MODES[mode], directory) as volume, Rsyncd(directory / "rsyncd", {SOURCE: source_dir}) as daemon:
        made = Stage(directory, mode, random.Random(seed), volume, daemon, source_dir)
        # Asked once in each process: its children need not ask again, so that what is hit is the work itself.
        bubblewrap.sandbox_availability(made.storage.limits)
        version.installed(made.storage.receiving.rsync_command)
        for number in range(40):
            (source_dir / f"d{number % 6}").mkdir(exist_ok=True)
            (source_dir / f"d{number % 6}" / f"f{number // 6}").write_bytes(
                made.chance.randbytes(20_000 * (number % 7))
            )
        for _ in range(2):
            made.change_source()
            begin = time.monotonic()
            outcome = made.back_up()
            assert outcome.success, outcome.summary
            made.seconds["backup"] = time.monotonic() - begin
        made.check()
        for action in ("rebuild", "verify", "gc", "drill"):
            begin = time.monotonic()
            made.act(action)
            made.seconds[action] = time.monotonic() - begin
        yield made


# --- the faults


def kill_the_session(stage: Stage) -> None:
    _killed(stage, "backup", "")


def kill_the_storages_rsync(stage: Stage) -> None:
    _killed(stage, "backup", "rsync")


def kill_the_sandbox(stage: Stage) -> None:
    _killed(stage, "backup", "bwrap")


def kill_the_machines_rsync(stage: Stage) -> None:
    stage.change_source()
    with stage.begun(lambda: stage.act("backup")) as begun:
        time.sleep(stage.chance.uniform(0, stage.seconds["backup"]))
        for pid in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(stage.directory / "rsyncd").encode() in (pid / "cmdline").read_bytes() and _is_serving(pid):
                    os.kill(int(pid.name), signal.SIGKILL)
        _await(stage, begun)


def _is_serving(pid: Path) -> bool:
    """The daemon's own process has the tests for its parent, and one that serves a connection has the daemon."""
    parent = int((pid / "stat").read_text().rpartition(")")[2].split()[1])
    return b"rsyncd.conf" in Path(f"/proc/{parent}/cmdline").read_bytes()


def kill_verify(stage: Stage) -> None:
    _killed(stage, "verify", "")


def kill_gc(stage: Stage) -> None:
    marked = stage.place.snapshots_dir / ".deleting-0a1b"
    for number in range(300):
        (marked / f"d{number % 20}").mkdir(parents=True, exist_ok=True)
        (marked / f"d{number % 20}" / str(number)).touch()
    _killed(stage, "gc", "", scale=3)


def kill_a_rebuild_of_the_catalog(stage: Stage) -> None:
    _killed(stage, "rebuild", "")


def kill_a_drill(stage: Stage) -> None:
    _killed(stage, "drill", "")


def _killed(stage: Stage, action: str, program: str, *, scale: float = 1.2) -> None:
    stage.change_source()
    with stage.begun(lambda: stage.act(action)) as begun:
        time.sleep(stage.chance.uniform(0, stage.seconds[action] * scale))
        if not program:
            begun.kill()
            return
        for pid in begun.descendants(program):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        _await(stage, begun)


def lose_power(stage: Stage) -> None:
    """The disk as it is at a random moment of a backup, mounted again on a host that was started anew."""
    stage.change_source()
    with stage.begun(lambda: stage.act("backup")) as begun:
        time.sleep(stage.chance.uniform(0, stage.seconds["backup"] * 1.2))
        image = stage.volume.moment()
        begun.kill()
    _start_anew(stage, image)


def lose_the_disk(stage: Stage) -> None:
    """Give errors from a random moment of a backup on. The disk comes back as it was."""
    stage.change_source()
    action = stage.chance.choice(("backup", "backup", "verify"))
    with stage.begun(lambda: stage.act(action)) as begun:
        time.sleep(stage.chance.uniform(0, stage.seconds[action]))
        image = stage.volume.moment()
        stage.volume.fail()
        _await(stage, begun)
    _start_anew(stage, image)


def _start_anew(stage: Stage, image: Path) -> None:
    stage.volume.replace(image)
    mark = stage.machine_dir / f".{SOURCE}.writing"
    if mark.exists():
        # The system has another boot_id after it went down.
        mark.write_text("00000000-0000-4000-8000-000000000000\n")


def fill_the_disk(stage: Stage) -> None:
    stage.change_source()
    action = stage.chance.choice(("backup", "backup", "backup", "verify", "gc", "rebuild"))
    filler = stage.volume.path / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with suppress(OSError):
        os.truncate(filler, max(0, filler.stat().st_size - stage.chance.choice((0, 4096, 100_000, 600_000))))
    os.sync()
    try:
        with stage.begun(lambda: stage.act(action)) as begun:
            _await(stage, begun)
    finally:
        filler.unlink()
        # btrfs gives the room back with its next commit.
        os.sync()


def fail_a_system_call(stage: Stage) -> None:
    """One call of the storage's own process gives an error, or some in a row do."""
    stage.change_source()
    action = stage.chance.choice(("backup", "backup", "backup", "verify", "rebuild", "drill"))
    record = stage.directory / "strace.log"
    for _ in range(6):
        call, error = stage.chance.choice(_CALLS), stage.chance.choice(_ERRORS)
        first = int(2 ** stage.chance.uniform(0, 7))
        when = str(first) if stage.chance.random() < 0.7 else f"{first}..{first + stage.chance.randint(1, 20)}"
        record.unlink(missing_ok=True)
        with stage.begun(lambda: stage.act(action), waits=True) as begun:
            argv = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(record), "-p", str(begun.pid)]
            inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
            with subprocess.Popen([*argv, *inject], stderr=subprocess.DEVNULL) as tracer:
                try:
                    _await_tracer(begun.pid, tracer.pid)
                    begun.go()
                    _await(stage, begun)
                finally:
                    begun.kill()
                    tracer.terminate()
        if record.exists() and _INJECTED.search(record.read_text("utf-8", "replace")):
            stage.kind = f"{stage.kind} ({action}: {call} {error} at {when})"
            return
    stage.kind = f"{stage.kind} (none was reached)"


def _await_tracer(pid: int, tracer: int) -> None:
    deadline = time.monotonic() + 10
    while f"TracerPid:\t{tracer}\n" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "strace did not attach"
        time.sleep(0.01)


def set_the_clock_wrong(stage: Stage) -> None:
    """Back up with a clock that is years, days or an hour off. Its snapshot is judged like any other."""
    stage.change_source()
    days = stage.chance.choice((-4000, -366, -1, -1 / 24, 1 / 24, 1))
    with stage.begun(lambda: stage.back_up(offset=timedelta(days=days))) as begun:
        _await(stage, begun)
    stage.kind = f"{stage.kind} ({days:+.2f} days)"


def damage_a_file(stage: Stage) -> None:
    """One of the storage's own files is overwritten, emptied, cut off or gone."""
    candidates = [
        database.file_of(stage.place),
        stage.place.latest,
        *stage.place.snapshots_dir.glob("*.json"),
        *(path for path in stage.storage.state.var_dir.rglob("*") if path.is_file()),
        database.file_of(stage.place).with_suffix(".verified"),
    ]
    path = stage.chance.choice(sorted(each for each in candidates if os.path.lexists(each)))
    way = stage.chance.choice(("NUL bytes", "emptied", "cut off", "noise", "gone"))
    if path.is_symlink() or way == "gone":
        path.unlink()
    else:
        size = path.stat().st_size
        with path.open("r+b") as file:
            if way == "NUL bytes":
                file.write(bytes(size))
            elif way == "noise":
                file.write(stage.chance.randbytes(size))
            else:
                file.truncate(0 if way == "emptied" else size // 2)
    stage.kind = f"{stage.kind} ({path.name}: {way})"


def _await(stage: Stage, begun: Begun) -> None:
    if not begun.ended_within(LONGEST_SECONDS) and not begun.is_held_by_the_kernel():
        stage.find(f"it did not end within {LONGEST_SECONDS:g} s")


FAULTS: dict[str, Callable[[Stage], None]] = {
    "kill the session": kill_the_session,
    "kill the storage's rsync": kill_the_storages_rsync,
    "kill the sandbox": kill_the_sandbox,
    "kill the machine's rsync": kill_the_machines_rsync,
    "kill verify": kill_verify,
    "kill gc": kill_gc,
    "kill catalog rebuild": kill_a_rebuild_of_the_catalog,
    "kill a drill": kill_a_drill,
    "power loss": lose_power,
    "lost disk": lose_the_disk,
    "full disk": fill_the_disk,
    "failing system call": fail_a_system_call,
    "wrong clock": set_the_clock_wrong,
    "damaged file": damage_a_file,
}


def inject(stage: Stage, number: int, kind: str) -> None:
    """Let one fault happen, and look."""
    stage.number, stage.kind = number, kind
    FAULTS[kind](stage)
    stage.check()
    stage.go_on()
