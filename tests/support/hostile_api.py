"""A coordinator that was taken over: it answers whatever the test has put there, to anybody.

with HostileApi() as api:
    api.answers["storage_update_config"] = {"machines": {...}}     or bytes, sent as they are
    api.url
    api.calls                                                      [(call, message), ...] so far
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HostileApi:
    """A context manager."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                call = self.path.removeprefix("/v1/")
                api.calls.append((call, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                answer = api.answers.get(call, {})
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> HostileApi:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of_call(self, name: str) -> list[Any]:
        """The messages of one call."""
        return [message for call, message in self.calls if call == name]
