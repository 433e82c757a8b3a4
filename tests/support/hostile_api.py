"""A compromised coordinator: it answers whatever the test has put there, to anybody.

with HostileApi() as api:
    api.answers["storage_update_config"] = {"machines": {...}}     or bytes, sent as they are
    api.url
    api.calls                                                      [(call, message), ...] so far
"""

from typing import Any

from tests.support.v1_server import V1Api


class HostileApi(V1Api):
    """A context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Any] = {}

    def answer(self, call: str, _message: Any) -> tuple[int, Any]:
        return 200, self.answers.get(call, {})
