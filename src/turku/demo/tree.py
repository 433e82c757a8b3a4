"""Trees of files for the demo: a bounded copy, typical changes of a user, and the hard links of two trees."""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from turku.errors import UsageError

SIZE_LIMIT_BYTES = 256 * 1024 * 1024
FILES_LIMIT = 20_000
_TEXT_SUFFIXES = (".txt", ".md", ".html", ".conf", "")
ADDED_NAME = "a file that the demo added.txt"


@dataclass
class TreeCopy:
    """A copy of a tree, with the numbers of copied and skipped entries."""

    path: Path
    files: list[Path] = field(default_factory=list)
    """Regular files, relative to ``path``, by name."""
    size_bytes: int = 0
    unreadable: int = 0
    special: int = 0
    is_partial: bool = False
    """True when the tree is larger than the limits. The rest was skipped."""


def copy(
    source: Path, target: Path, *, size_limit_bytes: int = SIZE_LIMIT_BYTES, files_limit: int = FILES_LIMIT
) -> TreeCopy:
    """Copy ``source`` to a new directory ``target``: directories, files and symbolic links with modes and times.

    Unreadable files, sockets and devices are counted and skipped. Entries beyond the limits are skipped. Raises
    UsageError if ``source`` is not a directory or has no readable file.
    """
    if not source.is_dir():
        raise UsageError(
            f"{source} is not a directory", hint="name a directory, for example: turku demo /usr/share/doc"
        )
    done = TreeCopy(target)
    _copy_directory(source, target, done, size_limit_bytes=size_limit_bytes, files_limit=files_limit)
    if not done.files:
        raise UsageError(f"{source} holds no file that this user can read", hint="name a directory with files in it")
    done.files.sort()
    return done


def _copy_directory(source: Path, target: Path, done: TreeCopy, *, size_limit_bytes: int, files_limit: int) -> None:
    target.mkdir(mode=0o700, parents=True)
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except OSError:
        done.unreadable += 1
        return
    for entry in entries:
        into = target / entry.name
        if entry.is_symlink():
            into.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            if done.is_partial:
                return
            _copy_directory(Path(entry.path), into, done, size_limit_bytes=size_limit_bytes, files_limit=files_limit)
        elif entry.is_file():
            size_bytes = entry.stat().st_size
            if len(done.files) >= files_limit or done.size_bytes + size_bytes > size_limit_bytes:
                done.is_partial = True
                continue
            _copy_file(Path(entry.path), into, done)
        else:
            done.special += 1
    # After the content, which changes the time. The copy must be writable, even if the original is not.
    shutil.copystat(source, target)
    target.chmod(stat.S_IMODE(target.stat().st_mode) | stat.S_IRWXU)


def _copy_file(source: Path, target: Path, done: TreeCopy) -> None:
    try:
        shutil.copy2(source, target)
    except OSError:
        target.unlink(missing_ok=True)
        done.unreadable += 1
        return
    done.files.append(target.relative_to(done.path))
    done.size_bytes += target.stat().st_size


@dataclass(frozen=True)
class TreeChanges:
    """The changes made to a copy. Paths are relative to it."""

    changed: Path
    added: Path
    renamed: tuple[Path, Path] | None
    deleted: Path | None


def text_file(tree: TreeCopy) -> Path:
    """Return a file of the copy that probably contains text, so that a reader finds an added line."""
    files = [path for path in tree.files if (tree.path / path).stat().st_size] or tree.files
    return next((path for path in files if path.suffix in _TEXT_SUFFIXES), files[0])


def change(tree: TreeCopy, changed: Path) -> TreeChanges:
    """Change the file, and add, rename and delete one other file each, if there are enough."""
    others = [path for path in tree.files if path != changed]
    with (tree.path / changed).open("ab") as stream:
        stream.write(b"\nThis line was added by the demo.\n")
    added = Path(ADDED_NAME)
    (tree.path / added).write_text("This file is in the second snapshot and not in the first.\n")
    renamed = None
    if others:
        before = others.pop(len(others) // 2)
        after = before.with_name(f"{before.name[:200]}.renamed")
        (tree.path / before).rename(tree.path / after)
        renamed = (before, after)
    deleted = None
    if others:
        deleted = others.pop()
        (tree.path / deleted).unlink()
    return TreeChanges(changed, added, renamed, deleted)


@dataclass(frozen=True)
class Sharing:
    """The number and size of files that two snapshots share."""

    files: int
    shared_files: int
    own_bytes: int


def sharing(machine_tree: Path, newer: Path, older: Path) -> Sharing:
    """Return the sharing of the machine's regular files (by hard links) between two snapshots of it."""
    files = shared_files = own_bytes = 0
    for path in regular_files(machine_tree):
        name = path.relative_to(machine_tree)
        status = (newer / name).lstat()
        files += 1
        try:
            before = (older / name).lstat()
        except FileNotFoundError:
            before = None
        if before is not None and (before.st_dev, before.st_ino) == (status.st_dev, status.st_ino):
            shared_files += 1
        else:
            own_bytes += status.st_size
    return Sharing(files, shared_files, own_bytes)


def regular_files(tree: Path) -> Iterator[Path]:
    """Yield every regular file below ``tree``. Symbolic links are not followed."""
    for directory, _directories, names in os.walk(tree):
        for name in names:
            path = Path(directory) / name
            if stat.S_ISREG(path.lstat().st_mode):
                yield path
