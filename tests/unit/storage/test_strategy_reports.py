"""A session tells the coordinator how each snapshot was made, and leaves it out where nothing is known of it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.backed_up_machine import order, storage_configuration
from tests.support.recording_coordinator import RecordingCoordinator

from turku.protocol.messages import STRATEGY_REASON_LIMIT, SessionRequest, SourceCredentials, SourceReport
from turku.storage.backup.job import BackupReport
from turku.storage.session import checkin

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **made: Any) -> dict[str, Any]:
    """Return the report of a backup of that strategy."""
    outcome = BackupReport(success=True, snapshot=None, summary="", time_begin=1, time_end=2, **made)
    monkeypatch.setattr(checkin, "back_up", lambda *_arguments, **_keywords: outcome)
    storage = storage_configuration(tmp_path / "storage", sandbox="off")
    (tmp_path / "storage" / "volume").mkdir()
    request = SessionRequest(action="checkin", port=1, sources={"etc": SourceCredentials("user", "password")})
    coordinator = RecordingCoordinator(etc=order())
    coordinator.checkin(storage, UUID, request)
    report: dict[str, Any] = coordinator.reports["etc"]
    return report


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


def test_unknown_fields_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reported(tmp_path, monkeypatch).keys() == {"success", "snapshot", "summary", "time_begin", "time_end"}
