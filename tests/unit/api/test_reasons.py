"""The reason for the mark of a source or machine stands beside it, with the next step. Texts of a storage are
bounded."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from tests.support.api_cast import Cast, turku_api

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import REASON_LENGTH, BackupRun, Source
from turku.api.fleet.models import Machine
from turku.api.status import fleet_health, fleet_marks, source_marks
from turku.api.status.marks import Mark
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError
from turku.protocol.messages import WARNINGS_LIMIT

DAY = timedelta(days=1)
FINDINGS = ["60% of the files were rewritten (600 of 1000)", "names end in .locked"]
FAILURE = "rsync: connection unexpectedly closed (exit code 12)"


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    return client


def shown_list(client: Client, model: Any, query: str = "") -> str:
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return client.get(address + query).content.decode()


def shown(client: Client, row: Any) -> str:
    address = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def report(cast: Cast, source: str = "etc", **changes: Any) -> None:
    outcome = {"success": True, "snapshot": "etc_20260131-120000_0a1b", "summary": "good", **changes}
    cast.bob.report(cast.alice.uuid, {source: outcome})


def etc() -> Source:
    return Source.objects.get(name="etc")


def mark(name: str = "etc") -> str:
    [source] = source_marks.sources(now=SYSTEM_CLOCK.now()).filter(name=name)
    return str(source.mark)


def verbose() -> str:
    return turku_api("health", "--verbose")[1]


def test_the_first_line_of_the_last_failure_stands_beside_source_and_machine(cast: Cast, admin: Client) -> None:
    report(cast, success=False, summary=f"\n  \n{FAILURE}\nand much more of it")
    assert etc().failure_reason == FAILURE
    for page in (shown_list(admin, Source), shown_list(admin, Machine), shown_list(admin, BackupRun)):
        assert FAILURE in page
        assert "and much more of it" not in page
    for page in (shown(admin, etc()), shown(admin, Machine.objects.get())):
        assert FAILURE in page
        assert "turku-api back-up-now" in page
    assert f"source web-0 / etc: failed: {FAILURE}" in verbose()
    assert f"machine web-0: failed: etc: {FAILURE}" in verbose()
    report(cast, success=False, summary="another one")
    assert "another one (2 failures in a row)" in shown_list(admin, Machine)
    report(cast)
    assert etc().failure_reason == ""
    assert FAILURE not in shown_list(admin, Source)


@pytest.mark.parametrize("summary", [None, "", "\n\n"])
def test_a_failure_without_a_word_says_so(cast: Cast, summary: str | None) -> None:
    report(cast, success=False, summary=summary)
    assert etc().failure_reason == "its storage gave no reason"


def test_a_failure_that_lies_is_bounded_and_harmless(cast: Cast, admin: Client) -> None:
    report(cast, success=False, summary="<script>alert(1)</script>\x1b[2J" + "x" * 60_000)
    assert len(etc().failure_reason) == REASON_LENGTH
    for page in (shown_list(admin, Source), shown_list(admin, Machine), shown(admin, etc())):
        assert "<script>alert" not in page
        assert "\x1b" not in page
    assert "\x1b" not in verbose()


def test_the_findings_stand_beside_source_and_machine(cast: Cast, admin: Client) -> None:
    report(cast, findings=FINDINGS)
    assert etc().findings == FINDINGS
    for page in (shown_list(admin, Source), shown_list(admin, Machine)):
        assert FINDINGS[0] in page
    for page in (shown(admin, etc()), shown(admin, Machine.objects.get())):
        assert all(finding in page for finding in FINDINGS)
        assert f"turku-storage quarantine list --machine {cast.alice.uuid} --source etc" in page
        assert "on the storage primary" in page
    for page in (shown_list(admin, Source), shown_list(admin, Machine)):
        assert f"turku-storage quarantine list --machine {cast.alice.uuid} --source etc" in page
    assert "; ".join(FINDINGS) in verbose()
    assert (
        f"      Read the findings on the storage primary: turku-storage quarantine list --machine {cast.alice.uuid}"
        in (verbose())
    )
    report(cast, success=False)
    assert etc().findings == FINDINGS
    report(cast)
    assert etc().findings == []


def test_a_snapshot_that_misses_files_is_a_problem_of_its_own(cast: Cast, admin: Client) -> None:
    warnings = ["/etc/shadow could not be read: Permission denied", "/etc/gshadow could not be read"]
    report(cast, missing_files=2, stale_files=1, warning_count=7, warnings=warnings)
    run = BackupRun.objects.get()
    assert (run.success, run.missing_files, run.stale_files, run.warning_count) == (True, 2, 1, 7)
    assert run.warnings == warnings
    since = etc().date_incomplete_since
    assert since is not None
    assert mark() == Mark.INCOMPLETE
    assert Mark.INCOMPLETE.is_problem
    assert [str(row.mark) for row in fleet_marks.machines(now=SYSTEM_CLOCK.now())] == ["incomplete"]
    text = "2 files missing and 1 file stale: /etc/shadow could not be read: Permission denied"
    assert text in verbose()
    assert text[:30] in shown_list(admin, Source)
    for page in (shown(admin, etc()), shown(admin, Machine.objects.get())):
        assert text in page
        assert "exclude them" in page
    assert "2 missing, 1 stale" in shown_list(admin, BackupRun)
    page = shown(admin, run)
    assert "/etc/gshadow could not be read" in page
    assert "and 5 more" in page
    report(cast, missing_files=1)
    assert etc().date_incomplete_since == since
    report(cast, success=False)
    assert etc().date_incomplete_since == since
    assert mark() == Mark.FAILED
    report(cast)
    assert etc().date_incomplete_since is None
    assert etc().incomplete_reasons == []
    assert mark() == Mark.OK


def test_warnings_alone_are_kept_with_the_run_and_are_no_problem(cast: Cast) -> None:
    report(cast, warning_count=1, warnings=["an ACL could not be kept: /etc/x"])
    assert BackupRun.objects.get().warnings == ["an ACL could not be kept: /etc/x"]
    assert mark() == Mark.OK


def test_a_storage_s_report_of_files_is_bounded_and_harmless(cast: Cast, admin: Client) -> None:
    lies = ["<b>\x1b]0;x\x07" + "y" * 4000] * WARNINGS_LIMIT
    report(cast, missing_files=2**64 - 1, stale_files=2**63, warning_count=2**64 - 1, warnings=lies)
    run = BackupRun.objects.get()
    assert max(run.missing_files, run.stale_files, run.warning_count) <= 10**15
    assert len(run.warnings) == WARNINGS_LIMIT
    assert max(map(len, run.warnings)) <= REASON_LENGTH
    assert len(etc().incomplete_reasons) == 3
    for page in (shown_list(admin, Source), shown_list(admin, Machine), shown(admin, etc()), shown(admin, run)):
        assert "<b>\\x1b" not in page
        assert "\x1b" not in page
    assert "\x1b" not in verbose()


def test_a_storage_of_the_existing_system_reports_no_files(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    run = BackupRun.objects.get()
    assert (run.missing_files, run.stale_files, run.warning_count, run.warnings) == (0, 0, 0, [])
    assert mark() == Mark.OK


def test_an_overdue_source_says_since_when(cast: Cast, admin: Client) -> None:
    Source.objects.filter(name="etc").update(date_expected=SYSTEM_CLOCK.now() - DAY)
    assert "no good backup since it was added on " in verbose()
    assert "turku-agent-ping --debug" in shown(admin, etc())
    Source.objects.filter(name="etc").update(date_next_backup=SYSTEM_CLOCK.now() + 3650 * DAY)
    assert "the clock of the coordinator was ahead" in verbose()


def test_silence_says_since_when(cast: Cast, admin: Client) -> None:
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now() - DAY)
    assert "machine web-0: silent: not heard of since " in verbose()
    assert "not heard of since" in shown_list(admin, Machine)
    assert "turku-agent-ping.timer" in shown(admin, Machine.objects.get())


def test_sentences_are_bounded(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_health, "SENTENCES_LIMIT", 3)
    cast.alice.update_config({f"source-{number}": {"path": "/x"} for number in range(8)})
    cast.bob.failed(cast.alice.uuid, *(f"source-{number}" for number in range(8)))
    lines = verbose().splitlines()
    assert len([line for line in lines if line.startswith("  source")]) == 3
    assert "  and 5 more sources that have a problem" in lines


def run_machine(*arguments: str) -> str:
    return turku_api("machine", *arguments)[1]


def test_a_mute_has_an_end_and_a_reason(cast: Cast, admin: Client) -> None:
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now() - DAY)
    cast.bob.succeeded(cast.alice.uuid, "home")
    cast.bob.failed(cast.alice.uuid, "etc")
    assert "is muted until" in run_machine("mute", "web-0", "--days", "3", "--reason", "moved to the new rack")
    assert fleet_health.current_health(now=SYSTEM_CLOCK.now()).summary == "OK: 1 storage ok; 1 machine ok; 2 sources ok"
    assert mark() == Mark.MUTED
    assert "moved to the new rack" in shown_list(admin, Machine)
    assert "moved to the new rack" in verbose()
    entry = AuditEntry.objects.get(action="machine.muted")
    assert (entry.actor_kind, entry.weakens) == ("command", True)
    later = SYSTEM_CLOCK.now() + timedelta(days=3, minutes=1)
    assert "1 failed of 1 machine" in fleet_health.current_health(now=later).summary
    run_machine("unmute", "web-0")
    assert mark() == Mark.FAILED
    assert AuditEntry.objects.filter(action="machine.unmuted").exists()


def test_a_mute_hides_no_attack(cast: Cast) -> None:
    run_machine("mute", "web-0", "--days", "1", "--reason", "away")
    report(cast, findings=FINDINGS)
    assert mark() == Mark.QUARANTINED
    assert [str(row.mark) for row in fleet_marks.machines(now=SYSTEM_CLOCK.now())] == ["quarantined"]


@pytest.mark.parametrize(("days", "reason"), [("0", "x"), ("-1", "x"), ("1000", "x"), ("nan", "x"), ("1", " ")])
def test_a_senseless_mute_is_refused(cast: Cast, days: str, reason: str) -> None:
    with pytest.raises(UsageError):
        run_machine("mute", "web-0", f"--days={days}", "--reason", reason)
    assert Machine.objects.get().date_muted_until is None


@pytest.mark.parametrize(
    ("moved", "reason", "is_taken"),
    [(DAY, "away", True), (DAY, "", False), (None, "away", False), (-DAY, "away", False), (None, "", True)],
)
def test_a_mute_of_the_admin_site_keeps_the_same_rules(
    cast: Cast, admin: Client, moved: timedelta | None, reason: str, is_taken: bool
) -> None:
    machine = Machine.objects.get()
    until = None if moved is None else SYSTEM_CLOCK.now() + moved
    form = {
        "active": "on",
        "storage": str(machine.storage_id),
        "date_muted_until_0": "" if until is None else f"{until:%Y-%m-%d}",
        "date_muted_until_1": "" if until is None else f"{until:%H:%M:%S}",
        "mute_reason": reason,
    }
    response = admin.post(reverse("admin:fleet_machine_change", args=[machine.pk]), form)
    assert (response.status_code == 302) is is_taken
    machine.refresh_from_db()
    assert (machine.date_muted_until is not None) is (is_taken and until is not None)
