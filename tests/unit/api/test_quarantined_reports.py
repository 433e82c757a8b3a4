"""A backup that its storage put into quarantine is on the audit log, and its source shows it (threats M10)."""

from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import BackupRun, Source
from turku.api.status import fleet_health, source_marks
from turku.api.status.marks import Mark
from turku.core.clock import SYSTEM_CLOCK

FINDINGS = ["60% of the files were rewritten (600 of 1000)"]


def report(cast: Cast, *findings: str, **changes: Any) -> None:
    outcome = {"success": True, "snapshot": "etc_20260131-120000_0a1b", "summary": "QUARANTINED: ...", **changes}
    cast.bob.report(cast.alice.uuid, {"etc": {**outcome, "findings": list(findings)}})


def mark() -> str:
    [source] = source_marks.sources(now=SYSTEM_CLOCK.now()).filter(name="etc")
    return str(source.mark)


def logged() -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action="backup.quarantined"))


def test_it_is_on_the_audit_log_and_marks_its_source(cast: Cast) -> None:
    report(cast, *FINDINGS)
    [entry] = logged()
    assert (entry.actor_kind, entry.subject) == ("storage", "etc")
    assert entry.new == {"snapshot": "etc_20260131-120000_0a1b", "findings": FINDINGS}
    assert mark() == Mark.QUARANTINED
    assert Mark.QUARANTINED.is_problem
    assert "quarantined" in fleet_health.current_health(now=SYSTEM_CLOCK.now()).summary
    assert BackupRun.objects.get().success


def test_it_is_logged_once_until_it_is_over(cast: Cast) -> None:
    for findings in (FINDINGS, FINDINGS, [], FINDINGS):
        report(cast, *findings)
        assert (mark() == Mark.QUARANTINED) == bool(findings)
    assert len(logged()) == 2


def test_a_storage_of_the_existing_system_reports_none(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    assert logged() == []
    assert Source.objects.get(name="etc").quarantined is False


def test_a_failure_does_not_end_it(cast: Cast) -> None:
    report(cast, *FINDINGS)
    cast.bob.failed(cast.alice.uuid, "etc")
    assert mark() == Mark.QUARANTINED


@pytest.mark.parametrize("findings", [["x"] * 21, ["x" * 5000], [7], "text"])
def test_malformed_findings_are_refused(cast: Cast, findings: Any) -> None:
    with pytest.raises(Refused) as caught:
        cast.bob.report(cast.alice.uuid, {"etc": {"success": True, "findings": findings}})
    assert caught.value.status == 400
    assert "findings" in caught.value.sentence
