"""A history made at random: trees on the disk as the storage makes them, and what a catalog has to say of them.

The answers here are computed from the trees, each time anew and without any of the catalog's code.
"""

import os
import random
import shutil
import stat
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import xxhash

from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog

NAMES = [
    b"plain",
    b"new\nline",
    b"not\xffutf-8\xfe",
    b"a b",
    b"-option",
    b"\xc3\xa4",
    b"\\#012",
    b"*",
    b"a",
    b"a.b",
    b"a0",
    b"0",
]
KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
Content = tuple[str, int, int, int, int, int, bytes | None, bytes | None, bytes]
State = dict[bytes, Content]
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def state(tree: Path) -> State:
    """Return kind, size, mode, uid, gid, mtime, checksum, link target and attributes of each path of a tree."""
    found: State = {}
    root = os.fsencode(tree)
    for directory, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            kind = KINDS[stat.S_IFMT(status.st_mode)]
            checksum = target = None
            if kind == "file":
                with open(path, "rb") as stream:
                    checksum = xxhash.xxh128(stream.read()).digest()
            if kind == "link":
                target = os.readlink(path)
            found[os.path.relpath(path, root)] = (
                kind,
                status.st_size if kind == "file" else 0,
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                checksum,
                target,
                attributes(path),
            )
    return found


def attributes(path: bytes) -> bytes:
    """Return the digest of a path's extended attributes, where no ACL is among them, or nothing for none."""
    hasher = xxhash.xxh128()
    listed = sorted(os.listxattr(path, follow_symlinks=False))
    for name in listed:
        value = os.getxattr(path, name, follow_symlinks=False)
        hasher.update(struct.pack("<II", len(name), len(value)) + name.encode() + value)
    return hasher.digest() if listed else b""


@dataclass
class RandomHistory:
    """The snapshots of one source, by name. The next one is made from the newest tree."""

    place: SourceDirectory
    random: random.Random
    comes_back: bool
    """True when files may become again what they were, and change without their size or time changing."""
    states: dict[str, State] = field(default_factory=dict)
    trashed: dict[str, State] = field(default_factory=dict)
    _count: int = 0
    _ticks: int = 0
    _former: list[tuple[bytes, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place.snapshots_dir.mkdir(parents=True, exist_ok=True)

    @property
    def names(self) -> list[str]:
        """Those on the disk, oldest first: names are dates."""
        return sorted(self.states)

    @property
    def newest(self) -> str | None:
        return max(self.states, default=None)

    def new_name(self) -> tuple[str, datetime]:
        self._count += 1
        moment = BEGINNING + timedelta(hours=self._count)
        return f"{self.place.source}_{moment:%Y%m%d-%H%M%S}_{self._count:04x}", moment

    def build(self, base: str | None, operations: int) -> Path:
        """The working tree of the next run: as rsync makes it with --link-dest, and then changed."""
        tree = self.place.working_tree
        shutil.rmtree(tree, ignore_errors=True)
        if base is None:
            tree.mkdir()
        else:
            link_copy(os.fsencode(self.place.tree(base)), os.fsencode(tree))
        for _ in range(operations):
            self._change(os.fsencode(tree))
        return tree

    def changes(self, base: str | None, tree: Path, *, is_complete: bool) -> ChangeLog:
        """Return the change log that rsync would give."""
        log = ChangeLog()
        log.lists_every_change = is_complete
        log.lists_every_written_file = is_complete or self.random.random() < 0.5
        before, after = self.states.get(base or "", {}), state(tree)
        for path in sorted(before.keys() - after.keys(), reverse=True):
            log.add(Change(path, ChangeKind.DELETED))
        for path, content in sorted(after.items()):
            if before.get(path) != content or not self._is_same_file(base, tree, path):
                log.add(Change(path, ChangeKind.CHANGED, is_file=content[0] == "file"))
        log.add(Change(b".", ChangeKind.CHANGED))
        return log

    def _is_same_file(self, base: str | None, tree: Path, path: bytes) -> bool:
        former = os.path.join(os.fsencode(self.place.tree(base or "")), path)
        return os.path.isdir(former) or os.path.samestat(
            os.lstat(former), os.lstat(os.path.join(os.fsencode(tree), path))
        )

    def commit(self, name: str, tree: Path) -> None:
        tree.rename(self.place.snapshot(name))
        self.states[name] = state(self.place.snapshot(name))

    def commit_link(self, name: str, base: str) -> None:
        """An unchanged backup."""
        target = self.place.tree(base).name
        self.place.snapshot(name).symlink_to(target)
        self.states[name] = self.states[base]

    def delete(self, name: str) -> None:
        """Let a snapshot be gone, as an operator does it who removes a directory."""
        self._hand_over(name)
        path = self.place.snapshot(name)
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
        del self.states[name]

    def trash(self, name: str) -> None:
        if self.place.snapshot(name).is_symlink() or self._links(name):
            return
        self.place.snapshot(name).rename(self.place.snapshot(f".trash-1-{name}"))
        self.trashed[name] = self.states.pop(name)

    def restore(self, name: str) -> None:
        self.place.snapshot(f".trash-1-{name}").rename(self.place.snapshot(name))
        self.states[name] = self.trashed.pop(name)

    def _links(self, name: str) -> list[str]:
        return [each for each in self.names if self.place.link_target(each) == name]

    def _hand_over(self, name: str) -> None:
        links = self._links(name)
        if links:
            heir = links[-1]
            self.place.snapshot(heir).unlink()
            self.place.snapshot(name).rename(self.place.snapshot(heir))
            for link in links[:-1]:
                self.place.snapshot(link).unlink()
                self.place.snapshot(link).symlink_to(heir)
            self.place.snapshot(name).symlink_to(heir)

    def _tick(self) -> int:
        self._ticks += 1
        # Also in the years 1902 and 2286, which 64 bits of nanoseconds, or 32 of seconds, do not hold.
        second = self.random.choice([1_700_000_000, 1_700_000_000, -2_140_000_000, 10_000_000_000])
        return second * 1_000_000_000 + self._ticks * 1_000_000_007

    def _change(self, tree: bytes) -> None:
        paths = sorted(state(Path(os.fsdecode(tree))))
        directories = [b""] + [path for path in paths if os.path.isdir(os.path.join(tree, path))]
        directories = [path for path in directories if not os.path.islink(os.path.join(tree, path))]
        action = self.random.choice(
            ["file", "file", "file", "directory", "link", "fifo", "remove", "mode", "rewrite", "attribute"]
        )
        chosen = os.path.join(tree, self.random.choice(directories), self.random.choice(NAMES))
        if action in ("remove", "mode", "rewrite", "attribute"):
            if not paths:
                return
            chosen = os.path.join(tree, self.random.choice(paths))
        times = os.lstat(os.path.dirname(chosen)).st_mtime_ns
        getattr(self, f"_{action}")(chosen)
        # A directory's time changes with its entries on most machines, and is set back by some programs.
        kept = self.random.random() < 0.2
        moment = times if kept else self._tick()
        os.utime(os.path.dirname(chosen), ns=(moment, moment))

    def _file(self, path: bytes) -> None:
        self._remove(path)
        if self.comes_back and self._former and self.random.random() < 0.4:
            content, mode, moment = self.random.choice(self._former)
        else:
            content, mode, moment = self.random.randbytes(self.random.randrange(9)), 0o644, self._tick()
        self._write(path, content, mode, moment)

    def _write(self, path: bytes, content: bytes, mode: int, moment: int) -> None:
        with open(path, "wb") as stream:
            stream.write(content)
        os.chmod(path, mode)
        os.utime(path, ns=(moment, moment))
        self._former.append((content, mode, moment))

    def _rewrite(self, path: bytes) -> None:
        if not self.comes_back or not stat.S_ISREG(os.lstat(path).st_mode):
            return
        status = os.lstat(path)
        os.unlink(path)
        self._write(path, self.random.randbytes(status.st_size), stat.S_IMODE(status.st_mode), status.st_mtime_ns)

    def _mode(self, path: bytes) -> None:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            # rsync makes a copy with the new mode: the file of the snapshot before stays as it is.
            with open(path, "rb") as stream:
                content = stream.read()
            os.unlink(path)
            mode = 0o640 + self.random.randrange(8)
            self._write(path, content, mode, status.st_mtime_ns if self.comes_back else self._tick())
        elif stat.S_ISDIR(status.st_mode):
            os.chmod(path, 0o700 + self.random.randrange(64))

    def _attribute(self, path: bytes) -> None:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            # The file of the snapshot before stays as it is.
            with open(path, "rb") as stream:
                content = stream.read()
            os.unlink(path)
            moment = status.st_mtime_ns if self.comes_back else self._tick()
            self._write(path, content, stat.S_IMODE(status.st_mode), moment)
        elif not stat.S_ISDIR(status.st_mode):
            return
        os.setxattr(path, "user.test", self.random.randbytes(self.random.randrange(3)))

    def _directory(self, path: bytes) -> None:
        self._remove(path)
        os.mkdir(path, 0o755)
        moment = self._tick()
        os.utime(path, ns=(moment, moment))

    def _link(self, path: bytes) -> None:
        self._remove(path)
        os.symlink(self.random.choice(NAMES), path)

    def _fifo(self, path: bytes) -> None:
        self._remove(path)
        os.mkfifo(path)

    def _remove(self, path: bytes) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


def link_copy(source: bytes, target: bytes) -> None:
    """A tree whose files are the same ones."""
    os.mkdir(target)
    for entry in os.scandir(source):
        path = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            link_copy(entry.path, path)
        else:
            os.link(entry.path, path, follow_symlinks=False)
    shutil.copystat(source, target)
