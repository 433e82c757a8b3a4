"""M4, M5: whoever takes over a machine cannot shrink its history through its own configuration (the coordinator's part).

The storage is one of the existing system, which knows nothing of floors: it deletes snapshots by the ``retention`` of its order.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.http_cast import SOURCES, HttpCast, status_of

from turku.policy import retention
from turku.policy.retention import Snapshot

LONG = "last 30 days"
HOSTILE: list[dict[str, Any]] = [
    {"retention": "last 1 snapshot"},
    {"retention": "earliest of month"},
    {"retention": "last 1 day", "frequency": "cron * * * * *"},
    {"retention": "last 1 snapshots", "exclude": ["*"]},
    {"path": "/var/empty"},
    {"filter": ["- *"]},
    {"snapshot_mode": "none"},
    {"large_rotating_files": True, "large_modifying_files": True},
    {"frequency": "monthly"},
]


class Disk:
    """The snapshots on the storage's disk: thirty days of them at first."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.old = [Snapshot(f"day-{age}", self.now - timedelta(days=age, minutes=-5)) for age in range(1, 31)]
        self.snapshots = list(self.old)

    def back_up(self, order: dict[str, Any]) -> None:
        """Make one more snapshot, then delete those that the order does not keep."""
        if order["snapshot_mode"] == "none" or (order["large_rotating_files"] and not order["snapshot_mode"]):
            self.snapshots = []
            return
        self.now += timedelta(seconds=1)
        self.snapshots.append(Snapshot(f"quick-{len(self.snapshots)}", self.now))
        rules = retention.parse(order["retention"])
        decisions = retention.decide(self.snapshots, rules, now=self.now, zone=UTC)
        self.snapshots = [decision.snapshot for decision in decisions if decision.kept]

    def holds_history(self) -> bool:
        return set(self.old) <= set(self.snapshots)


@pytest.fixture
def disk(cast: HttpCast) -> Disk:
    """The disk of a storage that has thirty days of the source ``etc``."""
    cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", "retention": LONG}})
    return Disk()


def test_m4_a_hundred_quick_backups_with_every_hostile_setting_lose_no_snapshot(cast: HttpCast, disk: Disk) -> None:
    for number in range(100):
        hostile = HOSTILE[number % len(HOSTILE)]
        cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", **hostile}})
        disk.back_up(cast.bob.due(cast.alice.uuid)["etc"])
        assert disk.holds_history(), hostile


def test_m4_the_operators_floor_outlasts_the_delay(cast: HttpCast, disk: Disk) -> None:
    cast.operator("Policy.objects.create(machine=alice, retention_floor='last 30 days', delay_hours=0)")
    for _ in range(3):
        cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", "retention": "last 1 snapshots"}})
        order = cast.bob.due(cast.alice.uuid)["etc"]
        assert order["retention_floor"] == LONG
        disk.back_up(order)
    assert disk.holds_history()


def test_m4_a_mode_without_history_is_replaced_where_the_operator_allows_none(cast: HttpCast) -> None:
    cast.operator("Policy.objects.create(machine=alice, allowed_snapshot_modes=['link-dest'], delay_hours=0)")
    for hostile in ({"snapshot_mode": "none"}, {"large_rotating_files": True}, {"large_modifying_files": True}):
        cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", **hostile}})
        assert cast.bob.due(cast.alice.uuid)["etc"]["snapshot_mode"] == "link-dest", hostile


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
def test_m5_each_weakening_change_is_on_the_audit_log_and_history_stays(
    cast: HttpCast, disk: Disk, hostile: dict[str, Any]
) -> None:
    before = len(cast.source_rows())
    cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", "retention": LONG, **hostile}})
    entry = cast.audit("source.changed")[-1]
    assert (entry["subject"], entry["address"]) == ("etc", "127.0.0.1")
    assert entry["weakens"]
    disk.back_up(cast.bob.due(cast.alice.uuid)["etc"])
    assert disk.holds_history()
    assert len(cast.source_rows()) == before


@pytest.mark.parametrize(
    "hostile",
    [{"path": "/var/empty"}, {"exclude": ["*"]}, {"filter": ["- *"]}, {"frequency": "cron * * * * *"}],
    ids=str,
)
def test_m5_worthless_snapshots_do_not_push_out_a_number_of_good_ones(
    cast: HttpCast, disk: Disk, hostile: dict[str, Any]
) -> None:
    counted = {"retention": "last 30 snapshots"}
    cast.operator(
        "SourceChange.objects.filter(source__machine=alice).delete(); alice.sources.update(retention='last 30 snapshots')"
    )
    cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", **counted, **hostile}})
    for _ in range(40):
        disk.back_up(cast.bob.due(cast.alice.uuid)["etc"])
    assert disk.holds_history()


def test_m5_a_removed_or_renamed_source_stays_with_its_history(cast: HttpCast) -> None:
    cast.alice.update_config({"renamed": {"path": "/etc"}})
    assert [row["name"] for row in cast.source_rows()] == ["etc", "home", "renamed"]
    assert set(cast.alice.restorable()) == {"etc", "home", "renamed"}
    gone = cast.audit("source.no_longer_declared")
    assert {(entry["subject"], entry["weakens"]) for entry in gone} == {("etc", 1), ("home", 1)}
    assert set(cast.bob.due(cast.alice.uuid)) == {"renamed"}, "a source that is not backed up loses no snapshot either"


def test_m5_a_machine_that_withdraws_itself_is_noted(cast: HttpCast) -> None:
    cast.alice.update_config(SOURCES, published=False)
    assert [entry["weakens"] for entry in cast.audit("machine.changed")] == [1]
    assert len(cast.source_rows()) == 2


def test_m5_the_log_of_it_cannot_be_flooded_away(cast: HttpCast) -> None:
    statuses = []
    for number in range(3):
        sources = {f"s{each}": {"path": "/x", "comment": str(number)} for each in range(600)}
        statuses.append(status_of(lambda sources=sources: cast.alice.update_config(sources)))
    assert statuses == [200, 200, 429]
    assert cast.bob.due(cast.alice.uuid), "and backups go on"
