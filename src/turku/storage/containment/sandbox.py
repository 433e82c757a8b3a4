"""rsync's sandbox: what bubblewrap lets it see and do, when it receives a backup and when it sends one back.

A contained receiver sees one directory that it writes into, which shares no file with a snapshot, the trees that it may
read (the snapshot that it is compared with), a read-only system without secrets, and itself: no other source, snapshot,
record or trash of the machine, nor the machine's directory.

It has no network: this process connects to the machine's tunnel, makes sure that an rsync daemon answers, and hands the
connected socket in. So a receiver that was taken over reaches no other tunnel and no service of the storage, and no
service but an rsync daemon gets a byte of ours. As root it keeps the few capabilities that restoring owners and modes
takes; without root it lives in a user namespace and keeps none. A sender sees one snapshot's tree, read-only.

``trusted.*`` and ``security.*`` attributes want CAP_SYS_ADMIN. It is given to those transfers alone that read or write
attributes, and only together with the system-call filter, which refuses all else that it would allow.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING

from turku.core import command
from turku.core.cancellation import Cancelled
from turku.core.filesystem import extended_attributes
from turku.core.line_reading import emptied
from turku.core.secret import Secret
from turku.errors import BackupFailed, CommandFailed, ConfigurationError
from turku.storage.containment import limits, seccomp
from turku.storage.fs import tree as fs

if TYPE_CHECKING:
    from turku.storage.config.configuration import StorageConfig

PROGRAM = "bwrap"
FAKE_SUPER_CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_FOWNER")
OWNER_CAPABILITIES = (*FAKE_SUPER_CAPABILITIES, "CAP_CHOWN", "CAP_FSETID")
"""FSETID: without it the kernel silently clears setgid bits of files that belong to groups other than root's."""
DEVICE_CAPABILITY = "CAP_MKNOD"
FILE_CAPABILITY = "CAP_SETFCAP"
"""Sets ``security.capability``, which makes of a file what setuid does."""
ATTRIBUTE_CAPABILITY = "CAP_SYS_ADMIN"
"""Reads and sets ``trusted.*``, and sets ``security.*``."""
_CAPABILITY_BITS = {FILE_CAPABILITY: 31, ATTRIBUTE_CAPABILITY: 21}
SENDER_CAPABILITIES = ("CAP_DAC_READ_SEARCH",)
"""What was backed up is read whoever may read it on the machine."""
_SYSTEM_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Names of users and groups, the linker's cache, the time zone: nothing secret.
_SYSTEM_FILES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/localtime")
_PROBE_TIMEOUTS_SECONDS = (10.0, 30.0)
"""Of each attempt: a host that is busy gets more time before a session is given up."""
_CANNOT_START = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC)
_SIGNAL_CODES = 128
_SCARCITY = ("Resource temporarily unavailable", "Cannot allocate memory", "Too many open files")
"""bubblewrap's words for what is over a moment later."""
_CONNECT_TIMEOUT_SECONDS = 30.0
_LAST_PROCESS_TIMEOUT_SECONDS = 10.0
_END_TIMEOUT_SECONDS = 3.0
_GREETING = b"@RSYNCD:"
WORKING_DIRECTORY, _BESIDE = "/tree", "/beside"
"""Where a contained rsync sees what it works in, and what it reads beside it."""
PathInSandbox = Callable[[Path], str]
"""Says by which path a program sees what lies at a path of ours."""
Arguments = Callable[[PathInSandbox], list[str]]
# rsync talks to a program instead of the network. The connected socket comes in as standard input and is kept as
# descriptor 9; one cat for each direction. When the machine hangs up, the other direction is ended too.
_SOCKET_TO_NINE = 'exec 9<&0 </dev/null; exec "$0" "$@"'
_RELAY = "exec 8<&0; cat <&8 >&9 & cat <&9; kill $! 2>/dev/null || :"
_IN_THIS_ONE = (
    '[ "$(stat -c %d:%i .)" = "$0" ] && exec "$@"; echo "the directory to work in was replaced meanwhile" >&2; exit 3'
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SandboxAvailability:
    """Whether receivers are contained here, and why not."""

    is_used: bool
    reason: str
    options: tuple[str, ...] = ()
    """Options of bubblewrap that only some releases know."""


@dataclass(frozen=True)
class SandboxedRsync:
    """How to start an rsync that the sandbox was made for."""

    argv: list[str]
    stdin: bool | int = False
    descriptors: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    directory: int | None = None
    """Where it is started; None where the sandbox sees to that."""

    def start(
        self,
        *,
        password: Secret,
        on_line: Callable[[str], None] | None = None,
        on_bytes: Callable[[bytes], None] | None = None,
    ) -> AbstractContextManager[command.Child]:
        """Start rsync, its output to be read; the rest is as with ``command.start``."""
        return command.start(
            self.argv,
            on_line=on_line,
            on_bytes=on_bytes,
            stdin=self.stdin,
            stdout=True,
            working_directory=None if self.directory is None else Path(f"/proc/self/fd/{self.directory}"),
            pass_descriptors=self.descriptors,
            extra_environment={**self.environment, "RSYNC_PASSWORD": password.reveal()},
        )


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
    """Return the argument list that runs ``argv`` contained; it has no network and inherits the environment.

    ``writable`` and ``readable`` are what is seen, by the paths at which it is. ``hidden`` are directories that would
    be seen because they lie in a system directory. ``directory`` is where it starts. ``capabilities`` are what root
    keeps; None is for those who are not root: a user namespace. ``options`` are further options of bubblewrap.
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
    # The root of it all is memory that nobody else sees; a receiver has no business with it.
    return [*result, "--remount-ro", "/", "--chdir", directory, "--", *argv]


def in_same_directory(directory: int, argv: Sequence[str]) -> list[str]:
    """Return the argument list that runs ``argv`` where the directory that it starts in is the open one.

    bubblewrap binds what lies at a path. Whoever puts another directory there in the moment after ours was opened
    would have that one sent, or written to: it ends with 3 instead.
    """
    return ["sh", "-c", _IN_THIS_ONE, _identity(directory), *argv]


def _identity(directory: int) -> str:
    status = os.fstat(directory)
    return f"{status.st_dev}:{status.st_ino}"


def availability(configuration: StorageConfig) -> SandboxAvailability:
    """Return whether the configuration asks for the sandbox and this host can give it; tried once per process.

    Raises SandboxNotTried.
    """
    if configuration.sandbox == "off":
        return SandboxAvailability(is_used=False, reason="sandbox is off in the configuration")
    return _probe(os.geteuid() == 0)


class SandboxProbeFailed(BackupFailed):
    """Nobody knows whether rsync can be contained: what tried it was killed, or did not end in time."""


@functools.lru_cache(maxsize=2)
def _probe(is_root: bool) -> SandboxAvailability:  # noqa: FBT001
    """Return what trying it gave; nothing is remembered where that raises SandboxNotTried."""
    if shutil.which(PROGRAM, path=command.environment()["PATH"]) is None:
        return SandboxAvailability(is_used=False, reason="bubblewrap (bwrap) is not installed")
    reason = ""
    # Without root, the sandbox's own user namespace is the last one, where bubblewrap (0.8) can see to that.
    for options in ((),) if is_root else (("--disable-userns",), ()):
        refusal = _refusal(options, is_root=is_root)
        if refusal is None:
            return SandboxAvailability(is_used=True, reason="bubblewrap works", options=tuple(options))
        reason = refusal
    return SandboxAvailability(is_used=False, reason=f"bubblewrap does not work here: {reason}")


def _refusal(options: Sequence[str], *, is_root: bool) -> str | None:
    """Return why bubblewrap cannot do it with these options; None where it can.

    Raises SandboxNotTried: a signal or a time-out is no refusal, and nor is a lack of memory.
    """
    reason = ""
    for timeout_seconds in _PROBE_TIMEOUTS_SECONDS:
        with ExitStack() as stack:
            filter_options, descriptors = _filter(stack)
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


def _filter(stack: ExitStack) -> tuple[tuple[str, ...], tuple[int, ...]]:
    descriptor = seccomp.descriptor()
    if descriptor is None:
        _warn_of_no_filter()
        return (), ()
    stack.callback(os.close, descriptor)
    return ("--seccomp", str(descriptor)), (descriptor,)


@functools.cache
def _warn_of_no_filter() -> None:
    """Once in a program, which is once in a session."""
    _LOG.warning("rsync's sandbox has no system-call filter: %s", seccomp.UNAVAILABLE_REASON)


def is_contained(configuration: StorageConfig) -> bool:
    """True when receivers run contained; False, with a warning on the log, when ``auto`` finds that it cannot.

    Raises ConfigurationError when it is ``required`` and cannot, SandboxNotTried when nobody knows.
    """
    found = availability(configuration)
    if found.is_used or configuration.sandbox == "off":
        return found.is_used
    if configuration.sandbox == "required":
        raise ConfigurationError(
            f"sandbox: required, but {found.reason}",
            hint="install bubblewrap and allow it user namespaces, or run as root; see turku-storage check",
        )
    _LOG.warning("the receiving rsync runs without a sandbox: %s", found.reason)
    return False


@contextmanager
def receiver(
    arguments: Arguments,
    *,
    configuration: StorageConfig,
    port: int,
    fake_super: bool,
    directory: Path,
    is_writable: bool = True,
    keeps_privileged_attributes: bool = False,
    readable: Sequence[Path] = (),
) -> Iterator[SandboxedRsync]:
    """Yield how to start an rsync that receives into ``directory`` from the daemon at the tunnel's ``port``.

    It starts in ``directory``, and sees nothing else of the machine but ``readable``; ``arguments`` makes its argument
    list, and is given what says by which path it sees each of these. ``fake_super`` says that it keeps owners in
    extended attributes. The child is started and ended inside the block; after the block no process of a contained
    receiver is left.
    Raises BackupFailed when no rsync daemon answers at ``port``, ConfigurationError as ``is_contained`` does.
    """
    with _connected(
        arguments,
        configuration=configuration,
        port=port,
        directory=directory,
        is_writable=is_writable,
        readable=readable,
        capabilities=_capabilities(
            configuration, fake_super=fake_super, keeps_privileged_attributes=keeps_privileged_attributes
        ),
    ) as found:
        yield found


@contextmanager
def sender(
    arguments: Arguments, *, configuration: StorageConfig, tree: Path, port: int, root: int | None = None
) -> Iterator[SandboxedRsync]:
    """Yield how to start an rsync that sends what is in ``tree`` to the daemon at the tunnel's ``port``.

    It starts in ``tree``, and contained it sees that tree alone, read-only. ``root`` is the tree's open directory:
    where another one has its name by now, nothing is sent. The rest is as with ``receiver``.
    """
    with _connected(
        arguments,
        configuration=configuration,
        port=port,
        directory=tree,
        root=root,
        is_writable=False,
        capabilities=((*SENDER_CAPABILITIES, *_reading_capabilities(configuration)) if os.geteuid() == 0 else None),
    ) as found:
        yield found


@contextmanager
def _connected(
    arguments: Arguments,
    *,
    configuration: StorageConfig,
    port: int,
    directory: Path,
    is_writable: bool,
    capabilities: Sequence[str] | None,
    readable: Sequence[Path] = (),
    root: int | None = None,
) -> Iterator[SandboxedRsync]:
    contained = is_contained(configuration)
    with ExitStack() as stack:
        connection = connect(port)
        stack.callback(connection.close)
        opened = _opened(stack, directory, root)
        if not contained:
            connection.close()
            yield SandboxedRsync(arguments(str), directory=opened)
            return
        alive = stack.enter_context(_outlived_by_none())
        filter_options, descriptors = _filter(stack)
        # Short, so that the longest paths of the machine can be reached below them.
        names = {path: f"{_BESIDE}{number}" for number, path in enumerate(readable)}
        seen = {**{str(path): path for path in programs(configuration.rsync_command)}}
        seen |= {name: path for path, name in names.items()}
        yield SandboxedRsync(
            wrap(
                in_same_directory(opened, ["sh", "-c", _SOCKET_TO_NINE, *arguments(names.__getitem__)]),
                writable={WORKING_DIRECTORY: directory} if is_writable else {},
                readable=seen if is_writable else {**seen, WORKING_DIRECTORY: directory},
                hidden=_inside_system(configuration),
                directory=WORKING_DIRECTORY,
                capabilities=capabilities,
                options=[*availability(configuration).options, *filter_options, "--sync-fd", str(alive)],
            ),
            stdin=connection.fileno(),
            descriptors=(alive, *descriptors),
            environment={"RSYNC_CONNECT_PROG": _RELAY},
        )


def _opened(stack: ExitStack, directory: Path, root: int | None) -> int:
    """Return a descriptor of the directory, which is that of ``root`` where there is one. Raises BackupFailed."""
    try:
        opened = stack.enter_context(fs.opened(directory))
        is_same = root is None or _identity(opened) == _identity(root)
    except OSError as error:
        raise BackupFailed(f"the directory to work in cannot be opened: {error.strerror}") from error
    if not is_same:
        raise BackupFailed("the directory to work in was replaced meanwhile; nothing was done")
    return opened


def end(child: command.Child) -> None:
    """Ask the processes below ``child`` to end, and give them a moment: rsync then removes what it had half received.

    Signals to the child itself would end bubblewrap, which ends them all at once.
    """
    for process in limits.descendants(child.pid):
        with suppress(OSError):
            os.kill(process, signal.SIGTERM)
    with suppress(CommandFailed):
        child.wait(_END_TIMEOUT_SECONDS)


@contextmanager
def output_reader(
    child: command.Child,
    read: Callable[[IO[bytes]], None],
    *,
    abandon: Callable[[], None] = lambda: None,
    timeout_seconds: float | None = None,
) -> Iterator[threading.Thread]:
    """Have a thread read what ``child`` prints, to its end; the block waits for the child.

    What ``read`` leaves, be it because it raised, is read without it. Where the block raises, ``abandon`` lets ``read``
    come to its end, and the child is ended, so that its stream is not closed under the thread. After the block the
    thread is waited for, ``timeout_seconds`` at most.
    """

    def read_all() -> None:
        with emptied(child.stdout):
            try:
                read(child.stdout)
            except Cancelled:
                # Whoever waits for the child notices it too.
                return
            except Exception:
                _LOG.exception("the reader of what %s prints failed; the rest of it is not told", child.argv[0])

    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    try:
        yield reader
    except BaseException:
        abandon()
        end(child)
        reader.join(_END_TIMEOUT_SECONDS)
        raise
    reader.join(timeout_seconds)


class DaemonUnreachable(BackupFailed):
    """No rsync daemon is behind the tunnel."""


def connect(port: int) -> socket.socket:
    """A connection to the rsync daemon behind the tunnel's ``port``, its greeting still unread; nothing was sent.

    Raises NobodyAnswers when nobody listens there, or another service does.
    """
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_TIMEOUT_SECONDS)
    except OSError as error:
        raise DaemonUnreachable(
            f"nobody listens at port {port} of the tunnel: {error.strerror or error}",
            hint="the agent's rsync daemon or its ssh ended, or sshd did not let it forward the port",
        ) from error
    try:
        connection.settimeout(_CONNECT_TIMEOUT_SECONDS)
        greeting = b""
        # MSG_WAITALL with MSG_PEEK returns when that many bytes are there, or at the end.
        with suppress(OSError):
            greeting = connection.recv(len(_GREETING), socket.MSG_PEEK | socket.MSG_WAITALL)
        if greeting != _GREETING:
            raise DaemonUnreachable(f"no rsync daemon answers at port {port} of the tunnel")
        # A timeout makes the socket non-blocking, and the relay shares it.
        connection.setblocking(True)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _outlived_by_none() -> Iterator[int]:
    """A descriptor for --sync-fd; when the block ends, no process of the sandbox is left."""
    read_end, write_end = os.pipe()
    try:
        try:
            yield write_end
        finally:
            os.close(write_end)
        # The sandbox's first process ends last, and with it the last holder of the other end.
        ready, _, _ = select.select([read_end], [], [], _LAST_PROCESS_TIMEOUT_SECONDS)
        if not ready:
            raise BackupFailed("processes of the ended receiver are still running in its sandbox")
    finally:
        os.close(read_end)


def _capabilities(
    configuration: StorageConfig, *, fake_super: bool, keeps_privileged_attributes: bool
) -> Sequence[str] | None:
    if os.geteuid() != 0:
        return None
    if fake_super:
        return FAKE_SUPER_CAPABILITIES
    return (
        *OWNER_CAPABILITIES,
        *([DEVICE_CAPABILITY] if configuration.keep_devices else []),
        *(_attribute_capabilities(configuration) if keeps_privileged_attributes else []),
    )


def _reading_capabilities(configuration: StorageConfig) -> list[str]:
    return [each for each in _attribute_capabilities(configuration) if each == ATTRIBUTE_CAPABILITY]


def _attribute_capabilities(configuration: StorageConfig) -> list[str]:
    if not configuration.keep_privileged_attributes:
        return []
    wanted = [FILE_CAPABILITY]
    if seccomp.available_filter() is not None:
        wanted.append(ATTRIBUTE_CAPABILITY)
    return [each for each in wanted if _has_capability(each)]


@functools.cache
def _has_capability(name: str) -> bool:
    """Return whether this process has the capability: in a container root may lack it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAPABILITY_BITS[name] & 1)
    return False


def has_selinux_labels() -> bool:
    """Return whether SELinux gives each file of this host a label."""
    return extended_attributes.are_labelled_here()


def privileged_attributes(configuration: StorageConfig) -> tuple[str, ...]:
    """Return what rsync's filter has of the names that only root can set, and that rsync can keep here.

    A host with SELinux gives each file a label of its own, which is not that of the machine.
    """
    if not configuration.keep_privileged_attributes:
        return ()
    if availability(configuration).is_used:
        held = _attribute_capabilities(configuration)
    else:
        held = [each for each in _CAPABILITY_BITS if _has_capability(each)]
    if ATTRIBUTE_CAPABILITY not in held:
        return ("security.capability",) if FILE_CAPABILITY in held else ()
    if has_selinux_labels():
        return ("trusted.*", "security.capability", "security.ima")
    return ("trusted.*", "security.*")


def programs(rsync_command: Sequence[str]) -> list[Path]:
    """What of ``rsync_command`` lies outside the system directories: a rsync in /opt, a wrapper."""
    found = [shutil.which(rsync_command[0], path=command.environment()["PATH"]), *rsync_command[1:]]
    paths = [Path(word) for word in found if word is not None and word.startswith("/")]
    return [path for path in paths if path.is_file() and not path.is_relative_to("/usr")]


def _inside_system(configuration: StorageConfig) -> list[Path]:
    """Directories of ours that a read-only system would show."""
    ours = [configuration.var_dir, configuration.config_dir, *(volume.path for volume in configuration.volumes)]
    return [path.resolve() for path in ours if path.resolve().is_relative_to("/usr") and path.is_dir()]
