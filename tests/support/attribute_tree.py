"""A tree with one of every property that a file can have on Linux, and the facts by which two such trees are compared."""

import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""``cap_net_raw=ep``, as Debian's ping has it."""
HOLE_BYTES = 8 * 1024 * 1024
ODD_TIME_NS = 1_234_567_890_123_456_789
ODD_NAME = os.fsdecode(b"caf\xe9 \n'\\#001")
LARGE_VALUE = bytes(range(250)) * 16
"""4,000 bytes, about the most that ext4 holds beside nothing else."""
YEARS = (1902, 2100, 2446)
"""The years that every file system known to us can store. Those of ext4 begin in December 1901, and end in May
2446."""
IMMUTABLE, NO_DUMP = 0x10, 0x40
_FLAGS_SHOWN = IMMUTABLE | 0x20 | NO_DUMP | 0x80
"""Immutable, append only, no dump, no access times: what users set, and no file system sets by itself."""
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL as the kernel has it, of entries of tag, permissions, and number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def make_attribute_tree(root: Path, *, years: Iterable[int] = YEARS) -> None:
    """Fill the empty directory, with a file of each of the years. Only root makes what only root can make."""
    is_root = os.geteuid() == 0
    for name in (
        "plain",
        "with acl",
        "masked",
        "user attribute",
        "capability",
        "trusted",
        "label",
        "times",
        "large acl",
        "empty attribute",
        "large attribute",
        "permissions",
        ODD_NAME,
    ):
        (root / name).write_bytes(os.fsencode(name))
    (root / "directory").mkdir()
    (root / "directory" / "inside").write_text("inside")
    named = acl((OWNER, 7, NOBODY), (USER, 4, 4711), (GROUP, 4, NOBODY), (MASK, 5, NOBODY), (OTHER, 0, NOBODY))
    os.setxattr(root / "with acl", ACCESS_ACL, named)
    # The mask is wider than what the group itself may: dropped, the file would be open to its group.
    masked = acl((OWNER, 6, NOBODY), (USER, 6, 4711), (GROUP, 0, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY))
    os.setxattr(root / "masked", ACCESS_ACL, masked)
    many = [(USER, 4, 10_000 + number) for number in range(30)]
    os.setxattr(root / "large acl", ACCESS_ACL, acl((OWNER, 6, NOBODY), *many, *masked_rest()))
    os.setxattr(root / "directory", ACCESS_ACL, named)
    os.setxattr(root / "directory", DEFAULT_ACL, masked)
    os.setxattr(root / "user attribute", "user.comment", b"\x00\xff of any bytes\n")
    os.setxattr(root / "user attribute", "user.large", bytes(range(256)) * 8)
    os.setxattr(root / "directory", "user.comment", b"of a directory")
    (root / "closed directory").mkdir()
    os.setxattr(root / "closed directory", ACCESS_ACL, masked)
    os.setxattr(root / "empty attribute", "user.empty", b"")
    os.setxattr(root / "large attribute", "user.large", LARGE_VALUE)
    (root / "default acl").mkdir()
    os.setxattr(root / "default acl", DEFAULT_ACL, named)
    # Names that one file has, in two directories, and another file of the same content.
    (root / "one").write_text("the same")
    os.link(root / "one", root / "directory" / "two")
    os.link(root / "one", root / "three")
    (root / "alone").write_text("the same")
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(HOLE_BYTES)
        file.write(b"end")
    with (root / "all hole").open("wb") as file:
        file.truncate(HOLE_BYTES)
    (root / "link").symlink_to("nowhere")
    os.utime(root / "link", ns=(ODD_TIME_NS + 1, ODD_TIME_NS + 1), follow_symlinks=False)
    (root / "setuid").write_text("#!/bin/sh\n")
    (root / "setgid").mkdir()
    (root / "sticky").mkdir()
    if is_root:
        os.setxattr(root / "capability", "security.capability", CAPABILITY)
        os.setxattr(root / "trusted", "trusted.of", b"root alone")
        os.setxattr(root / "directory", "trusted.overlay.opaque", b"y")
        os.setxattr(root / "label", "security.selinux", b"system_u:object_r:etc_t:s0\x00")
        os.setxattr(root / "link", "security.selinux", b"system_u:object_r:lnk_t:s0\x00", follow_symlinks=False)
        os.chown(root / "plain", 3_000_000_001, 3_000_000_002)
        os.chown(root / "setuid", 1234, 4321)
        os.chown(root / "link", 1234, 4321, follow_symlinks=False)
        os.mkfifo(root / "fifo", 0o620)
        os.mknod(root / "character", stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod(root / "block", stat.S_IFBLK | 0o640, os.makedev(7, 200))
        os.setxattr(root / "fifo", "trusted.of", b"a pipe")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o755)
    (root / "permissions").chmod(0o604)
    (root / "default acl").chmod(0o711)
    (root / "setuid").chmod(0o4751)
    (root / "setgid").chmod(0o2775)
    (root / "sticky").chmod(0o1777)
    os.utime(root / "times", ns=(ODD_TIME_NS, ODD_TIME_NS))
    os.utime(root / "directory", ns=(ODD_TIME_NS + 2, ODD_TIME_NS + 2))
    for year in years:
        path = root / f"year {year}"
        path.write_text(path.name)
        seconds = round((datetime(year, 2, 3, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
        os.utime(path, ns=(seconds * 10**9 + 123, seconds * 10**9 + 123))


def set_flags(path: Path, flags: int) -> None:
    """Give a file or directory these flags, as ``chattr`` does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("@l", _flags(descriptor) & ~_FLAGS_SHOWN | flags))
    finally:
        os.close(descriptor)


def _flags(descriptor: int) -> int:
    return int(struct.unpack("@l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))[0])


def _flags_of(path: Path) -> int:
    # Some file systems have none.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return _flags(descriptor) & _FLAGS_SHOWN
        finally:
            os.close(descriptor)
    return 0


def masked_rest() -> list[tuple[int, int, int]]:
    return [(GROUP, 0, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)]


def facts(root: Path) -> dict[str, dict[str, object]]:
    """Return, by path, every fact about each entry: property to value. Facts that this user cannot see are missing."""
    paths = [root, *sorted(root.rglob("*"))]
    groups: dict[int, list[str]] = {}
    for path in paths:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            groups.setdefault(status.st_ino, []).append(str(path.relative_to(root)))
    return {str(path.relative_to(root)): _facts(path, groups) for path in paths}


def _facts(path: Path, groups: dict[int, list[str]]) -> dict[str, object]:
    status = path.lstat()
    found: dict[str, object] = {
        "kind": stat.S_IFMT(status.st_mode),
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "owner": (status.st_uid, status.st_gid),
        "time": status.st_mtime_ns,
    }
    if stat.S_ISLNK(status.st_mode):
        found["target"] = os.readlink(path)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        found["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        found["flags"] = _flags_of(path)
    if stat.S_ISREG(status.st_mode):
        found["content"] = path.read_bytes()
        found["holes"] = status.st_blocks * 512 <= status.st_size // 2 if status.st_size > HOLE_BYTES // 2 else False
    if not stat.S_ISDIR(status.st_mode):
        found["names"] = groups[status.st_ino]
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith("trusted.SGI_ACL_"):
            # What XFS shows of an ACL beside the ACL.
            continue
        found[name] = os.getxattr(path, name, follow_symlinks=False)
    return found


def different_facts(expected: dict[str, dict[str, object]], found: dict[str, dict[str, object]]) -> list[str]:
    """Return a line for each fact that is not as expected, and for each that should not be there."""
    lines = [f"{path!r}: is not there" for path in expected.keys() - found.keys()]
    lines += [f"{path!r}: should not be there" for path in found.keys() - expected.keys()]
    for path in sorted(expected.keys() & found.keys()):
        for name in sorted(expected[path].keys() | found[path].keys()):
            before, after = expected[path].get(name), found[path].get(name)
            if before != after:
                lines.append(f"{path!r}: {name} is {after!r:.200} instead of {before!r:.200}")
    return lines
