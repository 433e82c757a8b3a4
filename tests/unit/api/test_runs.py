"""Due sources, reports, retries and the record of runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.audit.log import COMMAND_LINE
from turku.api.backups import runs
from turku.api.backups.models import BackupRun, Source
from turku.api.backups.next_backup import retry_pause
from turku.api.backups.operator_actions import back_up_now
from turku.api.fleet.models import Machine, Storage
from turku.api.status import fleet_health
from turku.core.clock import SYSTEM_CLOCK


def test_success_moves_a_source_to_its_next_due_time(cast: Cast) -> None:
    before = SYSTEM_CLOCK.now()
    cast.bob.succeeded(cast.alice.uuid, "etc")
    assert set(cast.alice.due()) == {"home"}
    etc = Source.objects.get(name="etc")
    assert etc.success is True
    assert etc.date_last_backed_up is not None
    assert before < etc.date_next_backup <= before + timedelta(days=2, minutes=1)


def test_a_report_is_kept_as_a_run(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    run = BackupRun.objects.get()
    assert (run.source.name, str(run.storage), run.success) == ("etc", "primary", True)
    assert run.snapshot == "etc_20261123-120000_0a1b"
    assert run.date_begin == datetime.fromtimestamp(1_790_000_000.25, UTC)
    assert run.date_end == datetime.fromtimestamp(1_790_000_012.75, UTC)


def test_failures_are_retried_with_growing_pauses(cast: Cast) -> None:
    pauses = []
    for _ in range(9):
        now = SYSTEM_CLOCK.now()
        cast.bob.failed(cast.alice.uuid, "etc")
        pauses.append(round((Source.objects.get(name="etc").date_next_backup - now).total_seconds() / 60))
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 360, 360]
    assert set(cast.alice.due()) == {"home"}
    cast.bob.succeeded(cast.alice.uuid, "etc")
    assert Source.objects.get(name="etc").failure_count == 0


def test_the_pause_stays_bounded_after_years_of_failures() -> None:
    assert retry_pause(100_000) == timedelta(hours=6)


def test_a_source_with_an_unreadable_schedule_is_pushed_back(cast: Cast) -> None:
    Source.objects.filter(name="etc").update(frequency="when the moon is full")
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert cast.alice.due() == {}
    assert Source.objects.get(name="etc").date_next_backup > SYSTEM_CLOCK.now() + timedelta(hours=23)


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (Machine, {"published": False}),
        (Storage, {"published": False}),
        (Storage, {"active": False}),
        (Source, {"published": False}),
        (Source, {"active": False}),
        (Source, {"date_next_backup": datetime(2100, 1, 1, tzinfo=UTC)}),
    ],
)
def test_a_source_is_due_only_when_all_is_on(cast: Cast, model: Any, change: dict[str, Any]) -> None:
    assert cast.alice.due()
    model.objects.update(**change)
    assert cast.alice.due() == {}


def test_back_up_now_makes_sources_due(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert cast.alice.due() == {}
    assert back_up_now(Source.objects.filter(name="home"), actor=COMMAND_LINE, now=SYSTEM_CLOCK.now()) == 1
    assert set(cast.alice.due()) == {"home"}


def test_reports_of_an_unpublished_machine_are_taken(cast: Cast) -> None:
    Machine.objects.update(published=False)
    assert cast.bob.succeeded(cast.alice.uuid, "etc") == {}


def test_a_report_for_an_unknown_source_changes_nothing(cast: Cast) -> None:
    with pytest.raises(Refused) as caught:
        cast.bob.succeeded(cast.alice.uuid, "etc", "nothing")
    assert caught.value.status == 404
    assert not BackupRun.objects.exists()
    assert Source.objects.get(name="etc").success is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("time_begin", 1e300), ("time_end", -5.0), ("snapshot", "x" * 300), ("snapshot", "a\nb"), ("success", "yes")],
)
def test_a_senseless_report_is_refused_by_field(cast: Cast, field: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        cast.bob.report(cast.alice.uuid, {"etc": {"success": True, field: value}})
    assert caught.value.status == 400
    assert field in caught.value.sentence
    assert not BackupRun.objects.exists()


def test_old_runs_are_deleted_and_sources_stay(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    now = SYSTEM_CLOCK.now()
    BackupRun.objects.filter(source__name="etc").update(date=now - timedelta(days=31))
    assert runs.delete_old(older_than_days=30, now=now) == 1
    assert BackupRun.objects.get().source.name == "home"
    assert Source.objects.count() == 2


def test_a_run_that_ended_in_the_future_says_that_the_storage_s_clock_is_wrong(cast: Cast) -> None:
    end = (SYSTEM_CLOCK.now() + timedelta(hours=4)).timestamp()
    report = {"success": True, "summary": "done", "time_begin": end - 5, "time_end": end}
    cast.bob.report(cast.alice.uuid, {"etc": report})
    assert BackupRun.objects.get().summary == (
        "the clock of the storage is 4 h ahead of the clock of the coordinator\ndone"
    )


def test_health_names_a_storage_whose_clock_was_ahead_at_its_last_report(cast: Cast) -> None:
    def problems(hours: float) -> list[str]:
        end = (SYSTEM_CLOCK.now() + timedelta(hours=hours)).timestamp()
        cast.bob.report(cast.alice.uuid, {"etc": {"success": True, "time_begin": end - 5, "time_end": end}})
        found = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True).remarks
        return [remark for remark in found if "clock" in remark]

    assert problems(4) == [
        "storage primary: its clock was 4 h ahead of the clock of the coordinator at its last report"
    ]
    assert problems(0) == []
    assert problems(-4) == [], "it may have come late"
