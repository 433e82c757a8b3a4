"""The remarks of a storage on a snapshot before it is restored: quarantined, empty, or of a wrong clock."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.collected_answers import CollectedAnswers
from tests.support.landed_restore import TEMPORARY_NAME

from turku.browse import output
from turku.protocol.restore_messages import BrowseEnd, BrowseRequest, FileRestoreRequest, RestorePlan, SnapshotChoice
from turku.storage.disk import snapshot_notes
from turku.storage.disk.incompleteness import Incompleteness, LostEntry
from turku.storage.disk.snapshot_notes import Review
from turku.storage.restore import browse
from turku.storage.restore import plan as restore_plan
from turku.storage.restore.access_grants import AccessGrant, AccessRequest
from turku.storage.restore.history_view import HistoryView

OWN = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
LATEST = SnapshotChoice()
FINDING = "98 % of the files were rewritten"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume", sandbox="off") as machine:
        machine.days(2)
        yield machine


def view(machine: BackedUpMachine, *paths: bytes) -> HistoryView:
    grant = AccessGrant(OWN, "etc", AccessRequest(OWN, "restore", "etc", None, None), frozenset(paths), None, None)
    return HistoryView(machine.storage, grant, clock=machine.clock)


def plan(machine: BackedUpMachine, choice: SnapshotChoice = LATEST, *paths: str) -> RestorePlan:
    request = FileRestoreRequest("etc", TEMPORARY_NAME, choice, list(paths))
    with restore_plan.prepared(machine.storage, view(machine), request) as (_prepared, answer):
        return answer


def test_of_an_ordinary_snapshot_nothing_is_said(machine: BackedUpMachine) -> None:
    assert plan(machine).remarks == []


def test_a_quarantined_snapshot_is_never_the_latest_without_a_remark(machine: BackedUpMachine) -> None:
    first, second = machine.snapshots()
    snapshot_notes.change(machine.place, second, findings=(FINDING,))
    [remark] = plan(machine).remarks
    assert remark == (
        f"{second} is quarantined, and nobody has reviewed it: {FINDING}; the last good one before it is {first}"
    )
    assert plan(machine, SnapshotChoice(first)).remarks == []
    snapshot_notes.change(machine.place, second, review=Review.REJECTED)
    assert "was rejected" in plan(machine).remarks[0]
    snapshot_notes.change(machine.place, second, review=Review.ACCEPTED)
    assert plan(machine).remarks == []


def test_an_empty_snapshot_says_so(machine: BackedUpMachine) -> None:
    (machine.source_dir / "diary").unlink()
    assert machine.back_up().success
    remarks = plan(machine).remarks
    assert f"there is no file in {machine.snapshots()[-1]}" in remarks


def test_snapshots_of_a_wrong_clock_are_remarked(machine: BackedUpMachine) -> None:
    now = machine.clock.moment
    machine.clock.moment = now + timedelta(days=3650)
    (machine.source_dir / "diary").write_text("of a wrong clock")
    ahead = machine.back_up().snapshot
    machine.clock.moment = now + timedelta(hours=1)
    planned = plan(machine)
    assert planned.snapshot != ahead
    [remark] = planned.remarks
    assert str(ahead) in remark
    assert "the date of" in plan(machine, SnapshotChoice(ahead)).remarks[0]


def test_browsing_the_latest_shows_the_remark_too(machine: BackedUpMachine) -> None:
    snapshot_notes.change(machine.place, machine.snapshots()[-1], findings=(FINDING,))
    collected = CollectedAnswers()
    browse.show(view(machine), BrowseRequest(listing="ls", sources=["etc"]), collected.answers)
    end = collected.read()[-1]
    assert isinstance(end, BrowseEnd)
    assert FINDING in end.remarks[0]


def test_findings_are_not_shown_to_a_machine_that_may_see_some_paths_alone(machine: BackedUpMachine) -> None:
    snapshot_notes.change(machine.place, machine.snapshots()[-1], findings=("differs: secret/name",))
    kept = view(machine, b"diary").choose(SnapshotChoice())
    [remark] = kept.remarks
    assert "quarantined" in remark
    assert "secret" not in remark


def test_a_snapshot_that_lacks_files_says_so(machine: BackedUpMachine) -> None:
    snapshot_notes.change(
        machine.place,
        machine.snapshots()[-1],
        incomplete=Incompleteness(
            missing_files=2,
            stale_files=1,
            entries=(LostEntry("secret", "no"), LostEntry("diary", "no", 1, "2026-01-01")),
        ),
    )
    *_, newest = view(machine).snapshots()
    assert newest.unread_files == 3
    assert output._snapshot_cells(newest)[-1] == "incomplete"
    assert view(machine).choose(LATEST).remarks == (
        f"{newest.name} is incomplete: 2 files could not be read and are not in it, 1 are as they were before: secret, "
        "diary",
    )


def test_a_machine_that_may_see_some_paths_hears_of_no_other(machine: BackedUpMachine) -> None:
    lost = Incompleteness(missing_files=1, entries=(LostEntry("secret", "no"),))
    snapshot_notes.change(machine.place, machine.snapshots()[-1], incomplete=lost)
    assert view(machine, b"diary").choose(LATEST).remarks == ()
    assert [row.unread_files for row in view(machine, b"diary").snapshots()] == [0, 0]
