"""Integrity reports on both databases, over HTTP: many at once make one row, and rows stay bounded."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast


def send(cast: HttpCast, integrity: dict[str, Any]) -> int:
    credentials = {"name": cast.bob.name, "secret": cast.bob.secret}
    message = {"storage": credentials, "machine": {"uuid": cast.alice.uuid, "sources": {"etc": integrity}}}
    return cast.post("../v2/storage_integrity_report", message)[0]


def count(cast: HttpCast, table: str) -> int:
    [etc] = [row for row in cast.source_rows() if row["name"] == "etc"]
    [row] = cast.rows(f"SELECT count(*) AS rows FROM {table} WHERE source_id = ?", etc["id"])
    return int(row["rows"])


def test_integrity_reports_at_once_make_one_row_each_and_stay_bounded(coordinator: Coordinator) -> None:
    cast = HttpCast.introduce(coordinator)
    damage = {"path": "passwd", "kind": "content", "state": "lost", "checksum": "ab" * 16, "snapshots": ["etc_x"]}
    drill = {"success": True, "time_begin": 1.8e9, "time_end": 1.8e9 + 1, "files": 3, "valid_seconds": 86400.0}
    integrity = {"damages": [damage], "drill": drill, "verified": {"time": 1.8e9, "files": 3}}
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _number: send(cast, integrity), range(105)))
    assert set(statuses) == {200}
    assert (count(cast, "integrity_damage"), count(cast, "integrity_integritystate")) == (1, 1)
    assert count(cast, "integrity_drill") == 100
    [entry] = cast.rows("SELECT actor FROM audit_auditentry WHERE action = 'damage.found' AND actor = ?", cast.bob.name)
    assert entry["actor"] == cast.bob.name
    many = [{**damage, "path": f"file{number}", "state": "repaired"} for number in range(1000)]
    assert send(cast, {"damages": many}) == 200
    assert send(cast, {"damages": [{**each, "checksum": "cd" * 16} for each in many]}) == 200
    assert count(cast, "integrity_damage") == 1000
    [etc] = [row for row in cast.source_rows() if row["name"] == "etc"]
    assert cast.rows("SELECT 1 FROM integrity_damage WHERE source_id = ? AND path = 'passwd'", etc["id"])
