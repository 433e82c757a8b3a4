"""A line with delay and rate, as the internet has it, between a client and a server on one host.

    with Relay(server_port, Line(milliseconds=30, megabits=200), source_address="10.255.255.1") as relay:
        connect("127.0.0.1", relay.port)

It is a process of its own that passes on what comes: half of the round trip later, at no more than the line's rate in
each direction, all connections together. What is under way is bounded, as a router's queue is. A connection is made one
round trip after it was asked for. Neither loss nor TCP's slow start is played.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 16 * 1024
_QUEUE_SECONDS: Final = 0.05
"""A router keeps for so long what it cannot send yet."""


@dataclass(frozen=True)
class Line:
    """The way between both, with ``milliseconds`` there and back and ``megabits`` a second in each direction."""

    milliseconds: float
    megabits: float

    def __str__(self) -> str:
        return f"{self.milliseconds:g} ms, {self.megabits:g} Mbit/s"


class Relay:
    """A context manager for a running relay to ``port`` of this host.

    The server sees ``source_address`` as its client's.
    """

    def __init__(self, port: int, line: Line, *, source_address: str = "127.0.0.1") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        context = multiprocessing.get_context("fork")
        ours, self._end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._listener, port, line, source_address, ours, self._end), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        self._listener.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()
        self._process.terminate()
        self._process.join()


def _serve(
    listener: socket.socket, port: int, line: Line, source_address: str, end: Connection, others_end: Connection
) -> None:
    # Whoever started this has handlers of its own. It may be killed: the pipe's other end is then closed.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    others_end.close()

    async def run() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(end.fileno(), ended.set)
        there, back = _Direction(line), _Direction(line)
        # Tasks that nobody else holds may be collected in the middle of their work.
        connections: set[asyncio.Task[None] | None] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(asyncio.current_task())
            await asyncio.sleep(line.milliseconds / 1000)
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", port, limit=_CHUNK_BYTES, local_addr=(source_address, 0)
                )
                for each in (writer, far_writer):
                    each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    each.transport.set_write_buffer_limits(high=_CHUNK_BYTES)
                await asyncio.gather(there.carry(reader, far_writer), back.carry(far_reader, writer))
                far_writer.close()
            writer.close()
            connections.discard(asyncio.current_task())

        server = await asyncio.start_server(connected, sock=listener, limit=_CHUNK_BYTES)
        async with server:
            await ended.wait()
            # What is still under way is nobody's any more.
            os._exit(0)

    asyncio.run(run())


class _Direction:
    """One of the line's two: what all connections send, one after the other."""

    def __init__(self, line: Line) -> None:
        self._delay_seconds = line.milliseconds / 2000
        self._bytes_per_second = line.megabits * 1e6 / 8
        self._free_at = 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on all that one connection sends, and its end."""
        loop = asyncio.get_running_loop()
        underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        # Without a bound a receiver that does not read would let the sender go on.
        most_bytes = int(self._bytes_per_second * (self._delay_seconds + _QUEUE_SECONDS)) + 16 * _CHUNK_BYTES
        underway_bytes = 0
        has_room = asyncio.Event()

        async def take() -> None:
            nonlocal underway_bytes
            while True:
                try:
                    chunk = await reader.read(_CHUNK_BYTES)
                except OSError:
                    chunk = b""
                self._free_at = max(self._free_at, loop.time()) + len(chunk) / self._bytes_per_second
                underway.put_nowait((self._free_at + self._delay_seconds, chunk))
                if not chunk:
                    return
                underway_bytes += len(chunk)
                while underway_bytes > most_bytes:
                    has_room.clear()
                    await has_room.wait()
                await asyncio.sleep(max(0.0, self._free_at - _QUEUE_SECONDS - loop.time()))

        async def give() -> None:
            nonlocal underway_bytes
            while True:
                moment, chunk = await underway.get()
                await asyncio.sleep(max(0.0, moment - loop.time()))
                with suppress(OSError):
                    if not chunk:
                        writer.write_eof()
                        return
                    writer.write(chunk)
                    await writer.drain()
                underway_bytes -= len(chunk)
                has_room.set()

        await asyncio.gather(take(), give())
