"""Mounted file systems, from the kernel's table."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_OF_THE_KERNEL = frozenset(
    {
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"),
        *("fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "selinuxfs"),
        *("sysfs", "tmpfs", "tracefs"),
    }
)
_IN_MEMORY = frozenset({"ramfs", "tmpfs"})
_REMOTE = frozenset({"9p", "afs", "autofs", "ceph", "cifs", "nfs", "nfs4", "smb3", "virtiofs"})


@dataclass(frozen=True)
class Mount:
    """A mounted file system."""

    number: int
    parent: int
    path: Path
    file_system: str
    """Its type, such as ``ext4``."""
    device: str = ""
    root: str = "/"
    """The directory of the file system that is mounted."""

    @property
    def is_of_the_kernel(self) -> bool:
        """True where the kernel makes its content, or the next boot loses it, so that a backup needs none of it."""
        return self.file_system in _OF_THE_KERNEL

    @property
    def shows_the_kernel(self) -> bool:
        """True where the kernel makes its content, as in /proc, so that nobody can restore it."""
        return self.is_of_the_kernel and self.file_system not in _IN_MEMORY

    @property
    def may_hang(self) -> bool:
        """True where reading it may block for ever, because a remote server or a program answers."""
        return self.file_system in _REMOTE or self.file_system.startswith("fuse")


def all_mounts(table: Path = TABLE) -> list[Mount]:
    """Return all mounts in the kernel's order, or none where the table cannot be read."""
    try:
        lines = table.read_bytes().splitlines()
    except OSError:
        return []
    return [mount for mount in map(_parse, lines) if mount is not None]


def boundary(directory: Path, mounts: list[Mount]) -> list[Mount]:
    """Return the mounts below the directory at which its own file system ends, ordered by path.

    ``directory`` is an absolute path without symbolic links. Mounts within another mount, or covered by one, are not
    returned. Neither is a directory that is mounted onto itself: systemd does that to /home and others where a unit may
    not write there (``ProtectHome=read-only``), and it is still the same directory.
    """
    own = _mount_of(directory, mounts)
    # Without the directory's own mount, mounts onto themselves cannot be recognised.
    same = {} if own is None else {own.number: own}
    found: dict[Path, Mount] = {}
    # Each mount comes after the one that contains it.
    for mount in sorted(mounts, key=lambda each: len(each.path.parts)):
        if mount.path == directory or not mount.path.is_relative_to(directory):
            continue
        outer = same.get(mount.parent)
        if own is not None and outer is None:
            continue
        if any(above in found for above in mount.path.parents):
            continue
        if outer is not None and _is_onto_itself(mount, outer):
            same[mount.number] = mount
        else:
            found[mount.path] = mount
    return sorted(found.values(), key=lambda each: each.path.parts)


def _is_onto_itself(mount: Mount, outer: Mount) -> bool:
    root = Path(outer.root) / mount.path.relative_to(outer.path)
    return bool(mount.device) and mount.device == outer.device and Path(mount.root) == root


def _mount_of(directory: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount that contains the directory, or None where the table lacks it, as in a chroot."""
    numbers = {mount.number for mount in mounts if mount.parent != mount.number}
    root = Path("/")
    current = next((mount for mount in mounts if mount.path == root and mount.parent not in numbers), None)
    left = list(mounts)
    while current is not None:
        left.remove(current)
        number = current.number
        inner = [mount for mount in left if mount.parent == number and directory.is_relative_to(mount.path)]
        # A mount covers earlier mounts below it in the same parent.
        covering = min(inner, key=lambda mount: len(mount.path.parts), default=None)
        if covering is None:
            return current
        current = covering
    return None


def _parse(line: bytes) -> Mount | None:
    """Return the mount of a line (proc(5)): number, parent, device, root, path, options, tags, ``-``, type, ..."""
    fields = line.split(b" ")
    try:
        file_system = fields[fields.index(b"-", 6) + 1]
        return Mount(
            int(fields[0]),
            int(fields[1]),
            Path(_unescaped(fields[4])),
            os.fsdecode(file_system),
            device=os.fsdecode(fields[2]),
            root=_unescaped(fields[3]),
        )
    except (ValueError, IndexError):
        return None


def _unescaped(text: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), text))
