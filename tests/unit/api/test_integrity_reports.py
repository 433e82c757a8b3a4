"""The integrity reports of storages: damage marks its source until repaired or acknowledged, drills make a source proven."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from tests.support.api_cast import Cast
from tests.support.v1_client import V1Storage

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import Source
from turku.api.integrity import report
from turku.api.integrity.models import Damage, Drill, IntegrityState
from turku.api.status import fleet_health, source_marks
from turku.api.status.marks import Mark
from turku.core.clock import SYSTEM_CLOCK

DAMAGE = {
    "path": "ssh/sshd_config",
    "kind": "content",
    "state": "lost",
    "checksum": "ab" * 16,
    "snapshots": ["etc_20260131-120000_0a1b"],
    "snapshot_count": 1,
}


def send(storage: V1Storage, machine: str, sources: dict[str, Any]) -> tuple[int, Any]:
    credentials = {"name": storage.name, "secret": storage.secret}
    message = {"storage": credentials, "machine": {"uuid": machine, "sources": sources}}
    response = Client(raise_request_exception=False).post(
        "/v2/storage_integrity_report", json.dumps(message), content_type="application/json"
    )
    return response.status_code, json.loads(response.content)


def report_damage(cast: Cast, *damages: dict[str, Any]) -> None:
    status, answer = send(cast.bob, cast.alice.uuid, {"etc": {"damages": list(damages)}})
    assert (status, answer) == (200, {})


def drill(success: bool = True, **changes: Any) -> dict[str, Any]:
    outcome = {"success": success, "time_begin": 1.8e9, "time_end": 1.8e9 + 4, "files": 12, "size_bytes": 34000}
    return {"drill": {**outcome, "snapshot": "etc_x", "valid_seconds": 40 * 86400, "summary": "12 files", **changes}}


def mark() -> str:
    [source] = source_marks.sources(now=SYSTEM_CLOCK.now()).filter(name="etc")
    return str(source.mark)


def actions() -> list[str]:
    found = AuditEntry.objects.filter(action__regex="^(damage|drill)").order_by("pk")
    return list(found.values_list("action", flat=True))


def test_damage_marks_its_source_until_it_is_repaired(cast: Cast) -> None:
    report_damage(cast, DAMAGE)
    [row] = Damage.objects.all()
    assert (row.path, row.state, row.snapshots) == ("ssh/sshd_config", "lost", ["etc_20260131-120000_0a1b"])
    assert mark() == Mark.DAMAGED
    state = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True)
    assert not state.is_healthy
    assert "1 damaged" in state.summary
    report_damage(cast, {**DAMAGE, "state": "repaired"})
    assert mark() != Mark.DAMAGED
    assert Damage.objects.count() == 1
    assert actions() == ["damage.found", "damage.repaired"]


def test_it_is_reported_once_and_an_acknowledgement_holds_until_there_is_news(cast: Cast) -> None:
    report_damage(cast, DAMAGE)
    Damage.objects.update(date_acknowledged=SYSTEM_CLOCK.now(), acknowledged_by="olga")
    report_damage(cast, DAMAGE)
    assert mark() != Mark.DAMAGED
    assert actions() == ["damage.found"]
    report_damage(cast, {**DAMAGE, "kind": "missing"})
    assert mark() == Mark.DAMAGED
    assert Damage.objects.get().acknowledged_by == ""
    assert actions() == ["damage.found"] * 2


def test_rows_of_one_source_are_bounded_and_open_ones_stay(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DAMAGES_KEPT", 5)
    monkeypatch.setattr(report, "DRILLS_KEPT", 3)
    report_damage(cast, DAMAGE)
    for number in range(4):
        report_damage(cast, *({**DAMAGE, "path": f"{number}/{each}", "state": "repaired"} for each in range(3)))
    assert Damage.objects.count() == 5
    assert Damage.objects.filter(path=DAMAGE["path"]).exists()
    for _ in range(5):
        send(cast.bob, cast.alice.uuid, {"etc": drill(), "home": drill()})
    assert Drill.objects.count() == 6


def test_a_good_drill_proves_a_source_for_a_while_and_a_bad_one_ends_it(cast: Cast) -> None:
    def remarks() -> str:
        return "\n".join(fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True).remarks)

    assert remarks() == "", "nothing is expected of a source that was never backed up"
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert "2 sources unproven" in remarks()
    assert "no restore drill yet" in remarks()
    assert send(cast.bob, cast.alice.uuid, {"etc": drill(), "home": drill()}) == (200, {})
    assert remarks() == ""
    assert [row.files for row in Drill.objects.all()] == [12, 12]
    assert fleet_health.current_health(now=SYSTEM_CLOCK.now() + timedelta(days=41), verbose=True).remarks
    send(cast.bob, cast.alice.uuid, {"etc": drill(success=False, summary="2 files differ")})
    assert "etc: unproven (the last restore drill failed)" in remarks()
    assert actions() == ["drill.failed"]
    Source.objects.filter(name="etc").update(snapshot_mode="none")
    assert remarks() == "", "drills are made of snapshots"
    # It is no fault of the fleet by itself.
    assert fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True).is_healthy


def test_verification_is_noted(cast: Cast) -> None:
    verified = {"time": 1.7e9, "files": 7, "size_bytes": 900, "time_oldest_check": 1.69e9}
    assert send(cast.bob, cast.alice.uuid, {"etc": {"verified": verified}}) == (200, {})
    integrity = IntegrityState.objects.get()
    assert (integrity.verified_files, integrity.verified_bytes) == (7, 900)
    assert integrity.date_oldest_check is not None
    send(cast.bob, cast.alice.uuid, {"etc": drill()})
    integrity.refresh_from_db()
    assert integrity.verified_files == 7


def test_only_of_a_storages_own_machines(cast: Cast) -> None:
    mallory = cast.storage("mallory")
    mallory.update_config()
    reports = {"etc": {"damages": [DAMAGE], **drill()}}
    known, unknown = send(mallory, cast.alice.uuid, reports), send(mallory, str(uuid.uuid4()), reports)
    assert known == unknown
    assert known[0] == 404
    assert not Damage.objects.exists()
    assert not Drill.objects.exists()
    assert send(cast.bob, cast.alice.uuid, {"nothing": {"damages": [DAMAGE]}})[0] == 404


@pytest.mark.parametrize(
    "integrity",
    [
        {"damages": [{**DAMAGE, "kind": "else"}]},
        {"damages": [{**DAMAGE, "path": "x" * 5000}]},
        {"damages": [{**DAMAGE, "snapshots": ["x"] * 21}]},
        {"damages": [{**DAMAGE, "path": str(number)} for number in range(1001)]},
        {"drill": {"success": True, "time_begin": -1, "time_end": 0}},
        drill(files=2**70),
        drill(summary="x" * 20000),
    ],
)
def test_a_malformed_or_too_long_report_is_refused(cast: Cast, integrity: Any) -> None:
    assert send(cast.bob, cast.alice.uuid, {"etc": integrity})[0] == 400
    assert not Damage.objects.exists()


def test_paths_are_shown_on_one_line(cast: Cast) -> None:
    report_damage(cast, {**DAMAGE, "path": "a\nb\u202e"})
    assert Damage.objects.get().path == "a\\nb\\u202e"


def test_it_costs_the_same_for_one_and_for_twenty_sources(cast: Cast) -> None:
    counts = []
    for count in (1, 20):
        machine = cast.machine(unit_name=f"web-{count}")
        names = [f"source-{number}" for number in range(count)]
        machine.update_config({name: {"path": "/x"} for name in names})
        reports = {
            name: {"damages": [{**DAMAGE, "path": f"{name}/{each}"} for each in range(count)], **drill()}
            for name in names
        }
        assert send(cast.bob, machine.uuid, reports)[0] == 200
        with CaptureQueriesContext(connection) as captured:
            assert send(cast.bob, machine.uuid, reports)[0] == 200
        counts.append(len([query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]))
    # SQLite takes so many values in one statement that seventy damages have room in it.
    assert counts[1] - counts[0] <= 400 // 70
    assert counts[0] <= 14
