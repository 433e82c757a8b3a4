"""A session tells the coordinator how each snapshot was made, and leaves it out where nothing is known of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.backed_up_machine import order, storage_configuration

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.protocol.messages import (
    STRATEGY_REASON_LIMIT,
    ScheduledMachine,
    SessionRequest,
    SourceCredentials,
    SourceReport,
    StorageCredentials,
    StoragePingCheckinAnswer,
)
from turku.storage.backup.job import BackupReport
from turku.storage.session import checkin
from turku.storage.session.cancellation import SessionCancellation

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


class Recorded:
    """A stand-in for the coordinator. ``report`` is the report about the source, as it goes over the wire."""

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}

    def clock_warning(self, _clock: Clock) -> str:
        return ""

    def call(self, name: str, message: Any, _answer: Any) -> Any:
        if name == "storage_ping_checkin":
            return StoragePingCheckinAnswer(ScheduledMachine(uuid=UUID, scheduled_sources={"etc": order()}))
        encoded = msgspec.json.encode(message(StorageCredentials("primary", "secret")))
        self.report = msgspec.json.decode(encoded)["machine"]["sources"]["etc"]
        return None


def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **made: str) -> dict[str, Any]:
    """Return the report of a backup of that strategy."""
    recorded = Recorded()
    monkeypatch.setattr(checkin, "Coordinator", lambda _configuration: recorded)
    outcome = BackupReport(success=True, snapshot=None, summary="", time_begin=1, time_end=2, **made)
    monkeypatch.setattr(checkin, "back_up", lambda *_arguments, **_keywords: outcome)
    storage = storage_configuration(tmp_path / "storage")
    (tmp_path / "storage" / "volume").mkdir()
    request = SessionRequest(action="checkin", port=1, sources={"etc": SourceCredentials("user", "password")})
    read_end, write_end = os.pipe()
    with SessionCancellation(read_end) as agent:
        checkin.Checkin(storage, UUID, request, agent, SYSTEM_CLOCK).run()
        os.close(write_end)
    return recorded.report


def test_strategy_and_reason_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = reported(tmp_path, monkeypatch, strategy="full", strategy_reason="rsync\nsays no")
    assert report["strategy"] == "full"
    assert report["strategy_reason"] == "rsync\\nsays no"


def test_a_long_reason_is_no_reason_for_a_coordinator_to_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = reported(tmp_path, monkeypatch, strategy="full", strategy_reason="\x01" * 5000)
    assert len(report["strategy_reason"]) == STRATEGY_REASON_LIMIT
    msgspec.convert(report, SourceReport)


def test_what_is_not_known_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reported(tmp_path, monkeypatch).keys() == {"success", "snapshot", "summary", "time_begin", "time_end"}
