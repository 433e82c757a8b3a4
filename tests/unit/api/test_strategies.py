"""The strategy of a snapshot is kept with its run, and a source that is backed up in full each time is named with the
reason."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.backups.models import FALLING_BACK_RUNS, BackupRun, Source, StrategyChoices
from turku.api.status import fleet_health, source_marks
from turku.api.status.marks import Mark
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.messages import STRATEGIES, STRATEGY_REASON_LIMIT

REASON = "rsync did not accept its options (rsync exit code 1)"


def report(cast: Cast, strategy: str | None = None, reason: str | None = None, **changes: Any) -> None:
    reported = {
        name: value for name, value in (("strategy", strategy), ("strategy_reason", reason)) if value is not None
    }
    outcome = {"success": True, "snapshot": "etc_20260131-120000_0a1b", "summary": "", **reported, **changes}
    cast.bob.report(cast.alice.uuid, {"etc": outcome})


def fall_back(cast: Cast, times: int = FALLING_BACK_RUNS) -> None:
    for _ in range(times):
        report(cast, "full", REASON)


def mark(name: str = "etc") -> str:
    [source] = source_marks.sources(now=SYSTEM_CLOCK.now()).filter(name=name)
    return str(source.mark)


def remarks() -> list[str]:
    return [
        each for each in fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True).remarks if "full" in each
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_is_kept_with_the_run(cast: Cast, strategy: str) -> None:
    report(cast, strategy, "why")
    run = BackupRun.objects.get()
    assert (run.strategy, run.strategy_reason) == (strategy, "why")


def test_those_of_the_wire_are_those_of_the_database() -> None:
    assert tuple(StrategyChoices.values) == STRATEGIES


def test_a_storage_of_the_existing_system_reports_none(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    run = BackupRun.objects.get()
    assert (run.strategy, run.strategy_reason) == ("", "")
    assert mark() == Mark.OK


def test_one_of_a_newer_storage_is_no_reason_to_refuse_the_report(cast: Cast) -> None:
    report(cast, "teleported", "x\x1b[2J\ny")
    run = BackupRun.objects.get()
    assert run.success
    assert run.strategy == ""
    assert "\x1b" not in run.strategy_reason
    assert "\n" not in run.strategy_reason


def test_a_reason_that_grows_when_it_is_made_printable_still_fits(cast: Cast) -> None:
    report(cast, "full", "\x01" * STRATEGY_REASON_LIMIT)
    assert len(BackupRun.objects.get().strategy_reason) == STRATEGY_REASON_LIMIT
    assert len(Source.objects.get(name="etc").fallback_reason) == STRATEGY_REASON_LIMIT


@pytest.mark.parametrize(("strategy", "reason"), [("full", "x" * 1001), ("x" * 4097, ""), (7, ""), ("full", [])])
def test_malformed_ones_are_refused(cast: Cast, strategy: Any, reason: Any) -> None:
    with pytest.raises(Refused) as caught:
        report(cast, strategy, reason)
    assert caught.value.status == 400


def test_three_full_runs_in_a_row_mark_a_source(cast: Cast) -> None:
    fall_back(cast, FALLING_BACK_RUNS - 1)
    assert mark() == Mark.OK
    assert remarks() == []
    report(cast, "full", "another reason")
    assert mark() == Mark.FALLING_BACK
    first, second = remarks()
    assert first == "1 source backed up in full each time"
    assert second.startswith("source ")
    assert second.endswith("/ etc: 3 full runs in a row although there was a base snapshot: another reason")


@pytest.mark.parametrize(
    ("strategy", "reason"), [("incremental", ""), ("unchanged", ""), ("full", ""), ("in-place", ""), (None, None)]
)
def test_any_other_good_run_ends_it(cast: Cast, strategy: str | None, reason: str | None) -> None:
    fall_back(cast)
    report(cast, strategy, reason)
    assert mark() == Mark.OK
    source = Source.objects.get(name="etc")
    assert (source.fallback_count, source.fallback_reason) == (0, "")


def test_a_run_that_fails_neither_counts_nor_ends_it(cast: Cast) -> None:
    fall_back(cast, FALLING_BACK_RUNS - 1)
    report(cast, "full", REASON, success=False)
    assert Source.objects.get(name="etc").fallback_count == FALLING_BACK_RUNS - 1
    report(cast, "full", REASON)
    assert mark() == Mark.FALLING_BACK


def test_a_first_backup_is_full_and_no_fallback(cast: Cast) -> None:
    for _ in range(FALLING_BACK_RUNS):
        report(cast, "full")
    assert mark() == Mark.OK


def test_it_is_slow_and_not_broken(cast: Cast) -> None:
    fall_back(cast)
    assert not Mark.FALLING_BACK.is_problem
    found = fleet_health.current_health(now=SYSTEM_CLOCK.now())
    assert found.is_healthy
    assert found.remarks == ()


def test_the_worse_state_is_the_mark_and_it_is_named_all_the_same(cast: Cast) -> None:
    fall_back(cast)
    Source.objects.filter(name="etc").update(date_next_backup=SYSTEM_CLOCK.now() - timedelta(days=3))
    assert mark() == Mark.OVERDUE
    assert len(remarks()) == 2
    Source.objects.filter(name="etc").update(active=False)
    assert remarks() == []


def test_the_lists_and_pages_show_it(cast: Cast, admin_client: Client) -> None:
    fall_back(cast)
    sources = admin_client.get("/admin/backups/source/?mark=falling-back").content.decode()
    assert "full each time" in sources
    assert REASON in sources
    assert "0 sources" in admin_client.get("/admin/backups/source/?mark=problem").content.decode()
    source = Source.objects.get(name="etc")
    assert f"3 in a row: {REASON}" in admin_client.get(f"/admin/backups/source/{source.pk}/change/").content.decode()
    runs = admin_client.get("/admin/backups/backuprun/?strategy__exact=full").content.decode()
    assert f"full: {REASON}" in runs
    assert "0 backup runs" in admin_client.get("/admin/backups/backuprun/?strategy__exact=unchanged").content.decode()
    run = BackupRun.objects.first()
    assert run is not None
    assert REASON in admin_client.get(f"/admin/backups/backuprun/{run.pk}/change/").content.decode()


def test_a_long_reason_does_not_widen_a_list(cast: Cast, admin_client: Client) -> None:
    for _ in range(FALLING_BACK_RUNS):
        report(cast, "full", "<b>" + "x" * 300)
    page = admin_client.get("/admin/backups/source/").content.decode()
    assert f"&lt;b&gt;{'x' * 77}...</span>" in page
    assert "<b>x" not in page
    assert 'title="&lt;b&gt;xxx' in page
