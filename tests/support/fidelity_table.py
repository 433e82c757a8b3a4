"""The properties of a file that come back by each way: a tree that has everything, really backed up and restored.

    with Trial(directory) as trial:
        case = trial.case("link-dest", is_root=True)
        case.back_up()
        case.restore("whole")        {"content": Cell("kept"), "ACLs": Cell("narrowed", ["'masked': ..."]), ...}

The tree and whatever is restored lie on a btrfs of the trial's own, which keeps every date and attribute: what gets lost
gets lost on the way.
"""

import functools
import os
import stat
import struct
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import rsync_programs
from tests.support.attribute_tree import (
    ACCESS_ACL,
    DEFAULT_ACL,
    GROUP,
    IMMUTABLE,
    LARGE_VALUE,
    MASK,
    NAMED_GROUP,
    NO_DUMP,
    OTHER,
    OWNER,
    USER,
    YEARS,
    facts,
    make_attribute_tree,
    set_flags,
)
from tests.support.fleet import Fleet
from tests.support.loop_volume import loop_volume

from turku.core import command
from turku.demo import programs

Facts = Mapping[str, Mapping[str, object]]

PROPERTIES = (
    "content",
    "names of any bytes",
    "permissions",
    "setuid, setgid, sticky",
    "owner and group, by number",
    "times of files",
    "times of directories",
    "times of symbolic links",
    "dates from 1902 to 2446",
    "dates before 1902",
    "symbolic links",
    "owner of symbolic links",
    "hard links",
    "holes",
    "access ACLs",
    "default ACLs",
    "user.* attributes",
    "user.* without a value",
    "user.* of 4,000 bytes",
    "security.capability",
    "security.selinux",
    "security.selinux of links",
    "trusted.* attributes",
    "FIFOs",
    "sockets",
    "device nodes",
    "flags (chattr)",
)
STATES = ("kept", "narrowed", "lost", "wider")
"""From good to bad: ``narrowed`` allows less than it did, ``wider`` allows somebody more."""
MODES = {"link-dest": "ext4", "btrfs": "btrfs", "reflink": "xfs", "none": "ext4"}
"""The snapshot modes, with the file system of the volume on which each is tried."""
WAYS = ("whole", "paths", "in place", "ordered", "drill", "ordinary user")
OTHER_USER = 65534
_PACKAGES = f"{Path(__file__).parents[2] / 'src'}:{sysconfig.get_path('purelib')}"
_AS_OTHER_USER = (
    *("setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", "--inh-caps=-all"),
    *("env", "HOME=/nonexistent", f"PYTHONPATH={_PACKAGES}", "PYTHONDONTWRITEBYTECODE=1"),
)
_EVERY_YEAR = (1900, *YEARS)
_TIMEOUT_SECONDS = 120.0
_FOUND_KEPT = 5
_NOTHING: Mapping[str, object] = {"flags": 0, "holes": False}
"""The values of these facts where a file does not have the property."""
_SOURCE = "tree"
_DRILL_CHECK = """#!/bin/sh
touch "$TURKU_DRILL_DIRECTORY/../ready"
while [ ! -e "$TURKU_DRILL_DIRECTORY/../seen" ]; do sleep 0.05; done
"""
"""It waits until somebody has looked at what the drill restored."""


@dataclass
class Cell:
    """The result for one property by one way."""

    state: str = "kept"
    having: set[str] = field(default_factory=set)
    """The paths that have the property."""
    differing: set[str] = field(default_factory=set)
    """Those that have not got it back as it was."""
    found: list[str] = field(default_factory=list)
    """A line for each difference."""

    def add(self, state: str, path: str, line: str) -> None:
        """Take note of a difference: the worst is what became of the property."""
        self.state = max(self.state, state, key=STATES.index)
        self.differing.add(path)
        self.found.append(f"{path!r}: {line}")


Row = dict[str, Cell]
"""By property."""


def compared(before: Facts, after: Facts) -> Row:
    """Return what became of each property. Raises AssertionError for a fact that belongs to none."""
    row = {name: Cell() for name in PROPERTIES}
    for path, expected in before.items():
        for name, value in expected.items():
            if name not in _NOTHING or value != _NOTHING[name]:
                row[_property(path, name, expected)].having.add(path)
        found = after.get(path)
        if found is None:
            row[_property(path, "kind", expected)].add("lost", path, "is not there")
            continue
        for name in sorted({*expected, *found}):
            was, now = expected.get(name), found.get(name)
            if was != now:
                state = _state(name, expected, found)
                row[_property(path, name, {**found, **expected})].add(
                    state, path, f"{name} is {now!r:.80} instead of {was!r:.80}"
                )
    for path in after.keys() - before.keys():
        row["content"].add("lost", path, "should not be there")
    return row


def _property(path: str, name: str, entry: Mapping[str, object]) -> str:
    kind = entry["kind"]
    is_link = kind == stat.S_IFLNK
    special = {
        stat.S_IFIFO: "FIFOs",
        stat.S_IFSOCK: "sockets",
        stat.S_IFCHR: "device nodes",
        stat.S_IFBLK: "device nodes",
    }
    if name in ("kind", "target", "device"):
        return "symbolic links" if is_link else special.get(int(str(kind)), _of_content(path))
    if name == "content":
        return _of_content(path)
    if name == "mode":
        if ACCESS_ACL in entry:
            return "access ACLs"
        return "setuid, setgid, sticky" if int(str(entry["mode"]), 8) & 0o7000 else "permissions"
    if name == "owner":
        return "owner of symbolic links" if is_link else "owner and group, by number"
    if name == "time":
        if path.startswith("year "):
            return "dates before 1902" if int(path.removeprefix("year ")) < YEARS[0] else "dates from 1902 to 2446"
        kinds = {stat.S_IFLNK: "times of symbolic links", stat.S_IFDIR: "times of directories"}
        return kinds.get(int(str(kind)), "times of files")
    if name.startswith("user."):
        large = {b"": "user.* without a value", LARGE_VALUE: "user.* of 4,000 bytes"}
        value = entry[name]
        assert isinstance(value, bytes)
        return large.get(value, "user.* attributes")
    if name.startswith("security.selinux"):
        return "security.selinux of links" if is_link else "security.selinux"
    if name.startswith("trusted."):
        return "trusted.* attributes"
    return {
        "names": "hard links",
        "holes": "holes",
        "flags": "flags (chattr)",
        ACCESS_ACL: "access ACLs",
        DEFAULT_ACL: "default ACLs",
        "security.capability": "security.capability",
    }[name]


def _of_content(path: str) -> str:
    return "content" if path.isascii() else "names of any bytes"


def _state(name: str, expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    if name not in ("mode", ACCESS_ACL):
        return "lost"
    was, now = _rights(expected), _rights(found)
    more = [bool(after & ~before) for before, after in zip(was, now, strict=True)]
    # Owners may do what they like with what is theirs.
    is_owners = more == [False, True, False, False, False]
    return "lost" if is_owners else "wider" if any(more) else "narrowed"


def _rights(entry: Mapping[str, object]) -> tuple[int, ...]:
    """Return what is special, and what the owner, the group, all others, and whoever an ACL names may do."""
    mode = int(str(entry["mode"]), 8)
    acl = entry.get(ACCESS_ACL)
    if not isinstance(acl, bytes):
        return (mode >> 9, mode >> 6 & 7, mode >> 3 & 7, mode & 7, 0)
    entries = [struct.unpack_from("<HHI", acl, at) for at in range(4, len(acl), 8)]
    rights = {tag: permissions for tag, permissions, _number in entries}
    mask = rights.get(MASK, 7)
    named = 0
    for tag, permissions, _number in entries:
        if tag in (USER, NAMED_GROUP):
            named |= permissions & mask
    return (mode >> 9, rights[OWNER], rights[GROUP] & mask, rights[OTHER], named)


def as_other_user(program: str, *arguments: str | Path) -> list[str]:
    """Return the command by which a user without any privilege runs one of the installed programs."""
    # The environment may lie where nobody else can enter. The system's Python then runs what is installed in it.
    return [*_AS_OTHER_USER, _interpreter(), str(programs.DIRECTORY / program), *map(str, arguments)]


@functools.cache
def _interpreter() -> str:
    for candidate in (sys.executable, "/usr/bin/python3"):
        entered = [*_AS_OTHER_USER, candidate, "-c", ""]
        if command.run(entered, timeout_seconds=_TIMEOUT_SECONDS, check=False).exit_code == 0:
            return candidate
    return sys.executable


def make_source(directory: Path) -> None:
    """Make the tree, on a file system that takes everything. Only root can."""
    directory.mkdir()
    make_attribute_tree(directory, years=_EVERY_YEAR)
    for name, flags in (("flagged", NO_DUMP), ("immutable", IMMUTABLE)):
        (directory / name).write_text(name)
        set_flags(directory / name, flags)


class Trial:
    """A coordinator, and storages as they are wanted, as a context manager. Raises pytest's Skipped without root."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._volumes: dict[str, Path] = {}
        self._names = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Before anything is started that has to see what is mounted.
            self.machine_volume = stack.enter_context(loop_volume("btrfs"))
            self.machine_volume.chmod(0o755)
            for kind in sorted(set(MODES.values())):
                self._volumes[kind] = stack.enter_context(loop_volume(kind))
                self._volumes[kind].chmod(0o755)
            # Another user enters it, so that none of pytest's own will do.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turku-fidelity-")))
            directory.chmod(0o755)
            self.fleet = stack.enter_context(Fleet(directory))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def directory(self, name: str) -> Path:
        """Return a directory on the machine's volume that is not there yet."""
        self._names += 1
        return self.machine_volume / f"{name}-{self._names}"

    def repository(self, name: str) -> Path:
        """Return an empty directory for backups of somebody else's program."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._volumes["ext4"]))

    def case(self, mode: str, *, is_root: bool) -> "Case":
        """Return a machine with the tree as its only source, at a storage of that mode.

        Without root is with ``fake_super``, as a storage of an unprivileged user has it: what only root may set lies in
        attributes of rsync's. That such a user can make these snapshots is what the conformance suite tries.
        """
        return Case(self, mode, volume=Path(tempfile.mkdtemp(dir=self._volumes[MODES[mode]])), is_root=is_root)


class Case:
    """One machine at one storage."""

    def __init__(self, trial: Trial, mode: str, *, volume: Path, is_root: bool) -> None:
        self._trial = trial
        self._is_root = is_root
        self.mode = mode
        name = f"{mode}-{'root' if is_root else 'user'}-{len(trial.fleet.storages)}"
        self.source = trial.directory("source")
        make_source(self.source)
        self._drills = trial.directory("drills")
        check = trial.directory("check")
        check.write_text(_DRILL_CHECK)
        check.chmod(0o755)
        self.storage = trial.fleet.storage(
            f"storage-{name}",
            volumes={"volume": {"path": str(volume), "accept_new_high_water_pct": 100}},
            snapshot_mode=mode,
            keep_devices=is_root,
            drill_directory=str(self._drills),
            drill_paths={_SOURCE: ["/"]},
            drill_check_program=[str(check)],
            fake_super="auto" if is_root else True,
        )
        self.machine = trial.fleet.machine(
            f"machine-{name}",
            {_SOURCE: {"path": str(self.source)}},
            storage=self.storage,
            remote_restore=[str(trial.machine_volume)],
        )
        self.said: dict[str, list[str]] = {}
        """The output by way, of which "backup" is one."""
        self._before: Facts = {}

    def back_up(self) -> None:
        """Make the snapshot, by all programs. Raises CommandFailed, AssertionError where none was made."""
        self._before = facts(self.source)
        self._note("backup", self.machine.ping())
        [run] = self._trial.fleet.runs(self.machine, _SOURCE)
        assert run["success"], run["summary"]
        self.said["backup"] += run["summary"].splitlines()

    def restore(self, way: str) -> Row | None:
        """Return the result for each property by the way, one of ``WAYS``, or None where there is no such way.

        In place the tree itself is damaged before. The ordinary user has the machine's state from then on.
        """
        if way == "drill":
            return None if self.mode == "none" else self._drilled()
        if way == "in place":
            self._damage()
            self._agent(way, "restore", _SOURCE, "--in-place", "--yes")
            return compared(self._before, facts(self.source))
        target = self._trial.directory("restored")
        before = self._before
        if way == "ordered":
            self._ordered(target)
        elif way == "paths":
            names = [path for path in before if path != "." and "/" not in path]
            self._agent(way, "restore", _SOURCE, "--to", target, "--", *names)
            before = {path: entry for path, entry in before.items() if path != "."}
        elif way == "ordinary user":
            self._as_ordinary_user(way, target)
        else:
            self._agent(way, "restore", _SOURCE, "--to", target)
        found = facts(target)
        return compared(before, {path: entry for path, entry in found.items() if path in before or path != "."})

    def _agent(self, way: str, verb: str, *words: str | Path) -> None:
        argv = (verb, "--config-dir", self.machine.config_dir, *words)
        self._note(way, programs.run("turku-agent", *argv, expected_codes=(0, 3)))

    def _note(self, way: str, completed: command.CompletedProgram) -> None:
        lines = [*completed.stdout.decode("utf-8", "replace").splitlines(), *completed.last_lines]
        self.said.setdefault(way, []).extend([f"exit code {completed.exit_code}", *lines])

    def _as_ordinary_user(self, way: str, target: Path) -> None:
        _chown(self.machine.directory)
        target.mkdir()
        os.chown(target, OTHER_USER, OTHER_USER)
        where = ("--config-dir", self.machine.config_dir, "--to", target, "--yes", _SOURCE)
        completed = command.run(
            as_other_user("turku-agent", "restore", *where), timeout_seconds=_TIMEOUT_SECONDS, check=False
        )
        self._note(way, completed)
        assert completed.exit_code in (0, 3), self.said[way]

    def _ordered(self, target: Path) -> None:
        manage = self._trial.fleet.coordinator.manage
        words = ("--directory", str(target), "--reason", "a trial", "--raw")
        made = manage("restore", "request", self.machine.unit_name, _SOURCE, *words).strip()
        manage("restore", "approve", made[:8])
        self._note("ordered", self.machine.ping())

    def _damage(self) -> None:
        """Remove every second file, and take from the others what they have beside their content."""
        paths = sorted(path for path in self.source.rglob("*") if path.is_symlink() or not path.is_dir())
        for number, path in enumerate(path for path in paths if path.name != "immutable"):
            if number % 2:
                path.unlink()
                continue
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)
            os.chown(path, 7, 7, follow_symlinks=False)
            os.utime(path, (1, 1), follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(0o700)
        for path in (self.source, *(path for path in self.source.rglob("*") if path.is_dir())):
            for name in os.listxattr(path):
                os.removexattr(path, name)
            path.chmod(0o700)
            os.utime(path, (1, 1))

    def _drilled(self) -> Row:
        """Look at what a drill restored, while its check program waits for that."""
        words = ("drill", "--config-dir", self.storage.config_dir, "--machine", self.machine.uuid)
        before = {path: entry for path, entry in self._before.items() if path != "."}
        with command.start([programs.DIRECTORY / "turku-storage", *words]) as child:
            scratch = self._scratch(lambda: child.poll() is not None)
            if scratch is None:
                row = None
            else:
                found = facts(scratch / "restored") if self._is_root else self._decoded(scratch / "restored")
                row = compared(before, {path: entry for path, entry in found.items() if path != "."})
                (scratch / "seen").touch()
            code = child.wait(_TIMEOUT_SECONDS)
            self.said["drill"] = [f"exit code {code}", *child.last_lines]
        assert row is not None, self.said["drill"]
        return row

    def _scratch(self, is_over: Callable[[], bool]) -> Path | None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while time.monotonic() < deadline and not is_over():
            ready = next(self._drills.glob("*/ready"), None) if self._drills.exists() else None
            if ready is not None:
                return ready.parent
            time.sleep(0.05)
        return None

    def _decoded(self, tree: Path) -> Facts:
        """Return the facts of a tree that has owners and the like in attributes of rsync's, as rsync reads them."""
        rsync = rsync_programs.path_of(rsync_programs.chosen.storage)
        copy = self._trial.directory("decoded")
        with tempfile.TemporaryDirectory() as name:
            shell = Path(name) / "shell"
            # Fake super is of the sending side alone here.
            shell.write_text('#!/bin/sh\nshift\nexec "$@"\n')
            shell.chmod(0o755)
            options = ["-aHAXS", "--numeric-ids", "--modify-window=-1", "-M--fake-super", f"--rsync-path={rsync}"]
            command.run([rsync, *options, "-e", shell, f"here:{tree}/", f"{copy}/"], timeout_seconds=_TIMEOUT_SECONDS)
        return facts(copy)


def _chown(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)


def plain(row: Row | None) -> dict[str, dict[str, Any]] | None:
    """Return the row as it is written down: what is kept is left out."""
    if row is None:
        return None
    return {
        name: {
            "state": cell.state,
            "having": len(cell.having),
            "differing": len(cell.differing),
            "found": cell.found[:_FOUND_KEPT],
        }
        for name, cell in row.items()
        if cell.state != "kept"
    }


def is_worse(cell: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> bool:
    """Return True where a cell as ``plain`` has it is worse than the recorded one, or where that is None."""
    if recorded is None:
        return True
    return (STATES.index(cell["state"]), cell["differing"]) > (STATES.index(recorded["state"]), recorded["differing"])
