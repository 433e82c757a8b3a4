"""What the agent says of a session that the storage ended before a person had decided."""

from __future__ import annotations

import io
from typing import Any

import pytest

from turku.agent.history_session import HistorySession
from turku.agent.tunnel import Address
from turku.errors import RestoreFailed


class _Gone(io.BytesIO):
    def write(self, _content: Any) -> int:
        raise BrokenPipeError


class _Ssh:
    """An ssh that has ended, with what it still said."""

    def __init__(self, said: bytes) -> None:
        self.stdin, self.stdout = _Gone(), io.BytesIO(said)


ADDRESS = Address("primary", "storage.example.com", 22, "turku", ())
REFUSAL = b'{"row":"refusal","code":"restore-failed","message":"nobody let the restore begin","hint":"ask again"}\n'


@pytest.mark.parametrize(
    ("said", "sentence"),
    [(REFUSAL, "storage primary: nobody let the restore begin"), (b"", "storage primary ended the session")],
)
def test_what_the_storage_said_at_its_end_is_told(said: bytes, sentence: str) -> None:
    with pytest.raises(RestoreFailed, match=sentence):
        HistorySession(ADDRESS, _Ssh(said)).go()  # type: ignore[arg-type]
