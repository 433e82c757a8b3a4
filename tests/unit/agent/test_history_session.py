"""The agent's message about a session that the storage ended before a person had decided."""

import io
from typing import Any

import pytest

from turku.agent.restore.session import HistorySession
from turku.agent.tunnel.trusted_storages import Address
from turku.errors import MalformedMessage, RestoreFailed
from turku.protocol.restore_messages import BrowseEnd


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
def test_the_last_words_of_the_storage_are_reported(said: bytes, sentence: str) -> None:
    with pytest.raises(RestoreFailed, match=sentence):
        HistorySession(ADDRESS, _Ssh(said)).release_storage()  # type: ignore[arg-type]


def test_output_before_an_answer_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    said = b'Welcome\n\n{"hello": 1}\nno line break {"row":"browse-end"}\n{"row":"browse-end","is_cut":true}\n'
    answers = list(HistorySession(ADDRESS, _Ssh(said)).answers())  # type: ignore[arg-type]
    assert answers == [BrowseEnd(), BrowseEnd(is_cut=True)]
    assert "storage primary printed before its answer: Welcome; that comes from the login shell" in caplog.text
    assert "no line break" in caplog.text


def test_output_after_the_first_answer_is_malformed() -> None:
    session = HistorySession(ADDRESS, _Ssh(b'{"row":"browse-end"}\nWelcome\n'))  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage):
        list(session.answers())


def test_a_storage_that_only_prints_is_not_listened_to_for_long() -> None:
    session = HistorySession(ADDRESS, _Ssh(b"Welcome\n" * 1000))  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage, match="storage primary prints text, and does not answer"):
        list(session.answers())
