"""Restores against a storage that says and sends malformed things: our agent, its rsyncd, and real senders.

    with FuzzedRestores(directory, seed=1) as restores:
        ended = restores.run(7)      session number 7: always the same

In the place of ssh is a program that leads to this process, which plays the storage. It answers with a plan and a
manifest that are mutated, and pushes by a real rsync with options and trees of an attacker's choice, through a relay
that mutates the stream. Around the target lies bait. ``ended.faults`` says what must not be: something else than what
was asked for changed, a traceback, a run without an end or with much memory, a command that stayed behind.
"""

import base64
import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import xxhash
from tests.support.hostile_storage import children_of

from turku.agent.config import loading as configuration
from turku.agent.restore import run as restore_run
from turku.agent.restore.job import RestoreJob
from turku.agent.rsyncd import daemon as rsync_daemon
from turku.core import command
from turku.errors import TurkuError
from turku.protocol import rsync_checksums
from turku.protocol.messages import StorageAddress

LIMIT_SECONDS = 25.0
MEMORY_LIMIT_MIB = 100.0
"""On top of what this process has, of which the agent is a fork."""
OUTPUT_LIMIT_BYTES = 400_000
SENDER_SECONDS = 2.0
_SSH = """
import os, select, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    for ready in select.select([0, s], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else s.recv(65536)
        if not data:
            sys.exit(0)
        os.write(1, data) if ready is s else s.sendall(data)
"""
_ADDRESS = StorageAddress(
    "primary",
    "127.0.0.1",
    ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"],
    22,
    "root",
)
_OPTIONS = (
    (),
    (),
    ("--keep-dirlinks",),
    ("--delete",),
    ("--delete", "--force"),
    ("--inplace",),
    ("--append",),
    ("--backup", "--backup-dir=../other"),
    ("--backup", "--suffix=x"),
    ("--temp-dir=/", "--ignore-times"),
    ("--partial-dir=../other", "--partial"),
    ("--hard-links", "--ignore-times"),
    ("--sparse",),
    ("--relative",),
    ("--write-devices",),
    ("--remove-source-files",),
    ("--delay-updates",),
    ("--copy-dest=../../other",),
    ("--link-dest=/docs",),
    ("--chmod=a=rwx,u+s",),
    ("--xattrs", "--acls"),
    ("--fuzzy",),
    ("--checksum",),
    ("--compress",),
    ("--no-recursive",),
    ("--protocol=30",),
)
_NAMES = ("docs/file", "docs/x/inner", "docs/new", "root/.ssh/authorized_keys", "other/file", "passwd", "\nbad", "docs")


@dataclass
class Ended:
    """The end of a session."""

    number: int
    kind: str
    exit_code: int | None
    output: str
    seconds: float
    largest_mib: float
    faults: list[str] = field(default_factory=list)


class FuzzedRestores:
    """Sessions, one after the other, as a context manager."""

    def __init__(self, directory: Path, *, seed: int) -> None:
        self._directory = directory
        self._seed = seed
        self._listener = socket.create_server(("127.0.0.1", 0))
        ssh = directory / "ssh.py"
        ssh.write_text(_SSH)
        etc = directory / "etc" / "config.d"
        etc.mkdir(parents=True)
        content = {
            "api_url": "http://127.0.0.1:1/v1",
            "var_dir": str(directory / "var"),
            "ssh_command": [sys.executable, "-I", "-S", str(ssh), str(self._listener.getsockname()[1])],
            "session_timeout_seconds": 15,
            "storage_host_keys": {"primary": _ADDRESS.ssh_ping_host_keys},
        }
        (etc / "config.json").write_text(json.dumps(content))
        self._agent = configuration.load(directory / "etc")
        (directory / "var").mkdir(mode=0o700)
        # Never used: nothing here is ssh.
        key = directory / "var" / "ssh_key"
        command.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], timeout_seconds=60)
        # Asked once: each fork knows it.
        rsync_checksums.knows_xxh128(self._agent.rsyncd.rsyncd_command)
        rsync_daemon.can_change_root()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def run(self, number: int) -> Ended:
        """Play one session."""
        chance = random.Random(f"{self._seed} {number}")
        world = self._directory / "world"
        shutil.rmtree(world, ignore_errors=True)
        home = _bait(world)
        kind = "honest" if number % 20 == 0 else chance.choice(("words", "stream", "options", "all"))
        is_whole = kind == "honest" or chance.random() < 0.3
        target = home / "restored" if is_whole else home
        order = RestoreJob(
            "home",
            _ADDRESS,
            target,
            paths=() if is_whole else (b"docs",),
            overwrite="always" if kind == "honest" else chance.choice(("always", "older", "never")),
            delete=kind != "honest" and chance.random() < 0.3,
        )
        before = _fingerprint(world, but=target if is_whole else target / "docs")
        output_path = self._directory / "output"
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            self._restore(order, output_path)
        storage = _Storage(self._listener, chance, kind, self._directory, is_whole=is_whole)
        storage.start()
        exit_code, largest_mib = _awaited(child, begun + LIMIT_SECONDS)
        storage.end()
        output = output_path.read_text(errors="replace")
        ended = Ended(number, kind, exit_code, output, time.monotonic() - begun, largest_mib)
        after = _fingerprint(world, but=target if is_whole else target / "docs")
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        own = sum(1 for path in target.iterdir() if path.name.startswith(".turku-restore")) if target.is_dir() else 0
        ended.faults += [
            *(["it did not end"] if exit_code is None else []),
            *([f"changed outside: {changed[:5]}"] if changed else []),
            *(["a traceback"] if "Traceback" in output or "[internal]" in output else []),
            *([f"{len(output)} bytes of output"] if len(output) > OUTPUT_LIMIT_BYTES else []),
            *([f"{largest_mib:.0f} MiB"] if largest_mib > _resident_mib() + MEMORY_LIMIT_MIB else []),
            *([f"{own} private directories"] if own > 1 else []),
            *([f"an honest restore failed: {output[-500:]}"] if kind == "honest" and exit_code != 0 else []),
            *(["not restored"] if kind == "honest" and not (target / "docs" / "file").exists() else []),
        ]
        return ended

    def _restore(self, order: RestoreJob, output: Path) -> NoReturn:
        code = 70
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            self._listener.close()
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            try:
                outcome = restore_run.restore(self._agent, order)
                print("\n".join(outcome.lines()))
                code = 0 if outcome.state == "whole" else 3
            except TurkuError as error:
                print(f"error [{error.code}]: {error.message}\n{error.details}")
                code = error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _awaited(child: int, deadline: float) -> tuple[int | None, float]:
    """The exit code, None where it had to be killed, and the most memory that was resident."""
    is_over = True
    descriptor = os.pidfd_open(child)
    try:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            is_over = False
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)
    _, status, usage = os.wait4(child, 0)
    return (os.waitstatus_to_exitcode(status) if is_over else None), usage.ru_maxrss / 1024


class _Storage:
    """The attacker's side of one session."""

    def __init__(
        self, listener: socket.socket, chance: random.Random, kind: str, directory: Path, *, is_whole: bool
    ) -> None:
        self._listener = listener
        self._chance = chance
        self._kind = kind
        self._directory = directory
        self._is_whole = is_whole
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._over = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _play(self) -> None:
        self._listener.settimeout(0.2)
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection, contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
                connection.settimeout(5)
                self._session(connection)

    def _session(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        text = b""
        while (line := stream.readline()) not in (b".\n", b""):
            text += line
        request = json.loads(text)
        tree = _loot(self._directory / "loot", self._chance, is_honest=self._kind in ("honest", "words", "stream"))
        lines = [json.dumps(line).encode() + b"\n" for line in _plan(request, tree)]
        answers = [json.dumps(line).encode() + b"\n" for line in _answers(tree)]
        if self._kind in ("words", "all"):
            lines = [_mutated(self._chance, line) if self._chance.random() < 0.3 else line for line in lines]
            answers = _mutated_lines(self._chance, answers)
        connection.sendall(b"".join(lines))
        if stream.readline() != b"go\n":
            return
        self._push(request, tree)
        with contextlib.suppress(OSError):
            connection.sendall(b"".join(answers))
        stream.readline()

    def _push(self, request: dict[str, Any], tree: Path) -> None:
        options: tuple[str, ...] = ()
        if self._kind in ("options", "all"):
            options = tuple(
                option for _ in range(self._chance.randrange(1, 4)) for option in self._chance.choice(_OPTIONS)
            )
        to = self._chance.choice(("", "", "", "docs/", "../", "docs/../../", "x/")) if options else ""
        relative = ("--relative", "--no-implied-dirs") if not self._is_whole and self._kind != "options" else ()
        argv = [
            *("rsync", "-a", "--numeric-ids", "--timeout=2", "--contimeout=2", "--modify-window=-1"),
            *(f"--temp-dir={request['restore_files']['temporary']}", *relative, *options, "--"),
            *(("./docs",) if relative else ("./",)),
        ]
        mutates = self._kind in ("stream", "all")
        for _ in range(self._chance.choice((1, 1, 2)) if self._kind != "honest" else 1):
            with _Relay(request["port"], self._chance, mutates=mutates) as port:
                address = f"rsync://{request['module']['username']}@127.0.0.1:{port}/turku-restore/{to}"
                with subprocess.Popen(
                    [*argv, address],
                    cwd=tree,
                    env={**os.environ, "RSYNC_PASSWORD": request["module"]["password"]},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                ) as sender:
                    try:
                        sender.wait(SENDER_SECONDS)
                    except subprocess.TimeoutExpired:
                        os.killpg(sender.pid, signal.SIGKILL)


class _Relay:
    """A relay that passes one connection on. The sender's bytes after the handshake are mutated on their way."""

    def __init__(self, port: int, chance: random.Random, *, mutates: bool) -> None:
        self._port = port
        self._chance = chance
        self._mutates = mutates
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._thread.join(10)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.settimeout(SENDER_SECONDS)
            sender, _ = self._listener.accept()
            with sender, socket.create_connection(("127.0.0.1", self._port), 5) as daemon:
                self._pass(sender, daemon)

    def _pass(self, sender: socket.socket, daemon: socket.socket) -> None:
        is_agreed = False
        # The first bytes after the handshake are the arguments. Then come the file list and the files.
        left = self._chance.choice((0, 20, 200, 400, 800, 2000))
        deadline = time.monotonic() + SENDER_SECONDS
        while time.monotonic() < deadline:
            for ready in select.select([sender, daemon], [], [], 0.5)[0]:
                data = ready.recv(65536)
                if not data:
                    return
                if ready is daemon:
                    is_agreed = is_agreed or b"@RSYNCD: OK" in data
                    sender.sendall(data)
                    continue
                if self._mutates and is_agreed:
                    left -= len(data)
                    if left <= 0 and self._chance.random() < 0.5:
                        data = _mutated(self._chance, data)
                daemon.sendall(data)


# --- what is said and sent


def _bait(world: Path) -> Path:
    home = world / "home"
    for name in ("docs/x/inner", "docs/file", "other/file", "root/.ssh/authorized_keys", "passwd"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("mine")
    (home / "docs" / "out").symlink_to("../other")
    (home / "docs" / "away").symlink_to("../../outside")
    (home / "link").symlink_to("other")
    os.link(home / "other" / "file", home / "docs" / "shared")
    (world / "outside").mkdir()
    (world / "outside" / "file").write_text("mine")
    return home


def _fingerprint(root: Path, *, but: Path) -> dict[str, tuple[object, ...]]:
    """Return the entries below the directory, except for ``but`` and all below it, and for private directories."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(root):
        directories[:] = [
            name
            for name in directories
            if Path(directory, name) != but and not (name.startswith(".turku-restore-") and len(name) == 47)
        ]
        for name in [*directories, *files]:
            path = Path(directory, name)
            status = path.lstat()
            content = b"" if path.is_symlink() or not path.is_file() else path.read_bytes()
            link = os.readlink(path) if path.is_symlink() else ""
            # A name fewer of a file that a restore replaced is no change of the file.
            times = () if path == but.parent else (status.st_mtime_ns,)
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content, link, *times)
    return found


def _loot(tree: Path, chance: random.Random, *, is_honest: bool) -> Path:
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "docs" / "x").mkdir(parents=True)
    for number in range(chance.randrange(1, 8)):
        (tree / "docs" / f"new{number}").write_bytes(chance.randbytes(chance.choice((0, 1, 100, 5000, 80_000))))
    (tree / "docs" / "file").write_text("restored")
    (tree / "docs" / "x" / "inner").write_text("restored")
    (tree / "docs" / "link").symlink_to("file")
    if is_honest:
        return tree
    for _ in range(chance.randrange(1, 6)):
        what = chance.randrange(9)
        name = tree / chance.choice(("docs/x/way", "docs/out", "docs/away", "other", "link", "docs/y", "docs/z"))
        if os.path.lexists(name):
            continue
        if what == 0:
            name.symlink_to(chance.choice(("..", "../root/.ssh", "/etc", "../../outside", "/")))
        elif what == 1:
            name.mkdir()
            (name / "file").write_text("PLANTED")
            (name / "authorized_keys").write_text("PLANTED")
        elif what == 2:
            os.mkfifo(name)
        elif what == 3 and os.geteuid() == 0:
            os.mknod(name, 0o020666, os.makedev(1, 3))
        elif what == 4:
            os.link(tree / "docs" / "file", name)
        elif what == 5:
            name.write_text("PLANTED")
            name.chmod(0o6777)
        elif what == 6:
            (tree / "root" / ".ssh").mkdir(parents=True, exist_ok=True)
            (tree / "root" / ".ssh" / "authorized_keys").write_text("PLANTED")
        elif what == 7:
            inner = name
            for _ in range(40):
                inner = inner / "d"
            inner.mkdir(parents=True)
        else:
            (tree / "passwd").write_text("PLANTED")
    return tree


def _plan(request: dict[str, Any], tree: Path) -> list[dict[str, Any]]:
    return [
        {
            "row": "plan",
            "snapshot": "home_20261124-084122_8491",
            "files": sum(path.is_symlink() or not path.is_dir() for path in tree.rglob("*")),
            "size_bytes": 1_000_000,
            "is_by_xxh128": True,
            "parents": [["other", 0o777, 65534, 65534, [0, 0]]],
            "temporary": request["restore_files"].get("temporary"),
        }
    ]


def _answers(tree: Path) -> list[dict[str, Any]]:
    entries = []
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            entries.append([name, "link", 0, [0, 0], False, None, os.readlink(path)])
        elif path.is_file():
            status = path.stat()
            checksum = base64.b64encode(xxhash.xxh128(path.read_bytes()).digest()).decode()
            modified = [*divmod(status.st_mtime_ns, 10**9)]
            entries.append([name, "file", status.st_size, modified, True, checksum, None])
        elif not path.is_dir():
            entries.append([name, "fifo", 0, [0, 0], False, None, None])
    return [
        {"row": "manifest", "entries": entries},
        {"row": "restore-end", "rsync_exit_code": 0, "meaning": "", "last_lines": []},
    ]


def _mutated_lines(chance: random.Random, lines: list[bytes]) -> list[bytes]:
    lines = list(lines)
    for _ in range(chance.randrange(4)):
        what = chance.randrange(7)
        place = chance.randrange(len(lines) + 1)
        if what == 0:
            name = chance.choice((*_NAMES, "../victim", "/etc/shadow", "x" * 5000, "a\0b", "docs/" + "y/" * 2000))
            entry = [
                name,
                chance.choice(("file", "link", "fifo")),
                4,
                [0, 0],
                chance.random() < 0.5,
                None,
                "/etc/shadow",
            ]
            lines.insert(
                place, json.dumps({"row": "manifest", "entries": [entry] * chance.choice((1, 3000))}).encode() + b"\n"
            )
        elif what == 1:
            lines.insert(place, json.dumps({"row": "deleted", "paths": [*_NAMES] * 100}).encode() + b"\n")
        elif what == 2:
            lines.insert(
                place, json.dumps({"row": "refusal", "code": "internal", "message": "\x1b[2J" * 99}).encode() + b"\n"
            )
        elif what == 6:
            named = [*_NAMES, chance.choice(("../victim", "docs/../x", "x" * 5000, "docs"))]
            lines.insert(place, json.dumps({"row": "with-holes", "paths": named}).encode() + b"\n")
        elif what == 3 and lines:
            del lines[chance.randrange(len(lines))]
        elif what == 4:
            lines.insert(place, chance.randbytes(chance.choice((1, 100, 2_000_000))) + b"\n")
        elif lines:
            at = chance.randrange(len(lines))
            lines[at] = _mutated(chance, lines[at])
    return lines


def _mutated(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        what = chance.randrange(6)
        if what == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            changed[at] = chance.choice((0, 1, 127, 128, 255))
        elif what == 2:
            del changed[at : at + chance.choice((1, 4, 100))]
        elif what == 3:
            changed[at:at] = chance.randbytes(chance.choice((1, 4, 100)))
        elif what == 4:
            changed[at:at] = changed[at : at + chance.choice((4, 40, 400))]
        else:
            for old, new in ((b"docs", b"../."), (b"inner", b"/etc/"), (b"file", b"../f"), (b"new", b"..\0")):
                if old in changed:
                    changed = bytearray(bytes(changed).replace(old, new, 1))
                    break
    return bytes(changed)


def _resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def leftovers() -> Iterator[int]:
    """Children of this process."""
    yield from children_of(os.getpid())
