"""A worker of gunicorn that gives a client a thread only when the whole of its request has arrived over TLS.

gunicorn's own threads wait for the handshake and the request of their client. A few clients that send a byte now and
then would keep all of them busy. A reverse proxy collects requests for the same reason.
"""

import errno
import json
import selectors
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn import http, sock, util  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from turku.api.configuration.tls.arrivals import ARRIVAL_SECONDS, Arrival, Arrivals

MOST_IDLE: Final = 200
"""Connections that are kept alive between two requests. An answer beyond them ends its connection."""
_READ_SECONDS: Final = 30.0
"""The longest time in which a client reads nothing of an answer."""
_ANSWER_SECONDS: Final = 600.0
"""The longest time for an answer that is larger than what the event loop sends."""
_UNSENT_BYTES: Final = 4 * 1024 * 1024
"""The most bytes of an answer that are left to the event loop. Nobody without an account gets a larger one."""
_STOP_SECONDS: Final = 2.0
_NO_DESCRIPTOR_SECONDS: Final = 0.05
_CHUNK_BYTES: Final = 64 * 1024
_MOST_RECORDS: Final = 32
"""The most records of one client that are read in a row."""


Act = Callable[[Arrival], Callable[[Arrival], None]]
"""An act on a connection that does not wait. It returns what is done next, or raises if its connection is not ready."""


class BoundedSocket(ssl.SSLSocket):
    """A TLS connection on which no wait is endless: one that does not read its answer is as if it was reset."""

    unsent: bytearray
    """The rest of an answer, which the event loop sends. So no thread waits for a client that does not read it."""
    _answer_deadline: float | None = None

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001  (as the base class has it)
        self._answer_deadline = None
        self.settimeout(_READ_SECONDS if flag else 0.0)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send what can be sent at once, and keep the rest. Wait only if that would be too much."""
        self.unsent += data
        self.settimeout(0.0)
        try:
            with suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                while self.unsent:
                    del self.unsent[: self.send(self.unsent[:_CHUNK_BYTES], flags)]
        finally:
            self.settimeout(_READ_SECONDS)
        while len(self.unsent) > _UNSENT_BYTES:
            del self.unsent[: self.send(self.unsent[:_CHUNK_BYTES], flags)]

    def send(self, data: Any, flags: int = 0) -> int:
        if self.gettimeout():
            self._answer_deadline = self._answer_deadline or time.monotonic() + _ANSWER_SECONDS
            left_seconds = self._answer_deadline - time.monotonic()
            # A time of zero would not wait at all, which is something else for a socket.
            self.settimeout(min(_READ_SECONDS, max(left_seconds, 0.001)))
        try:
            return super().send(data, flags)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the client does not read its answer") from None

    def recv(self, buflen: int = _CHUNK_BYTES, flags: int = 0) -> bytes:
        """Read what is there. A thread, whose socket may wait, got its whole request and has nothing to wait for.

        It would wait for the rest of a request that a client began to send behind another one.
        """
        if self.gettimeout() != 0.0:
            raise ConnectionResetError(errno.ECONNRESET, "the next request did not arrive whole")
        return super().recv(buflen, flags)


class TlsConnection(TConn):  # type: ignore[misc]
    """A connection whose request is read before a thread sees it."""

    def close(self, graceful: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  (as the base class has it)
        # The request was read whole, so nothing unread is left for whose sake gunicorn waits two seconds.
        util.close(self.sock)


class TlsWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, with arriving requests in its event loop."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._arrivals = Arrivals()
        # A worker without room stops accepting. These and those that arrive leave room for requests in threads.
        self.max_keepalived: int = min(self.cfg.worker_connections - self.cfg.threads, MOST_IDLE)

    def accept(self, listener: Any) -> None:
        """Accept a connection, and begin its handshake."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # The listener stays readable. Until a descriptor is free, others get the time.
                time.sleep(_NO_DESCRIPTOR_SECONDS)
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        connection = TlsConnection(self.cfg, client, address, listener.getsockname())
        try:
            context: ssl.SSLContext = sock.ssl_context(self.cfg)
            context.sslsocket_class = BoundedSocket
            client.setblocking(False)
            connection.sock = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            connection.sock.unsent = bytearray()
        except OSError:
            self._drop(connection)
            return
        self._begin(connection, self._receive, is_shaken=False)

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """Collect the next request of a connection that was kept alive."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._begin(conn, self._receive, is_shaken=True)

    def murder_pending(self) -> None:
        """Close connections whose request did not arrive in time."""
        super().murder_pending()
        now = time.monotonic()
        # A worker that stops waits for those that it has, and not as long.
        early = 0.0 if self.alive else ARRIVAL_SECONDS - _STOP_SECONDS
        for arrival in self._arrivals:
            if arrival.deadline - early > now:
                break
            self._abandon(arrival)

    def _begin(self, connection: TlsConnection, act: Act, *, is_shaken: bool, content: bytes = b"") -> None:
        arrival = self._arrivals.begin(connection, is_shaken=is_shaken)
        self._arrivals.hold(arrival, content)
        connection.sock.setblocking(False)
        self._attempt(arrival, act)
        if one := self._arrivals.one_too_many():
            self._abandon(one)

    def _attempt(self, arrival: Arrival, act: Act) -> None:
        """Do what can be done without waiting. The act is repeated when its connection is ready for more."""
        try:
            proceed = act(arrival)
        except ssl.SSLWantReadError:
            self._wait(arrival, selectors.EVENT_READ, act)
        except ssl.SSLWantWriteError:
            self._wait(arrival, selectors.EVENT_WRITE, act)
        except (OSError, ValueError):
            self._abandon(arrival)
        else:
            proceed(arrival)

    def _receive(self, arrival: Arrival) -> Callable[[Arrival], None]:
        """Do the handshake, read the request, and return what becomes of it."""
        tls = arrival.connection.sock
        if not arrival.is_shaken:
            tls.do_handshake()
            arrival.is_shaken = True
        records = 0
        while not arrival.is_complete:
            # Others wait for this loop. OpenSSL reads no further record before it is asked for one.
            if records == _MOST_RECORDS:
                return partial(self._wait, event=selectors.EVENT_READ, act=self._receive)
            records += 1
            chunk = tls.recv(_CHUNK_BYTES)
            if not chunk:
                return self._abandon
            if arrival.is_refused:
                # Read on, because a client that still sends its request would not read the answer.
                continue
            self._arrivals.hold(arrival, chunk)
            status = arrival.refusal()
            if status is not None:
                self._refuse(arrival, status)
        return self._hand_over

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Send the rest of the answer, then do as gunicorn does after an answer."""
        unsent = bytes(getattr(conn.sock, "unsent", b""))
        if not unsent:
            super().finish_request(conn, fs)
            return
        conn.sock.unsent.clear()
        # It waits for its client as one does whose request arrives, within the same bounds.
        self._begin(conn, partial(self._send_rest, done=fs), is_shaken=True, content=unsent)

    def _send_rest(self, departure: Arrival, done: Any) -> Callable[[Arrival], None]:
        while departure.content:
            sent = departure.connection.sock.send(departure.content[:_CHUNK_BYTES])
            self._arrivals.release(departure, sent)
        return partial(self._finish, done=done)

    def _finish(self, departure: Arrival, done: Any) -> None:
        self._arrivals.end(departure)
        super().finish_request(departure.connection, done)

    def _wait(self, arrival: Arrival, event: int, act: Act) -> None:
        self.poller.register(arrival.connection.sock, event, partial(self._on_ready, arrival, act))
        if one := self._arrivals.one_too_large():
            self._abandon(one)

    def _on_ready(self, arrival: Arrival, act: Act, tls: Any) -> None:
        # It may have been closed by an event of the same round.
        if self._arrivals.is_current(arrival):
            self.poller.unregister(tls)
            self._attempt(arrival, act)

    def _hand_over(self, arrival: Arrival) -> None:
        connection = arrival.connection
        self._arrivals.end(arrival)
        if connection.parser is None:
            connection.parser = http.get_parser(self.cfg, connection.sock, connection.client)
            connection.initialized = True
        connection.parser.unreader.unread(bytes(arrival.content))
        self.enqueue_req(connection)

    def _refuse(self, arrival: Arrival, status: HTTPStatus) -> None:
        body = json.dumps({"error": f"this request is not taken: {status.phrase.lower()}"}).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        ending = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._arrivals.release(arrival, len(arrival.content))
        arrival.is_refused = True
        arrival.connection.sock.send(f"{head}{ending}".encode() + body)

    def _abandon(self, arrival: Arrival) -> None:
        self._arrivals.end(arrival)
        with suppress(KeyError, ValueError, OSError):
            self.poller.unregister(arrival.connection.sock)
        self._drop(arrival.connection)

    def _drop(self, connection: TlsConnection) -> None:
        self.nr_conns -= 1
        connection.close()
