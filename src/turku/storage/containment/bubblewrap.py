"""bubblewrap: the part of the system that a contained program sees, and its availability, tried once per process."""

import errno
import functools
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from turku.core import command
from turku.errors import BackupFailed, CommandFailed, ConfigurationError
from turku.storage.containment import seccomp

if TYPE_CHECKING:
    from turku.storage.config.model import LimitsConfig

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


_PROBE_TIMEOUTS_SECONDS = (10.0, 30.0)
"""Limits of each attempt. A busy host gets more time before a session is given up."""
_CANNOT_START = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC)
_SIGNAL_CODES = 128
_SCARCITY = ("Resource temporarily unavailable", "Cannot allocate memory", "Too many open files")
"""bubblewrap's messages for conditions that pass in a moment."""


@dataclass(frozen=True)
class SandboxAvailability:
    """The result of the probe: receivers run contained, or the reason against it."""

    is_used: bool
    reason: str
    options: tuple[str, ...] = ()
    """Options of bubblewrap that only some releases know."""


class SandboxProbeFailed(BackupFailed):
    """The sandbox could not be tried: the probe was killed, or did not end in time."""


def sandbox_availability(configuration: "LimitsConfig") -> SandboxAvailability:
    """Return True with ``is_used`` if the configuration asks for the sandbox and this host can provide it.

    Raises SandboxProbeFailed.
    """
    if configuration.sandbox == "off":
        return SandboxAvailability(is_used=False, reason="sandbox is off in the configuration")
    return _probe(os.geteuid() == 0)


def is_required(configuration: "LimitsConfig") -> bool:
    """Return True if nothing runs without the sandbox, which is the default of a storage that runs as root.

    A fault in an uncontained rsync of root's would reach the whole host.
    """
    return configuration.sandbox == "required" or (configuration.sandbox is None and os.geteuid() == 0)


def is_contained(configuration: "LimitsConfig") -> bool:
    """Return True if receivers run contained. Return False with a warning if ``auto`` finds that they cannot.

    Raises ConfigurationError if the sandbox is required and not available, SandboxProbeFailed if that is unknown.
    """
    found = sandbox_availability(configuration)
    if found.is_used or configuration.sandbox == "off":
        return found.is_used
    if is_required(configuration):
        raise ConfigurationError(
            f"sandbox: required, but {found.reason}; 'turku-storage check' on the storage tells more",
            hint="install bubblewrap and allow it namespaces; to go on without it, set sandbox to auto",
        )
    _LOG.warning("the receiving rsync runs without a sandbox: %s", found.reason)
    return False


def fault(configuration: "LimitsConfig") -> str | None:
    """Return a sentence if the configuration wants a sandbox that this host cannot provide, or None.

    A storage without root that does not name the key has it where it works. Raises SandboxProbeFailed.
    """
    found = sandbox_availability(configuration)
    if found.is_used or configuration.sandbox == "off":
        return None
    if is_required(configuration):
        return f"nothing is backed up or restored: sandbox: required, but {found.reason}"
    return None if configuration.sandbox is None else f"rsync runs without a sandbox (sandbox: auto): {found.reason}"


@functools.lru_cache(maxsize=2)
def _probe(is_root: bool) -> SandboxAvailability:  # noqa: FBT001
    """Return the result of a trial run. Nothing is remembered if it raises SandboxProbeFailed."""
    if shutil.which(PROGRAM, path=command.environment()["PATH"]) is None:
        return SandboxAvailability(is_used=False, reason="bubblewrap (bwrap) is not installed")
    reason = ""
    # Without root, the sandbox's own user namespace is the last one if bubblewrap (0.8) can enforce that.
    for options in ((),) if is_root else (("--disable-userns",), ()):
        refusal = _refusal(options, is_root=is_root)
        if refusal is None:
            return SandboxAvailability(is_used=True, reason="bubblewrap works", options=tuple(options))
        reason = refusal
    return SandboxAvailability(is_used=False, reason=f"bubblewrap does not work here: {reason}")


def _refusal(options: Sequence[str], *, is_root: bool) -> str | None:
    """Return bubblewrap's reason not to start with these options, None if it starts.

    Raises SandboxProbeFailed: a signal, a timeout or a lack of memory is no refusal.
    """
    reason = ""
    for timeout_seconds in _PROBE_TIMEOUTS_SECONDS:
        with ExitStack() as stack:
            filter_options, descriptors = syscall_filter(stack)
            argv = wrap(
                ["true"], writable={}, capabilities=() if is_root else None, options=(*options, *filter_options)
            )
            try:
                child = stack.enter_context(command.start(argv, pass_descriptors=descriptors))
            except CommandFailed as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in _CANNOT_START:
                    return error.message
                reason = error.message
                continue
            try:
                code = child.wait(timeout_seconds)
            except CommandFailed as error:
                reason = error.message
                continue
            if code == 0:
                return None
            reason = "; ".join(child.last_lines)
            if code > _SIGNAL_CODES:
                reason = f"it was ended by signal {code - _SIGNAL_CODES}"
            elif not any(text in reason for text in _SCARCITY):
                return reason
    raise SandboxProbeFailed(
        f"whether rsync can be contained could not be tried: bubblewrap: {reason}",
        hint="nothing was transferred without a sandbox; is this host out of memory or overloaded? "
        "'sandbox: off' does without one",
    )
