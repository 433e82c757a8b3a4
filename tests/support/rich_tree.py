"""A small tree with one of everything that a backup must keep."""

import os
from pathlib import Path

LATIN_1_NAME = b"caf\xe9"
NEWLINE_NAME = b"two\nlines"


def make_rich_tree(root: Path) -> None:
    """Fill the empty directory ``root``. Only root makes owners and a device."""
    (root / "file").write_bytes(b"content")
    (root / "empty").write_bytes(b"")
    (root / "large").write_bytes(os.urandom(300_000))
    (root / "setuid").write_bytes(b"#!/bin/sh\n")
    (root / "setuid").chmod(0o4755)
    (root / "secret").write_bytes(b"secret")
    (root / "secret").chmod(0o400)
    (root / "link").symlink_to("file")
    (root / "dangling").symlink_to("/nowhere/at all")
    (root / "directory" / "deep" / "deeper").mkdir(parents=True)
    (root / "directory" / "deep" / "deeper" / "leaf").write_bytes(b"leaf")
    (root / "directory" / "nothing").mkdir()
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "closed").mkdir()
    (root / "closed" / "inside").write_bytes(b"inside")
    (root / "closed").chmod(0o500)
    os.link(root / "file", root / "directory" / "same file")
    for name in (LATIN_1_NAME, NEWLINE_NAME, "snö".encode(), b"- dash", b"\x01control", b"back\\slash", b"#hash;semi"):
        with open(os.path.join(os.fsencode(root), name), "wb") as stream:
            stream.write(name)
    os.utime(root / "file", ns=(1_000_000_000_123_456_789, 1_000_000_000_123_456_789))
    if os.geteuid() == 0:
        os.mkfifo(root / "pipe")
        os.mknod(root / "device", 0o600 | 0o020000, os.makedev(1, 3))
        os.chown(root / "large", 12345, 54321)
        os.chown(root / "link", 12345, 54321, follow_symlinks=False)
        os.chown(root / "directory", 65534, 65534)


def change_rich_tree(root: Path) -> None:
    """Change what ``make_rich_tree`` made: modes, content, times, names, and what kind of entry a name is."""
    (root / "secret").chmod(0o640)
    (root / "large").write_bytes(os.urandom(200_000))
    os.utime(root / "empty", (1, 1))
    (root / "setuid").unlink()
    (root / "directory" / "deep").rename(root / "moved")
    (root / "sticky").rmdir()
    (root / "sticky").write_text("a file now")
    (root / "dangling").unlink()
    (root / "dangling").mkdir()
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    (root / "directory" / "nothing").rmdir()
    (root / "directory" / "nothing").symlink_to("..")
