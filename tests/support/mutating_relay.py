"""A relay between a receiver and a real rsync daemon that changes the bytes of the daemon.

    with MutatingRelay(daemon.port, lambda number: Plan(random.Random(f"7/{number}"))) as relay:
        relay.port          where the receiver connects
        relay.connections   how many it made, and ``relay.changes`` what was done to each

Of each connection the daemon's lines, its set-up and the frames of its multiplexed stream are told apart, and changed
one by one: as bytes, as frames, as a list of names. The bytes of the receiver are passed on as they are.
"""

import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from tests.support import forged_messages
from tests.support.forged_messages import LAWFUL_NAMES, MULTIPLEX_BASE, damaged, framed, message

PATIENCE_SECONDS = 0.25
"""After so much silence of both ends the relay hangs up, where it is not to stay: something was lost that one awaits."""
_FIRST_FRAME = 5
"""Three lines, the lists and the seed come before."""
_HARMLESS = ("message", "message", "within", "split", "names")
"""The changes of frames after which the receiver is to go on. Messages are then text alone."""
_KINDS = (*_HARMLESS, "raw", "payload", "payload", "names", "length", "tag", "hold")
_ENDLESS_PIECES = 4000
_ENDLESS_PIECE_BYTES = 16 * 1024
_PAUSE_SECONDS = 0.005


@dataclass
class Plan:
    """The changes of one connection."""

    draw: random.Random
    hangs_up: bool = True
    """False: when both ends wait, they go on waiting."""
    said: bytes = b""
    """Sent before each frame from the second one on, where nothing else is to be changed."""
    changes: list[str] = field(default_factory=list)
    """The changes that were made."""

    def __post_init__(self) -> None:
        draw = self.draw
        # The lines and the set-up come first, then the file list. The rest is the answers to requests.
        self._wanted = {
            draw.randrange(_FIRST_FRAME)
            if draw.random() < 0.15
            else _FIRST_FRAME + draw.choice((0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 8))
        }
        self._wanted |= {_FIRST_FRAME + draw.randrange(12) for _ in range(draw.choice((0, 0, 1, 3)))}
        self._share = draw.choice((0, 0, 0.1, 0.5))
        self.is_harmless = draw.random() < 0.4
        if self.is_harmless:
            self._wanted -= set(range(_FIRST_FRAME))

    def is_wanted(self, number: int) -> bool:
        """Return True if the unit of that number is to be changed."""
        return number in self._wanted or (number >= _FIRST_FRAME and self.draw.random() < self._share)


class _HangUp(Exception):
    """The connection is to end."""


class _Daemon:
    """Tells the units of what a daemon says apart, and changes them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._draw = plan.draw
        self._data = b""
        self._number = 0
        self._held: bytes | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what is sent in place of the data. Raises _HangUp."""
        self._data += data
        while (unit := self._next()) is not None:
            number, self._number = self._number, self._number + 1
            if self._plan.said:
                yield self._plan.said + unit if number > _FIRST_FRAME else unit
            elif not self._plan.is_wanted(number):
                yield from self._with_held(unit)
            elif number < _FIRST_FRAME:
                yield from self._change_bytes(unit)
            else:
                yield from self._change_frame(unit)

    def rest(self) -> bytes:
        """Return the remaining bytes at the daemon's end of the connection."""
        rest, self._data = (self._held or b"") + self._data, b""
        return rest

    def _next(self) -> bytes | None:
        if self._number < 3:
            end = self._data.find(b"\n") + 1
        elif self._number == 3:
            end = self._end_of_lists()
        elif self._number == 4:
            end = 4
        else:
            end = 4 + (struct.unpack_from("<I", self._data)[0] & 0xFFFFFF) if len(self._data) >= 4 else 0
        if not 0 < end <= len(self._data):
            return None
        unit, self._data = self._data[:end], self._data[end:]
        return unit

    def _end_of_lists(self) -> int:
        """Return the end of the flags, checksums and compressions, which come together. The seed is sent after them."""
        data = self._data
        # rsync's varint: the leading bits of the first byte say how many follow.
        flags = 1 + len(f"{data[0]:08b}".partition("0")[0]) if data else 0
        end = flags
        while len(data) > end and data[end + 1 : end + 3].isalnum():
            end += 1 + data[end]
        return end if end > flags else 0

    def _with_held(self, unit: bytes) -> Iterator[bytes]:
        yield unit
        if self._held is not None:
            held, self._held = self._held, None
            yield held

    def _note(self, text: str) -> None:
        self._plan.changes.append(f"{self._number - 1}: {text}")

    def _change_bytes(self, unit: bytes) -> Iterator[bytes]:
        kind = self._draw.choice(("bytes", "bytes", "bytes", "bytes", "cut", "endless", "drop", "double", "dribble"))
        self._note(kind)
        if kind == "bytes":
            for _ in range(self._draw.choice((1, 1, 1, 4))):
                unit = damaged(self._draw, unit)
            yield unit
        elif kind == "cut":
            yield unit[: self._draw.randrange(len(unit))]
            raise _HangUp
        elif kind == "endless":
            yield from self._endless(unit)
        elif kind == "drop":
            return
        elif kind == "double":
            yield unit * 2
        else:
            for start in range(min(len(unit), 300)):
                yield unit[start : start + 1]
            yield unit[300:]

    def _endless(self, unit: bytes) -> Iterator[bytes]:
        piece = unit * max(1, _ENDLESS_PIECE_BYTES // len(unit))
        for _ in range(_ENDLESS_PIECES):
            yield piece
        raise _HangUp

    def _change_frame(self, unit: bytes) -> Iterator[bytes]:
        draw = self._draw
        header = struct.unpack_from("<I", unit)[0]
        tag, payload = (header >> 24) - MULTIPLEX_BASE, unit[4:]
        kind = draw.choice(_HARMLESS if self._plan.is_harmless else _KINDS)
        if kind == "raw":
            yield from self._change_bytes(unit)
            return
        self._note(kind)
        if kind == "payload":
            for _ in range(draw.choice((1, 1, 3))):
                payload = damaged(draw, payload)
            yield framed(tag, payload[:0xFFFFFF])
        elif kind == "message":
            forged = b"".join(self._message() for _ in range(draw.choice((1, 1, 5))))
            yield from draw.choice(
                ((forged, unit), (unit, forged), (forged, unit) if self._plan.is_harmless else (forged,))
            )
        elif kind == "within":
            # Between the two halves of what was one frame.
            middle = draw.randrange(len(payload) + 1)
            yield framed(tag, payload[:middle]) + self._message() + framed(tag, payload[middle:])
        elif kind == "names":
            yield framed(tag, self._renamed(payload))
        elif kind == "length":
            length = draw.choice((0, 1, len(payload) - 1, len(payload) + 1, 0xFFFF, 0x10000, 0xFFFFFF))
            yield struct.pack("<I", header & 0xFF000000 | length & 0xFFFFFF) + payload
        elif kind == "tag":
            other = draw.choice((draw.randrange(256), MULTIPLEX_BASE + forged_messages.INFO, 0, 255))
            yield struct.pack("<I", other << 24 | len(payload)) + payload
        elif kind == "hold":
            self._held = unit
        else:
            yield b"".join(framed(tag, payload[at : at + 1]) for at in range(min(len(payload), 500)))
            yield framed(tag, payload[500:])

    def _message(self) -> bytes:
        return forged_messages.text_message(self._draw) if self._plan.is_harmless else message(self._draw)

    def _renamed(self, payload: bytes) -> bytes:
        """A file list with other names: each stands behind the byte that says its length."""
        for each in LAWFUL_NAMES:
            name = each.rpartition(b"/")[2]
            marked = bytes([len(name)]) + name
            if marked in payload and self._draw.random() < 0.5:
                other = forged_messages.name(self._draw)[:255]
                payload = payload.replace(marked, bytes([len(other)]) + other, 1)
        return payload


class MutatingRelay:
    """A context manager. ``plan_of`` gets the number of a connection. If it returns None, all is passed on as it is."""

    def __init__(self, daemon_port: int, plan_of: Callable[[int], Plan | None]) -> None:
        self.connections = 0
        self.changes: list[list[str]] = []
        self._daemon_port = daemon_port
        self._plan_of = plan_of
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()

    def __enter__(self) -> "MutatingRelay":
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        for each in (self._listener, *self._open):
            each.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                plan = self._plan_of(self.connections) or None
                self.connections += 1
                self.changes.append([] if plan is None else plan.changes)
                self._open.append(connection)
                self._start(self._serve, connection, plan)

    def _serve(self, client: socket.socket, plan: Plan | None) -> None:
        with suppress(OSError, _HangUp), socket.create_connection(("127.0.0.1", self._daemon_port), 10) as server:
            self._open.append(server)
            self._relay(client, server, plan)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _relay(self, client: socket.socket, server: socket.socket, plan: Plan | None) -> None:
        daemon = None if plan is None else _Daemon(plan)
        patience = None if plan is None or not plan.hangs_up else PATIENCE_SECONDS
        client.settimeout(None if patience is None else 2.0)
        while True:
            ready, _, _ = select.select([client, server], [], [], patience)
            if not ready:
                return
            if client in ready:
                data = client.recv(65536)
                if not data:
                    return
                server.sendall(data)
            if server in ready:
                data = server.recv(65536)
                if not data:
                    self._end(client, b"" if daemon is None else daemon.rest(), patience)
                    return
                for number, piece in enumerate([data] if daemon is None else daemon.feed(data)):
                    client.sendall(piece)
                    if number > 500 and self._is_over.wait(_PAUSE_SECONDS):
                        return

    def _end(self, client: socket.socket, rest: bytes, patience: float | None) -> None:
        if rest:
            client.sendall(rest)
        client.shutdown(socket.SHUT_WR)
        # The receiver may have something to do still. It hangs up when it is through.
        while select.select([client], [], [], 5.0 if patience is None else patience)[0] and client.recv(65536):
            pass
