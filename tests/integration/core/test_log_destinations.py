"""Log records reach the journal, or syslog where no journal listens."""

import logging
import socket
from pathlib import Path

import pytest

from turku.core import log


def test_the_journal_gets_one_datagram_with_fields_for_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        monkeypatch.setattr(log, "_JOURNAL_SOCKET", str(tmp_path / "journal"))
        handler = log._destination_handler("systemd", "turku-test", "prefix: ")
        handler.emit(logging.LogRecord("turku.name", logging.WARNING, "", 0, "a\nb %s", ("c",), None))
        fields = journal.recv(4096).decode().splitlines()
    assert fields == [
        "MESSAGE=prefix: a\\nb c",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=turku-test",
        "TURKU_LOGGER=turku.name",
    ]


def test_without_a_journal_records_go_to_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_JOURNAL_SOCKET", str(tmp_path / "missing"))
    handler = log._destination_handler("systemd", "turku-test", "100 % ")
    assert type(handler).__name__ == "SysLogHandler"
    handler.close()
