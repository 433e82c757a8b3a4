"""An rsync daemon whose every connection is a hostile conversation, made by a grammar from a ``random.Random``.

    with HostileDaemon(random.Random("7/0")) as server: server.port

It speaks protocol 30 as MaliciousRsyncServer does: the frames, indexes and lengths are right as a rule, and what they
carry is not. Each connection lists other entries, as a machine that lies between the dry run and the transfer.
"""

import itertools
import random
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from tests.support import forged_messages
from tests.support import malicious_rsync_server as protocol
from tests.support.forged_messages import damaged, message
from tests.support.malicious_rsync_server import Entry, MaliciousRsyncServer

_GREETINGS = (
    b"@RSYNCD: 30.0\n",
    b"@RSYNCD: 31.0\n",
    b"@RSYNCD: 29\n",
    b"@RSYNCD: 32.0 sha512 md5\n",
    b"@RSYNCD: 99999999999.0\n",
    b"@RSYNCD: -1\n",
    b"@RSYNCD: EXIT\n",
    b"@RSYNCD: 30.0\n" + b"motd\n" * 1000,
    b"@RSYNCD: 30.0 " + b"x" * 100_000 + b"\n",
    b"@RSYNCD:",
    b"@ERROR: \x1b[31mno\n",
    b"SSH-2.0-OpenSSH\r\n",
)
_SIZES = (0, 1, 6, 6, 6, 700, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
_TIMES = (0, 1, -1, 2**31, 2**32, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
_KINDS = (
    *(stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK) * 3,
    0,
    0o170000,
)
_CONTENTS = (b"owned\n", b"", b"owned\n" * 100, b"\0" * 200_000, b"\xff" * 1000)
_TARGETS = (b"../../bait", b"/etc/passwd", b"", b".", b"directory", b"x" * 5000, b"new\nline")
PATIENCE_SECONDS = 0.25
STAYS_SHARE = 0.04
_DIRECTORIES = (b"directory", b"directory/inner")
_PAUSE_SECONDS = 0.01
_ENDLESS_PIECES = 3000


def entries(draw: random.Random) -> Iterator[Entry]:
    """A file list: as a rule directories, files and links under lawful names, and some that are none of it."""
    names = [each for each in forged_messages.LAWFUL_NAMES if each in _DIRECTORIES or draw.random() < 0.7]
    names += [forged_messages.name(draw) for _ in range(draw.choice((0, 0, 0, 1, 1, 3, 30)))]
    if draw.random() < 0.1:
        draw.shuffle(names)
    oddity = draw.choice((0, 0, 0.05, 0.3))
    for name in names:
        is_directory = name in _DIRECTORIES or draw.random() < oddity
        mode = (stat.S_IFDIR | 0o755) if is_directory else (stat.S_IFREG | 0o644)
        entry = Entry(name, mode=mode, size=draw.choice(_SIZES) if draw.random() < oddity else 6)
        if draw.random() < oddity:
            kind = draw.choice(_KINDS)
            bits = draw.choice((0, 0o777, 0o4755, 0o7777, 0o200))
            entry = replace(entry, mode=kind | bits, target=draw.choice(_TARGETS), device=(draw.choice((1, 254)), 3))
        if draw.random() < oddity:
            entry = replace(entry, mtime=draw.choice(_TIMES))
        if draw.random() < oddity / 3:
            entry = replace(entry, linked_to=draw.choice((0, 1, 3, 100, 2**30, 2**31 - 1)))
        yield entry
    if draw.random() < 0.02:
        for number in range(draw.choice((2000, 20_000))):
            yield Entry(b"%06d" % number, size=1)
    if draw.random() < 0.02:
        for depth in range(draw.choice((70, 300))):
            yield Entry(b"deep/" * depth + b"deep", mode=stat.S_IFDIR | draw.choice((0o755, 0o755, 0)), size=0)


class HostileDaemon(MaliciousRsyncServer):
    """A context manager. ``connections`` is the number of connections that there were."""

    def __init__(self, draw: random.Random) -> None:
        self.connections = 0
        self._draw = draw
        greeting = draw.choice(_GREETINGS) if draw.random() < 0.08 else _GREETINGS[0]
        super().__init__([], greeting=greeting)
        self._lists = [list(entries(draw)) for _ in range(3)]
        if draw.random() < 0.3:
            # The same each time, so that a dry run is followed by what it said.
            self._lists = self._lists[:1]

    def _serve(self, connection: socket.socket) -> None:
        listed = self._lists[min(self.connections, len(self._lists) - 1)]
        self.connections += 1
        with suppress(OSError, EOFError, struct.error):
            _Hostile(self, connection, random.Random(f"{self._draw.random()}"), listed).run()
        connection.close()


class _Hostile(protocol._Conversation):
    def __init__(
        self, server: MaliciousRsyncServer, connection: socket.socket, draw: random.Random, listed: list[Entry]
    ) -> None:
        super().__init__(server, connection)
        # As a rule it hangs up soon when nobody says anything.
        connection.settimeout(PATIENCE_SECONDS if draw.random() > STAYS_SHARE else None)
        self._draw = draw
        self._listed = listed
        # Most conversations have one vice or two. With all of them none would get far.
        vices = ("messages", "lines", "content", "answers", "silent", "endless", "basis", "lists_more")
        self._vices = set(draw.sample(vices, draw.choice((0, 0, 1, 1, 1, 2))))
        if "endless" in self._vices and draw.random() < 0.7:
            self._vices.discard("endless")
        if "silent" in self._vices and draw.random() < 0.7:
            self._vices.discard("silent")

    def run(self) -> None:
        self._greet()
        self._send_list()
        if "silent" in self._vices:
            self._reader.read()
            return
        self._answer_requests()

    def _write(self, data: bytes) -> None:
        if "messages" in self._vices and self._draw.random() < 0.3:
            self._connection.sendall(message(self._draw))
        super()._write(data)

    def _send_list(self) -> None:
        self._server._entries = iter(self._listed)
        super()._send_list()
        if "lists_more" in self._vices:
            self._write(b"".join(self._line(each) for each in entries(self._draw)))

    def _line(self, entry: Entry) -> bytes:
        # What of it is longer than its length can say is cut.
        line = super()._line(replace(entry, name=entry.name[:4095]))
        if "lines" in self._vices and self._draw.random() < 0.1:
            return damaged(self._draw, line)
        return line

    def _answer_requests(self) -> None:
        if "answers" in self._vices:
            for _ in range(self._draw.choice((1, 3, 50))):
                self._write(self._answer())
        super()._answer_requests()

    def _answer(self) -> bytes:
        """An answer that nobody asked for."""
        draw = self._draw
        index = draw.choice((0, 1, 2, 5, len(self._listed), 2**16, 2**31 - 1))
        flags = draw.choice((0, 0x8000, 0x8002, 0xFFFF, 0x9800, draw.randrange(2**16)))
        head = b"".join(forged_messages.number(draw) for _ in range(4))
        return draw.choice((b"\0", b"\xff", self._index(index) + struct.pack("<H", flags) + draw.choice((b"", head))))

    def _send_file(self, index: int, flags: int, extra: bytes, head: bytes) -> None:
        draw, server = self._draw, self._server
        server._content = draw.choice(_CONTENTS) if draw.random() < 0.3 else _CONTENTS[0]
        server._basis_name = forged_messages.name(draw)[:255] if "basis" in self._vices else None
        if "answers" in self._vices and draw.random() < 0.3:
            index = draw.choice((0, 1, 2**16, index + 1))
        if "content" not in self._vices and "endless" not in self._vices:
            super()._send_file(index, flags, extra, head)
            return
        head = draw.choice((head, head, b"".join(forged_messages.number(draw) for _ in range(4))))
        self._write(self._index(index) + struct.pack("<H", flags) + extra + head)
        if "endless" in self._vices:
            piece = b"\xa5" * 32768
            for _ in itertools.repeat(None, _ENDLESS_PIECES):
                self._write(struct.pack("<i", len(piece)) + piece)
                time.sleep(_PAUSE_SECONDS)
        for _ in range(draw.choice((1, 2, 20))):
            # Literal data, a block of the basis, or a length that cannot be.
            self._write(draw.choice((struct.pack("<i", 6) + b"owned\n", forged_messages.number(draw))))
        self._write(struct.pack("<i", 0) + draw.choice((b"\0" * 16, draw.randbytes(16), b"")))
