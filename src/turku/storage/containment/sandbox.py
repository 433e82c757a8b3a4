"""The sandbox of rsync: everything that it can see and do when it receives a backup or sends one back.

A contained receiver sees one directory to write to, which shares no file with a snapshot, the trees that it may read
(the base snapshot), a read-only system without secrets, and itself. It sees no other source, snapshot, record or trash
of the machine, and not the machine's directory.

It has no network. This process connects to the machine's tunnel, makes sure that an rsync daemon answers, and hands the
connected socket in. So a compromised receiver reaches no other tunnel and no service of the storage, and only an rsync
daemon gets a byte of ours. As root it keeps the few capabilities that restoring owners and modes takes. Without root it
lives in a user namespace and keeps none. A sender sees one snapshot's tree, read-only.

``trusted.*`` and ``security.*`` attributes need CAP_SYS_ADMIN. Only transfers that read or write attributes get it, and
only together with the system-call filter, which refuses everything else that it would allow.
"""

import functools
import os
import select
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from turku.core import command
from turku.core.secret import Secret
from turku.errors import BackupFailed
from turku.storage.containment import bubblewrap
from turku.storage.containment.bubblewrap import is_contained, sandbox_availability
from turku.storage.fs import tree as fs

if TYPE_CHECKING:
    from turku.storage.config.model import StorageConfig

WORKING_DIRECTORY = "/tree"
"""The directory in which a contained rsync works."""
_READABLE = "/beside"
"""Prefix of the paths that a contained rsync may read."""
_LAST_PROCESS_TIMEOUT_SECONDS = 10.0
PathInSandbox = Callable[[Path], str]
"""Maps a path of ours to the path at which a contained program sees it."""
Arguments = Callable[[PathInSandbox], list[str]]
# rsync talks to a program instead of the network. The connected socket comes in as standard input and is kept as
# descriptor 9. There is one cat for each direction. When the machine hangs up, the other direction is ended too. The
# relay is no child of rsync: the signal of its end would interrupt rsync where it waits to write a line, and rsync then
# gives up with exit code 13.
_SOCKET_TO_NINE = 'exec 9<&0 </dev/null; exec "$0" "$@"'
_RELAY = "exec 8<&0; { cat <&8 >&9 & cat <&9; kill $! 2>/dev/null || :; } &"


@contextmanager
def contained_rsync(
    arguments: Arguments,
    *,
    configuration: "StorageConfig",
    port: int,
    password: Secret,
    directory: Path,
    capabilities: Sequence[str] | None,
    is_writable: bool = False,
    readable: Sequence[Path] = (),
    root: int | None = None,
    on_line: Callable[[str], None] | None = None,
    on_bytes: Callable[[bytes], None] | None = None,
) -> Iterator[command.Child]:
    """Yield a running rsync that works in ``directory`` and talks to the daemon at the tunnel's ``port``.

    If contained, it sees nothing else of the machine but ``readable``. ``arguments`` makes its argument list from the
    paths at which it sees these. ``capabilities`` are those that it keeps of root's. ``root`` is the open directory
    that ``directory`` must be: if another one has its path by now, nothing is sent. Its output goes to a pipe. The
    callbacks are those of ``command.start``. After the block no process of a contained rsync is left. Raises
    DaemonUnreachable if no rsync daemon answers at ``port``, ConfigurationError as ``is_contained`` does.
    """
    start = functools.partial(command.start, stdout=True, on_line=on_line, on_bytes=on_bytes)
    environment = {"RSYNC_PASSWORD": password.reveal()}
    contained = is_contained(configuration.limits)
    with ExitStack() as stack:
        connection = connect(port)
        stack.callback(connection.close)
        opened = _opened(stack, directory, root)
        if not contained:
            connection.close()
            working_directory = Path(f"/proc/self/fd/{opened}")
            with start(arguments(str), working_directory=working_directory, extra_environment=environment) as child:
                yield child
            return
        alive = stack.enter_context(_awaiting_last_process())
        filter_options, descriptors = bubblewrap.syscall_filter(stack)
        # Short, so that the longest paths of the machine can be reached below them.
        names = {path: f"{_READABLE}{number}" for number, path in enumerate(readable)}
        visible = {str(path): path for path in rsync_programs(configuration.receiving.rsync_command)}
        visible |= {name: path for path, name in names.items()}
        argv = bubblewrap.wrap(
            bubblewrap.in_same_directory(opened, ["sh", "-c", _SOCKET_TO_NINE, *arguments(names.__getitem__)]),
            writable={WORKING_DIRECTORY: directory} if is_writable else {},
            readable=visible if is_writable else {**visible, WORKING_DIRECTORY: directory},
            hidden=_directories_in_system(configuration),
            directory=WORKING_DIRECTORY,
            capabilities=capabilities,
            options=[*sandbox_availability(configuration.limits).options, *filter_options, "--sync-fd", str(alive)],
        )
        with start(
            argv,
            stdin=connection.fileno(),
            pass_descriptors=(alive, *descriptors),
            extra_environment={"RSYNC_CONNECT_PROG": _RELAY, **environment},
        ) as child:
            yield child


def _opened(stack: ExitStack, directory: Path, root: int | None) -> int:
    """Return a descriptor of the directory, which must be the directory ``root`` if given. Raises BackupFailed."""
    try:
        opened = stack.enter_context(fs.opened(directory))
        is_same = root is None or bubblewrap.directory_identity(opened) == bubblewrap.directory_identity(root)
    except OSError as error:
        raise BackupFailed(f"the directory to work in cannot be opened: {error.strerror}") from error
    if not is_same:
        raise BackupFailed("the directory to work in was replaced meanwhile; nothing was done")
    return opened


@contextmanager
def _awaiting_last_process() -> Iterator[int]:
    """Yield a descriptor for --sync-fd. When the block ends, no process of the sandbox is left."""
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


def rsync_programs(rsync_command: Sequence[str]) -> list[Path]:
    """Return the files of ``rsync_command`` outside the system directories: an rsync in /opt, a wrapper."""
    found = [shutil.which(rsync_command[0], path=command.environment()["PATH"]), *rsync_command[1:]]
    paths = [Path(word) for word in found if word is not None and word.startswith("/")]
    return [path for path in paths if path.is_file() and not path.is_relative_to("/usr")]


def _directories_in_system(configuration: "StorageConfig") -> list[Path]:
    """Return directories of ours that lie below /usr and would be visible with the read-only system."""
    ours = [
        configuration.state.var_dir,
        configuration.config_dir,
        *(volume.path for volume in configuration.disk.volumes),
    ]
    return [path.resolve() for path in ours if path.resolve().is_relative_to("/usr") and path.is_dir()]


_CONNECT_TIMEOUT_SECONDS = 30.0
_GREETING = b"@RSYNCD:"


class DaemonUnreachable(BackupFailed):
    """No rsync daemon answers behind the tunnel."""


def connect(port: int) -> socket.socket:
    """Return a connection to the rsync daemon behind the tunnel's ``port``. Its greeting is unread, nothing was sent.

    Raises DaemonUnreachable if nobody listens there, or another service does.
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
