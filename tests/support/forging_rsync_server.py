"""An rsync daemon that has its receiver print what it likes: forged lines about entries, forged statistics, loose ends.

A sender's informational messages come on the receiver's standard output, among the receiver's own lines, as they are.
Any entry can be sent as hard link of any other one, with any time, and content per entry.

    with ForgingRsyncServer([Forged(b"old.doc", CONTENT), Forged(b"zz", CONTENT, linked_to=1)], said=[...]) as server:
"""

import hashlib
import socket
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.support import malicious_rsync_server as protocol
from tests.support.malicious_rsync_server import Entry, MaliciousRsyncServer

TIME = 1_700_000_000
_FIRST_OF_LINKED = 1 << 12
_INFORMATION = 7 + 2


@dataclass(frozen=True)
class Forged:
    """One file that the daemon lists, and what it sends for it."""

    name: bytes
    content: bytes
    time: int = TIME
    linked_to: int | None = None
    """The place in the list of the file that this one claims to be a hard link of."""
    is_first_of_linked: bool = False
    """True for a file that others claim to be hard links of."""
    mode: int = stat.S_IFREG | 0o644


class ForgingRsyncServer(MaliciousRsyncServer):
    """A daemon that prints ``said`` before the file list, ``said_after`` after the transfer, and ``said_before_file``
    before each file, with or without a line break, as they are given. ``breaks_off`` ends before the farewell."""

    def __init__(
        self,
        files: Sequence[Forged],
        *,
        said: Sequence[bytes] = (),
        said_before_file: Sequence[bytes] = (),
        said_after: Sequence[bytes] = (),
        breaks_off: bool = False,
    ) -> None:
        super().__init__([Entry(each.name, mode=each.mode, size=len(each.content)) for each in files])
        self.files = files
        self.said = said
        self.said_before_file = said_before_file
        self.said_after = said_after
        self.breaks_off = breaks_off

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError, struct.error):
            _Forging(self, connection).run()
        connection.close()


class _Forging(protocol._Conversation):
    _server: ForgingRsyncServer

    def _say(self, lines: Sequence[bytes]) -> None:
        for text in lines:
            self._connection.sendall(struct.pack("<I", (_INFORMATION << 24) | len(text)) + text)

    def _send_list(self) -> None:
        self._say(self._server.said)
        super()._send_list()

    def _line(self, entry: Entry) -> bytes:
        forged = {each.name: each for each in self._server.files}.get(entry.name)
        if forged is None:
            return super()._line(entry)
        is_linking = b"H" in self._short_options
        flags = protocol._EXTENDED | protocol._SAME_UID | protocol._SAME_GID
        flags |= protocol._LONG_NAME if len(entry.name) > 255 else 0
        if is_linking and forged.linked_to is not None:
            flags |= protocol._HARD_LINKED
        if is_linking and forged.is_first_of_linked:
            flags |= protocol._HARD_LINKED | _FIRST_OF_LINKED
        length = protocol._variable(len(entry.name)) if len(entry.name) > 255 else bytes([len(entry.name)])
        result = struct.pack("<H", flags) + length + entry.name
        if is_linking and forged.linked_to is not None:
            return result + protocol._variable(forged.linked_to)
        return (
            result
            + protocol._variable_long(entry.size, 3)
            + protocol._variable_long(forged.time, 4)
            + struct.pack("<I", entry.mode)
        )

    def _answer_requests(self) -> None:
        # The receiver sorts the list, and the directory itself comes first.
        listed = [b".", *sorted(each.name for each in self._server.files)]
        phase = 0
        while True:
            index = self._read_index()
            if index is None:
                phase += 1
                if phase == 1:
                    self._say(self._server.said_after)
                if self._server.breaks_off and b"n" not in self._short_options:
                    return
                self._write(b"\0")
                if phase > protocol._PHASES:
                    break
                continue
            flags = struct.unpack("<H", self._read(2))[0]
            extra = b""
            if flags & protocol._BASIS_FOLLOWS:
                extra += self._read(1)
            if flags & protocol._NAME_FOLLOWS:
                name_length = self._read(1)
                extra += name_length + self._read(name_length[0])
            if not flags & protocol._TRANSFER or b"n" in self._short_options:
                self._write(self._index(index) + struct.pack("<H", flags) + extra)
                continue
            head = self._read(16)
            count, _, strong_length, _ = struct.unpack("<4i", head)
            self._read(count * (4 + strong_length))
            self._say(self._server.said_before_file)
            content = {each.name: each.content for each in self._server.files}[self._name(listed, index)]
            self._write(self._index(index) + struct.pack("<H", flags) + extra + head)
            self._write(struct.pack("<i", len(content)) + content)
            self._write(struct.pack("<i", 0) + hashlib.md5(content, usedforsecurity=False).digest())
        self._write(b"".join(protocol._variable_long(0, 3) for _ in range(5)))
        self._read(1)

    def _name(self, listed: Sequence[bytes], index: int) -> bytes:
        return listed[index]
