"""Whatever `turku-api health --verbose` shows as a problem, it says why."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast, turku_api

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.fleet.versions import order
from turku.api.integrity.models import Damage, DamageKind, DamageState
from turku.api.status.fleet_marks import FAULT_MARKS
from turku.api.status.marks import Mark
from turku.core.clock import SYSTEM_CLOCK

NOW = SYSTEM_CLOCK.now()
LONG_AGO = NOW - timedelta(days=30)
AHEAD = NOW + timedelta(days=30)


def _damage() -> None:
    Damage.objects.create(
        source=Source.objects.get(name="etc"),
        path="passwd",
        digest="d",
        kind=next(iter(DamageKind)),
        state=DamageState.ALARM,
        date_found=NOW,
        date_changed=NOW,
    )


CASES: list[tuple[Mark, str, Callable[[], object]]] = [
    (Mark.QUARANTINED, "source", lambda: Source.objects.update(quarantined=True, findings=[])),
    (Mark.DAMAGED, "source", _damage),
    (Mark.WITHDRAWN, "source", lambda: Source.objects.update(published=False, date_withdrawn=NOW)),
    (Mark.FAILED, "source", lambda: Source.objects.update(success=False, failure_reason="")),
    (Mark.SILENT, "storage", lambda: Storage.objects.update(date_checked_in=LONG_AGO)),
    (Mark.SILENT, "machine", lambda: Machine.objects.update(date_checked_in=LONG_AGO)),
    (Mark.SILENT, "machine", lambda: Machine.objects.update(date_checked_in=AHEAD)),
    (Mark.UNASSIGNED, "machine", lambda: Machine.objects.update(storage=None, date_registered=LONG_AGO)),
    (
        Mark.UNASSIGNED,
        "machine",
        lambda: (Storage.objects.update(active=False), Machine.objects.update(date_registered=LONG_AGO)),
    ),
    (Mark.FAULTY, "storage", lambda: Storage.objects.update(faults=["volume data is not mounted"])),
    *(
        (mark, "storage", lambda kind=kind: Storage.objects.update(faults=["volume data: why"], fault_kind=kind))
        for kind, mark in FAULT_MARKS.items()
    ),
    (Mark.COPIED, "machine", lambda: Machine.objects.update(date_clone_seen=NOW)),
    (Mark.OUTDATED, "machine", lambda: Machine.objects.update(versions={"turku": "1.9"}, program_order=order("1.9"))),
    (Mark.OUTDATED, "storage", lambda: Storage.objects.update(versions={"rsync": "3.2"}, rsync_order=order("3.2"))),
    (Mark.STORAGE_SILENT, "machine", lambda: Storage.objects.update(date_checked_in=LONG_AGO)),
    (Mark.OVERDUE, "source", lambda: Source.objects.update(date_expected=LONG_AGO)),
    (Mark.OVERDUE, "source", lambda: Source.objects.update(longest_pause_days=1, date_next_backup=AHEAD)),
    (Mark.INCOMPLETE, "source", lambda: Source.objects.update(date_incomplete_since=NOW)),
    (
        Mark.SESSION_FAILED,
        "machine",
        lambda: Machine.objects.update(
            date_sessions_failed=NOW,
            session_failures=[{"reason": "unreachable", "sources": ["etc"], "since": NOW.isoformat()}],
        ),
    ),
    (
        Mark.REFUSED,
        "machine",
        lambda: Machine.objects.update(date_sources_refused=NOW, refused_sources={"etc": "path: is required"}),
    ),
]


@pytest.mark.parametrize(("mark", "noun", "cause"), CASES, ids=[f"{mark.value} {noun}" for mark, noun, _cause in CASES])
def test_a_problem_has_its_reason(
    cast: Cast, mark: Mark, noun: str, cause: Callable[[], object], settings: Any
) -> None:
    environment = settings.TURKU_ENVIRONMENT
    settings.TURKU_ENVIRONMENT = replace(environment, minimum_version="2.0", minimum_storage_rsync="3.5.0")
    cause()
    code, text = turku_api("health", "--verbose")
    assert code == 2
    lines = [line.strip() for line in text.splitlines()[1:]]
    told = [line for line in lines if line.startswith(("storage ", "machine ", "source "))]
    shown = [line for line in told if line.startswith(noun) and f": {mark.label}: " in line]
    assert shown, text
    labels = {each.label for each in Mark if each.is_problem}
    assert [line for line in told if line.rpartition(": ")[2] in labels] == []


def test_every_mark_that_is_a_problem_is_among_them() -> None:
    assert {mark for mark, _noun, _cause in CASES} == {mark for mark in Mark if mark.is_problem}
