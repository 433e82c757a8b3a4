"""Comparing trees of files by rsync's own eyes."""

import os
from pathlib import Path

from turku.core import command


def differences(source: Path, copy: Path, *options: str) -> list[str]:
    """Return what rsync would have to do to make ``copy`` identical to ``source``, content, ownership, modes, times
    and hard links included. The list is empty where they are."""
    completed = command.run(
        ["rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", *options, f"{source}/", f"{copy}/"],
        timeout_seconds=600,
        capture_limit_bytes=64 * 1024 * 1024,
    )
    return completed.stdout.decode("utf-8", "replace").splitlines()


def snapshot_differences(tree: Path, snapshot: Path, *options: str) -> list[str]:
    """As ``differences``, for a snapshot: a storage without root keeps owners and links in attributes of files."""
    return differences(tree, snapshot, *([] if os.geteuid() == 0 else ["--fake-super"]), *options)


def flip_bit(path: Path, at: int, bit: int) -> None:
    """Change one bit of the file's byte ``at``, size and times staying as they are: what a disk does to a file."""
    status = path.stat()
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ bit]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def inodes(tree: Path) -> dict[str, int]:
    """Inode of every regular file below ``tree``, by relative path."""
    return {
        str(path.relative_to(tree)): path.lstat().st_ino
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def listing(tree: Path) -> set[str]:
    """Relative paths of everything below ``tree``."""
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}
