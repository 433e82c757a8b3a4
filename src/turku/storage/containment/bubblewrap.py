"""bubblewrap's command line: the part of the system that a contained program sees."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from turku.storage.containment import seccomp

PROGRAM = "bwrap"
_SYSTEM_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Names of users and groups, the linker's cache, the time zone: nothing secret.
_SYSTEM_FILES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/localtime")
_IN_SAME_DIRECTORY = (
    '[ "$(stat -c %d:%i .)" = "$0" ] && exec "$@"; echo "the directory to work in was replaced meanwhile" >&2; exit 3'
)
_LOG = logging.getLogger(__name__)


def wrap(
    argv: Sequence[str],
    *,
    writable: Mapping[str, Path],
    readable: Mapping[str, Path] = MappingProxyType({}),
    hidden: Sequence[Path] = (),
    directory: str = "/",
    capabilities: Sequence[str] | None,
    options: Sequence[str] = (),
) -> list[str]:
    """Return the argument list that runs ``argv`` contained. It has no network and inherits the environment.

    ``writable`` and ``readable`` map paths in the sandbox to our paths. ``hidden`` are directories inside a system
    directory that must not be visible. ``directory`` is the working directory. ``capabilities`` are those that root
    keeps, None for other users, who get a user namespace. ``options`` are further options of bubblewrap.
    """
    result = [PROGRAM, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    result += ["--die-with-parent", "--new-session"]
    if capabilities is None:
        result += ["--unshare-user"]
    else:
        result += ["--cap-drop", "ALL"]
        for capability in capabilities:
            result += ["--cap-add", capability]
    result += options
    result += ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_DIRECTORIES:
        path = Path(name)
        if path.is_symlink():
            result += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            result += ["--ro-bind", name, name]
    for name in _SYSTEM_FILES:
        result += ["--ro-bind-try", name, name]
    # Read-only: root without any capability may still write kernel settings, core_pattern among them.
    result += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    result += ["--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108  (a new one)
    for path in hidden:
        result += ["--tmpfs", str(path)]
    for name, path in readable.items():
        result += ["--ro-bind", str(path), name]
    for name, path in writable.items():
        result += ["--bind", str(path), name]
    # The root directory is memory that nobody else sees, and a receiver has no reason to write to it.
    return [*result, "--remount-ro", "/", "--chdir", directory, "--", *argv]


def in_same_directory(directory: int, argv: Sequence[str]) -> list[str]:
    """Return the argument list that runs ``argv`` only if its working directory is the open ``directory``.

    bubblewrap binds the directory at a path. If somebody puts another directory there after ours was opened, that one
    would be sent or written to. The program exits with status 3 instead.
    """
    return ["sh", "-c", _IN_SAME_DIRECTORY, directory_identity(directory), *argv]


def directory_identity(directory: int) -> str:
    """Return device and inode of an open directory, as ``stat -c %d:%i`` prints them."""
    status = os.fstat(directory)
    return f"{status.st_dev}:{status.st_ino}"


def syscall_filter(stack: ExitStack) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return bubblewrap's options for the system-call filter and the descriptors to pass, closed with ``stack``."""
    descriptor = seccomp.descriptor()
    if descriptor is None:
        _warn_of_no_filter()
        return (), ()
    stack.callback(os.close, descriptor)
    return ("--seccomp", str(descriptor)), (descriptor,)


@functools.cache
def _warn_of_no_filter() -> None:
    """Log the warning once in a program, which is once in a session."""
    _LOG.warning("rsync's sandbox has no system-call filter: %s", seccomp.UNAVAILABLE_REASON)
