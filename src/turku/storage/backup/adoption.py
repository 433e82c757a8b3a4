"""Adoption of trees that another program backed up: each becomes a snapshot of a machine's source.

The new tree has hard links to the files of the original, so it takes the space of its directories only, and the
original stays as it is. Where the original lies on another file system, rsync copies it, and files that did not change
are shared with the snapshot before.

A tree is assembled under a hidden name, and a rename makes it a snapshot, as in a backup. A run that was killed leaves
a hidden tree, which the next run or the next backup removes. The record says which tree it was, so that none is adopted
twice.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from turku.core import command
from turku.core.filesystem import openat2
from turku.errors import BackupFailed, CommandFailed, UsageError
from turku.policy import names
from turku.policy.timing import clock_agreement, dated_names
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, snapshot_record
from turku.storage.disk.snapshot_record import AdoptedFrom, SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import hardlink_copy
from turku.storage.fs import tree as fs
from turku.storage.snapshots.mode import LinkDest

_COPY_SECONDS = 14 * 86_400.0
"""The longest time that a copy of one tree may take. It fits into 32 bits of milliseconds, as the kernel wants it."""
_SUFFIXES = 0x10000


@dataclass(frozen=True)
class FoundTree:
    """A tree that can be adopted."""

    path: Path
    moment: datetime
    """Its date, in UTC."""
    date_origin: str
    """The origin of the date: ``name``, ``directory's time`` or ``--date``."""
    identity: tuple[int, int]
    """Device and inode."""


def find_trees(directories: Sequence[Path], inside: str, given: datetime | None, zone: tzinfo) -> list[FoundTree]:
    """Return the trees in the directories, oldest first.

    A directory that contains rsnapshot's intervals has one in each of them, at the path ``inside``. Any other one is a
    tree, or has it at that path. ``given`` is the date of the only tree. Raises UsageError.
    """
    relative = os.fsdecode(names.path_inside(os.fsencode(inside)))
    found = []
    for directory in directories:
        intervals = [directory / name for name in fs.names(directory) if dated_names.is_interval(name)]
        for root in intervals or [directory]:
            tree, status = root / relative, fs.status(root)
            tree_status = fs.status(tree)
            if status is not None and tree_status is not None and stat.S_ISDIR(tree_status.st_mode):
                moment, origin = _date(root, status, given, zone)
                found.append(FoundTree(tree, moment, origin, (tree_status.st_dev, tree_status.st_ino)))
            elif not intervals:
                raise UsageError(
                    f"{tree} is not a directory", hint="links are not followed: name the directory that they lead to"
                )
            # In an older interval, the host may not have been there yet.
    if not found:
        raise UsageError(
            f"{', '.join(map(str, directories))}: there is no {relative or 'tree'} in any interval",
            hint="rsnapshot's trees are ROOT/daily.0/HOST/PATH: name ROOT, and HOST/PATH by --inside",
        )
    if given is not None and len(found) > 1:
        raise UsageError(f"there are {len(found)} trees, and --date is the date of one", hint="name one of them")
    unique = {each.identity: each for each in found}
    return sorted(unique.values(), key=lambda each: (each.moment, each.path))


def _date(root: Path, status: os.stat_result, given: datetime | None, zone: tzinfo) -> tuple[datetime, str]:
    if given is not None:
        return given.replace(microsecond=0), "--date"
    # The name of an interval says nothing of its date. rsnapshot sets the time of its directory.
    named = None if dated_names.is_interval(root.name) else dated_names.moment_in(root.name, zone=zone)
    if named is not None:
        return named, "name"
    return datetime.fromtimestamp(int(status.st_mtime), UTC), "directory's time"


def known_trees(place: SourceDirectory, found: Sequence[FoundTree], zone: tzinfo) -> dict[FoundTree, str]:
    """Return the trees that are history already, each with the name of its snapshot."""
    dates = {each.moment for each in found}
    known: dict[tuple[datetime, str | int], str] = {}
    for stored in history.stored_snapshots(place, zone):
        record = snapshot_record.read(place, stored.name) if stored.moment in dates else None
        if stored.moment is not None and record is not None and record.adopted_from is not None:
            # rsnapshot renames directories, and a copy of them has other numbers.
            known[stored.moment, record.adopted_from.path] = stored.name
            known[stored.moment, record.adopted_from.inode] = stored.name
    keys = {each: ((each.moment, str(each.path)), (each.moment, each.identity[1])) for each in found}
    return {each: next(known[key] for key in keys[each] if key in known) for each in found if known.keys() & keys[each]}


def refuse(found: FoundTree, configuration: StorageConfig, *, now: datetime) -> None:
    """Raise UsageError for a tree that is history already, or whose date is in the future."""
    for volume in configuration.disk.volumes:
        if volume.path in found.path.parents:
            owner = found.path.relative_to(volume.path).parts[0]
            if names.is_machine_uuid(owner):
                raise UsageError(
                    f"{found.path} is in the history of machine {owner}", hint="adopt what another program made"
                )
    if clock_agreement.is_ahead(found.moment, now=now):
        raise UsageError(
            f"{found.path} is from the future: {found.moment.isoformat()} ({found.date_origin})",
            hint="give the date of a single tree by --date, or correct this storage's clock",
        )


def is_open_to_others(path: Path) -> bool:
    """Return True if other users of this host can reach the directory. They could change adopted files through it."""
    return all(
        (status := fs.status(each)) is not None and status.st_mode & 0o011 for each in (path, *path.parents[:-1])
    )


def adopt(place: SourceDirectory, found: FoundTree, configuration: StorageConfig, *, copies: bool) -> str:
    """Make the tree a snapshot, and return its name. The source's lock must be held.

    With ``copies`` its files are copied. Raises BackupFailed, DurableWriteFailed.
    """
    zone = configuration.state.timezone
    mode = LinkDest(place)
    fs.make_directory(place.snapshots_dir)
    mode.tidy()
    mode.discard_assembly()
    if copies:
        _copy(place, found, configuration)
    else:
        _link(place, found)
    moment = found.moment.astimezone(zone)
    record = SnapshotRecord(
        _unused_name(place, moment, found),
        None,
        moment,
        moment,
        adopted_from=AdoptedFrom(str(found.path), found.identity[1]),
    )
    fs.sync(place.assembling)
    record.write(place)
    fs.rename(place.assembling, place.snapshot(record.name))
    return record.name


def point_to_latest(place: SourceDirectory, configuration: StorageConfig, *, now: datetime) -> None:
    """Point the link ``latest`` to the newest snapshot. The source's lock must be held."""
    newest = history.newest(place, configuration.state.timezone, now=now)
    if newest is not None:
        fs.write_symbolic_link(place.latest, newest.name)


def _unused_name(place: SourceDirectory, moment: datetime, found: FoundTree) -> str:
    # The name is the same whenever the same tree is adopted.
    first = int.from_bytes(hashlib.sha256(os.fsencode(found.path)).digest()[:2], "big")
    for number in range(_SUFFIXES):
        name = names.new_snapshot_name(place.source, moment, f"{(first + number) % _SUFFIXES:04x}")
        if not fs.exists(place.snapshot(name)):
            return name
    raise BackupFailed(f"{place.source} has {_SUFFIXES} snapshots of {moment.isoformat()}")


def _link(place: SourceDirectory, found: FoundTree) -> None:
    try:
        hardlink_copy.link_tree(found.path, place.assembling)
    except OSError as error:
        reasons = {
            errno.EXDEV: "another file system: adopt it with --copy",
            errno.EPERM: "a file is immutable (lsattr) or another user's, or this file system has no hard links: run "
            "it as root, or with --copy",
        }
        raise BackupFailed(
            f"{found.path} cannot be linked into {place.snapshots_dir}: {error.strerror}: {error.filename!r}",
            hint=reasons.get(error.errno or 0, "nothing was adopted of this tree, and the original is as it was"),
        ) from error


def _copy(place: SourceDirectory, found: FoundTree, configuration: StorageConfig) -> None:
    zone = configuration.state.timezone
    before = [each for each in history.stored_snapshots(place, zone) if each.moment and each.moment <= found.moment]
    # Names that shared a file in the original have one size, time and owner, so rsync links them.
    sharing = [f"--link-dest={before[-1].path}"] if before else []
    fs.make_directory(place.assembling)
    # Otherwise an entry that differs in a fraction of a second only would keep the time of the snapshot before.
    options = ("-aHAX", "--numeric-ids", "--sparse", "--modify-window=-1")
    try:
        with _opened(found) as tree:
            command.run(
                [
                    *configuration.receiving.rsync_command,
                    *options,
                    *sharing,
                    "--",
                    # The tree that was looked at, whatever has its name by now.
                    f"/proc/{os.getpid()}/fd/{tree}/",
                    f"{place.assembling}/",
                ],
                timeout_seconds=_COPY_SECONDS,
            )
    except CommandFailed as error:
        raise BackupFailed(
            f"{found.path} cannot be copied: {error.message}", details=error.details, hint=error.hint
        ) from error


@contextmanager
def _opened(found: FoundTree) -> Iterator[int]:
    """Open the tree that was found. Raises BackupFailed if something else has its name now."""
    replaced = BackupFailed(f"{found.path} was replaced while it was being adopted", hint="see who may write there")
    try:
        descriptor = openat2.open_absolute(found.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise replaced from error
    try:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != found.identity:
            raise replaced
        yield descriptor
    finally:
        os.close(descriptor)
