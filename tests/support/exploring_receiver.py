"""A compromised receiver: it looks at every path that it can see, tries to change each, and then is rsync.

The test makes a program of this file's text (``program``) and lets a storage run it as its rsync, in its sandbox. It
uses the standard library only, for the sandbox shows nothing else. Its findings go to its standard error, packed in
lines that begin with ``EXPLORED``. ``reports`` reads them out of the storage's log.
"""

import base64
import ctypes
import fcntl
import json
import os
import re
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "EXPLORED"
OWN_MEMORY = ("/dev", "/tmp")
"""The file systems in memory that bubblewrap makes anew for each receiver, so that nobody else sees them."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_GET_FLAGS, _SET_FLAGS, _SUBVOLUME_CREATE = 0x80089419, 0x4008941A, 0x5000940E
_CHUNK = 700
_FEW_LEVELS = 2
_OF_SYSTEM = ("write", "create", "chmod", "rename")
"""Of these hundred thousand files, on one mount, not everything is tried."""


def program(path: Path, *, sees_all_of_system: bool = False, known: tuple[str, ...] = (), pause: float = 0) -> Path:
    """Write the program. ``known`` are paths that the attacker would like to be there."""
    text = Path(__file__).read_text().replace("from __future__ import annotations\n", "", 1)
    options = {"known": known, "all": sees_all_of_system, "pause": pause}
    path.write_text(f"#!/usr/bin/python3\n{text}\nmain({options!r})\n")
    path.chmod(0o755)
    return path


def reports(log: Path) -> list[dict[str, Any]]:
    """Return the findings of each run of the program, in no order."""
    parts: dict[str, dict[int, str]] = {}
    for run, number, text in re.findall(rf"{MARK} (\w+) (\d+) ([\w+/=]+)", log.read_text(errors="replace")):
        parts.setdefault(run, {})[int(number)] = text
    packed = ["".join(text for _number, text in sorted(found.items())) for found in parts.values()]
    return [json.loads(zlib.decompress(base64.b64decode(each))) for each in packed]


def main(options: dict[str, Any]) -> None:
    if "--version" not in sys.argv:
        time.sleep(options["pause"])
        tell(explore(options))
    os.execvp("rsync", ["rsync", *sys.argv[1:]])


def tell(found: dict[str, Any]) -> None:
    packed = base64.b64encode(zlib.compress(json.dumps(found).encode())).decode()
    run = os.urandom(4).hex()
    for number, start in enumerate(range(0, len(packed), _CHUNK)):
        os.write(2, f"{MARK} {run} {number} {packed[start : start + _CHUNK]}\n".encode())


def explore(options: dict[str, Any]) -> dict[str, Any]:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    paths = list(dict.fromkeys([*walked(b"/", is_whole=options["all"]), *map(os.fsencode, mounts)]))
    paths += [path for path in inherited() if path not in paths]
    worked: dict[str, list[str]] = {}
    for path in [*paths, *map(os.fsencode, options["known"])]:
        parent, name = os.path.split(path)
        resolved = os.path.join(os.path.realpath(parent), name) if name else path
        for attempt in tried(resolved):
            reached = worked.setdefault(attempt, [])
            if os.fsdecode(resolved) not in reached:
                reached.append(os.fsdecode(resolved))
    seen = [os.fsdecode(path) for path in paths if not path.startswith((b"/usr/", b"/proc/", b"/dev/"))]
    present = [path for path in options["known"] if os.path.lexists(path)]
    is_dry_run = "--dry-run" in sys.argv
    return {
        "module": next((word.rsplit("/", 2)[1] for word in sys.argv if word.startswith("rsync://")), ""),
        "dry": is_dry_run,
        "count": len(paths),
        "seen": seen,
        "present": present,
        "mounts": mounts,
        "worked": worked,
    }


def walked(top: bytes, *, is_whole: bool) -> list[bytes]:
    found = [top]
    waiting = [(top, 0)]
    while waiting:
        path, depth = waiting.pop()
        # A kernel's own files of other processes come and go. Those of processes are explored by the files that they
        # lead to.
        is_deep = depth >= _FEW_LEVELS and path.startswith((b"/proc", b"/usr")) and not is_whole
        if is_deep or (path.startswith(b"/proc/") and depth >= 3):
            continue
        try:
            entries = list(os.scandir(path))
        except OSError:
            continue
        for entry in entries:
            found.append(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, depth + 1))
    return found


def inherited() -> list[bytes]:
    """Return the paths that visible processes have open or as their root, followed to where they lead."""
    found = []
    for process in [name for name in os.listdir("/proc") if name.isdigit()]:
        for link in ("root", "cwd", *(f"fd/{each}" for each in listed(f"/proc/{process}/fd"))):
            for up in ("", "/..", "/../.."):
                path = f"/proc/{process}/{link}{up}"
                for name in listed(path):
                    found.append(os.fsencode(f"{path}/{name}"))
    return found


def listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def tried(path: bytes) -> list[str]:
    """Return the attempts that worked. Their effects are undone, as rsync is to go on."""
    try:
        status = os.lstat(path)
    except OSError:
        return []
    if path.startswith(tuple(os.fsencode(each) for each in OWN_MEMORY)):
        return []
    is_directory, is_link = stat.S_ISDIR(status.st_mode), stat.S_ISLNK(status.st_mode)
    attempts: dict[str, Callable[[], object]] = {
        "chmod": lambda: os.chmod(path, stat.S_IMODE(status.st_mode)),
        "owner": lambda: os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False),
        "times": lambda: os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False),
        "attribute": lambda: (os.setxattr(path, "user.owned", b"1"), os.removexattr(path, "user.owned")),
        "rename": lambda: (os.rename(path, path + b".owned"), os.rename(path + b".owned", path)),
        "link": lambda: (os.link(path, b"owned-link", follow_symlinks=False), os.unlink(b"owned-link")),
        "link beside": lambda: (os.link(path, path + b".owned", follow_symlinks=False), os.unlink(path + b".owned")),
    }
    if is_link:
        del attempts["chmod"], attempts["attribute"]
    elif is_directory:
        inside = path + b"/.owned"
        attempts |= {
            "create": lambda: (os.close(os.open(inside, os.O_CREAT | os.O_EXCL | os.O_WRONLY)), os.unlink(inside)),
            "directory": lambda: (os.mkdir(inside), os.rmdir(inside)),
            "symbolic link": lambda: (os.symlink("x", inside), os.unlink(inside)),
            "pipe": lambda: (os.mkfifo(inside), os.unlink(inside)),
            "device": lambda: (os.mknod(inside, 0o600 | stat.S_IFBLK, os.makedev(254, 0)), os.unlink(inside)),
            "subvolume": lambda: (control(path, _SUBVOLUME_CREATE, struct.pack("=q4088s", 0, b".owned")),),
            "unseal": lambda: unseal(path),
            "mount": lambda: mount(path),
            "remove": lambda: os.rmdir(path) if path != b"/" else refuse(),
        }
        if path.startswith(b"/proc"):
            del attempts["remove"]
    elif stat.S_ISREG(status.st_mode):
        attempts |= {
            "write": lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)),
            "unlink": lambda: replace(path),
        }
    worked = []
    for name, attempt in attempts.items():
        if path.startswith(b"/usr/") and name not in _OF_SYSTEM:
            continue
        try:
            attempt()
            worked.append(name)
        except (OSError, ValueError):
            continue
    if is_directory and "remove" in worked:
        os.mkdir(path)
    if is_directory and "subvolume" in worked:
        os.rmdir(path + b"/.owned")
    return worked


def refuse() -> None:
    raise OSError("not tried")


def replace(path: bytes) -> None:
    """Unlink the file, and put one of the same content there."""
    content = Path(os.fsdecode(path)).read_bytes()
    os.unlink(path)
    Path(os.fsdecode(path)).write_bytes(content)


def control(path: bytes, request: int, argument: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        answer = bytearray(argument)
        fcntl.ioctl(descriptor, request, answer, True)
        return bytes(answer)
    finally:
        os.close(descriptor)


def unseal(path: bytes) -> None:
    """Clear the read-only flag of a subvolume of btrfs."""
    flags = struct.unpack("=Q", control(path, _GET_FLAGS, struct.pack("=Q", 0)))[0]
    control(path, _SET_FLAGS, struct.pack("=Q", flags & ~2))


def mount(path: bytes) -> None:
    if _LIBC.mount(b"none", path, b"tmpfs", 0, None) != 0 and _LIBC.mount(path, path, None, 4096 | 32, None) != 0:
        raise OSError(ctypes.get_errno(), "refused")
    _LIBC.umount2(path, 2)
