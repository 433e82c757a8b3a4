"""An rsync daemon that lies: enough of protocol 30's sending side to hand a receiver any file list and any content.

    with MaliciousRsyncServer([Entry(b"../x", content=b"owned")]) as server:
        server.port          a port on 127.0.0.1
        server.arguments     the requests of the receivers, after they connected

It accepts any user name and password. Every entry's name, type, size and link is sent as given. Every file that the
receiver asks for gets ``content``, or never ends with ``endless``. ``entries`` may be a generator without an end, or
one that yields others at each connection.
"""

import hashlib
import itertools
import socket
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

PROTOCOL = 30
_TOP_DIRECTORY, _EXTENDED, _SAME_UID, _SAME_GID, _LONG_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 4, 1 << 6
_HARD_LINKED = 1 << 9
_BASIS_FOLLOWS, _NAME_FOLLOWS, _TRANSFER = 1 << 11, 1 << 12, 1 << 15
_MSG_DELETED = 101
_PHASES = 2
_CHUNK = b"\xa5" * 32768


@dataclass(frozen=True)
class Entry:
    """One line of the file list."""

    name: bytes
    mode: int = stat.S_IFREG | 0o644
    size: int = 6
    target: bytes = b""
    device: tuple[int, int] = (1, 3)
    linked_to: int | None = None
    """The place in the list of the file that this one claims to be a hard link of."""
    mtime: int = 1_700_000_000
    """Unix seconds, of 64 bits."""


def directory(name: bytes) -> Entry:
    return Entry(name, mode=stat.S_IFDIR | 0o755, size=4096)


def symbolic_link(name: bytes, target: bytes) -> Entry:
    return Entry(name, mode=stat.S_IFLNK | 0o777, size=len(target), target=target)


class MaliciousRsyncServer:
    """A server that treats every connection alike, as a context manager. ``silent`` says nothing after the list."""

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        content: bytes = b"owned\n",
        endless: bool = False,
        silent: bool = False,
        greeting: bytes = b"@RSYNCD: 30.0\n",
        basis_name: bytes | None = None,
        deletions: int = 0,
    ) -> None:
        """``deletions``: how often a dry run is told that something was deleted."""
        self.arguments: list[bytes] = []
        self.asked_for: list[bytes] = []
        """The paths of a receiver that wanted only these."""
        self.received = b""
        self.sent_bytes = 0
        self._entries = entries
        self._content = content
        self._endless = endless
        self._silent = silent
        self._greeting = greeting
        self._basis_name = basis_name
        self._deletions = deletions
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in list(self._threads):
            thread.join(10)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError, struct.error):
            _Conversation(self, connection).run()
        connection.close()


class _Conversation:
    def __init__(self, server: MaliciousRsyncServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._reader = connection.makefile("rb")
        self._arguments: list[bytes] = []
        self._data = b""
        self._last_read = self._last_written = -1

    def run(self) -> None:
        self._greet()
        self._send_list()
        if self._server._silent:
            self._reader.read()
            return
        self._answer_requests()

    # --- the daemon's lines

    def _greet(self) -> None:
        server = self._server
        self._connection.sendall(server._greeting)
        server.received += self._reader.readline()
        server.received += self._reader.readline()
        self._connection.sendall(b"@RSYNCD: AUTHREQD Zm9vYmFy\n")
        self._reader.readline()
        self._connection.sendall(b"@RSYNCD: OK\n")
        self._arguments = arguments = list(iter(self._line_of_arguments, b""))
        server.arguments += arguments
        # No compatibility flags: a whole list at once, MD5, no negotiation. Then the checksum seed.
        self._connection.sendall(b"\0" + struct.pack("<i", 1))
        while length := struct.unpack("<i", self._read(4))[0]:
            self._read(length)
        if any(argument.startswith(b"--files-from") for argument in arguments):
            # Protocol 30 sends the list outside the multiplexed stream. An empty path ends it.
            server.asked_for += list(iter(self._line_of_arguments, b""))

    def _line_of_arguments(self) -> bytes:
        # At the end of the stream nothing would come, for ever.
        return b"".join(iter(lambda: self._exactly(1), b"\0"))

    @property
    def _short_options(self) -> bytes:
        return next((word for word in self._arguments if word[:1] == b"-" and word[1:2] != b"-"), b"").split(b"e.")[0]

    # --- the multiplexed stream

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), 0xFFFFF):
            piece = data[start : start + 0xFFFFF]
            self._connection.sendall(struct.pack("<I", (7 << 24) | len(piece)) + piece)
            self._server.sent_bytes += len(piece)

    def _read(self, count: int) -> bytes:
        while len(self._data) < count:
            header = struct.unpack("<I", self._exactly(4))[0]
            payload = self._exactly(header & 0xFFFFFF)
            if header >> 24 == 7:
                self._data += payload
        result, self._data = self._data[:count], self._data[count:]
        return result

    def _exactly(self, count: int) -> bytes:
        result = self._reader.read(count)
        if len(result) < count:
            raise EOFError
        return result

    def _read_index(self) -> int | None:
        first = self._read(1)[0]
        if first == 0:
            return None
        if first == 0xFE:
            high, low = self._read(2)
            if high & 0x80:
                middle = self._read(2)
                index = ((high & 0x7F) << 24) | low | (middle[0] << 8) | (middle[1] << 16)
            else:
                index = (high << 8) + low + self._last_read
        else:
            index = first + self._last_read
        self._last_read = index
        return index

    def _index(self, index: int) -> bytes:
        difference, self._last_written = index - self._last_written, index
        if 0 < difference < 0xFE:
            return bytes([difference])
        if 0 <= difference <= 0x7FFF:
            return bytes([0xFE, difference >> 8, difference & 0xFF])
        return bytes([0xFE, (index >> 24) | 0x80, index & 0xFF, (index >> 8) & 0xFF, (index >> 16) & 0xFF])

    # --- file list and content

    def _send_list(self) -> None:
        entries: Iterator[Entry] = itertools.chain([directory(b".")], self._server._entries)
        while batch := b"".join(map(self._line, itertools.islice(entries, 2000))):
            self._write(batch)
        self._write(b"\0")
        if b"n" in self._short_options:
            for number in range(self._server._deletions):
                path = b"/".join([b"d" * 250] * 4) + b"%07d" % number
                self._connection.sendall(struct.pack("<I", ((7 + _MSG_DELETED) << 24) | len(path)) + path)

    def _line(self, entry: Entry) -> bytes:
        flags = _EXTENDED | _SAME_UID | _SAME_GID
        is_link = entry.linked_to is not None and b"H" in self._short_options
        flags |= _TOP_DIRECTORY if entry.name == b"." else 0
        flags |= _LONG_NAME if len(entry.name) > 255 else 0
        flags |= _HARD_LINKED if is_link else 0
        result = struct.pack("<H", flags)
        result += _variable(len(entry.name)) if flags & _LONG_NAME else bytes([len(entry.name)])
        result += entry.name
        if is_link:
            return result + _variable(entry.linked_to or 0)
        result += _variable_long(entry.size, 3) + _variable_long(entry.mtime, 4) + struct.pack("<I", entry.mode)
        if (stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)) and b"D" in self._short_options:
            result += _variable(entry.device[0]) + _variable(entry.device[1])
        if stat.S_ISFIFO(entry.mode) and b"D" in self._short_options:
            result += _variable(0) + _variable(0)
        if stat.S_ISLNK(entry.mode):
            result += _variable(len(entry.target)) + entry.target
        return result

    def _answer_requests(self) -> None:
        phase = 0
        while True:
            index = self._read_index()
            if index is None:
                phase += 1
                self._write(b"\0")
                if phase > _PHASES:
                    break
                continue
            flags = struct.unpack("<H", self._read(2))[0]
            extra = b""
            if flags & _BASIS_FOLLOWS:
                extra += self._read(1)
            if flags & _NAME_FOLLOWS:
                length = self._read(1)
                extra += length + self._read(length[0])
            # In a dry run nothing is asked for, nor sent.
            if not flags & _TRANSFER or b"n" in self._short_options:
                self._write(self._index(index) + struct.pack("<H", flags) + extra)
                continue
            head = self._read(16)
            count, _, strong_length, _ = struct.unpack("<4i", head)
            self._read(count * (4 + strong_length))
            self._send_file(index, flags, extra, head)
        self._write(b"".join(_variable_long(0, 3) for _ in range(5)))
        self._read(1)

    def _send_file(self, index: int, flags: int, extra: bytes, head: bytes) -> None:
        server = self._server
        if server._basis_name is not None:
            # "Take what you have from this file of yours": FNAMECMP_FUZZY with a name of ours.
            flags |= _BASIS_FOLLOWS | _NAME_FOLLOWS
            extra = b"\x83" + bytes([len(server._basis_name)]) + server._basis_name
        self._write(self._index(index) + struct.pack("<H", flags) + extra + head)
        while server._endless:
            self._write(struct.pack("<i", len(_CHUNK)) + _CHUNK)
        content = server._content
        for start in range(0, len(content), len(_CHUNK)):
            piece = content[start : start + len(_CHUNK)]
            self._write(struct.pack("<i", len(piece)) + piece)
        self._write(struct.pack("<i", 0) + hashlib.md5(content, usedforsecurity=False).digest())


def _variable(number: int) -> bytes:
    return _variable_long(number, 1)


def _variable_long(number: int, least_bytes: int) -> bytes:
    """rsync's varint (one byte at least) and varlong: the first byte says how many follow, and holds the highest bits."""
    raw = (number & 2**64 - 1).to_bytes(8, "little")
    count = 8
    while count > least_bytes and raw[count - 1] == 0:
        count -= 1
    bit = 1 << (7 - count + least_bytes)
    highest = raw[count - 1]
    if highest >= bit:
        return bytes([~(bit - 1) & 0xFF]) + raw[:count]
    if count > least_bytes:
        return bytes([highest | (~(bit * 2 - 1) & 0xFF)]) + raw[: count - 1]
    return bytes([highest]) + raw[: count - 1]


SPOKEN: dict[str, Any] = {"not_preserved": ["acls", "attributes", "hard_links"]}
"""Options of a source whose backups this daemon speaks: its file lists have none of these."""
