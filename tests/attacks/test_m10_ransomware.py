"""M10: everything rewritten, renamed, deleted: the snapshot is quarantined, and retention of its source freezes.

Its way to the audit log is in tests/unit/api/test_quarantined_reports.py. These are the storage's acts.
"""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine, backed_up_machine, fingerprint

from turku.core.configuration.declaration import with_values
from turku.policy.anomaly import AnomalyThresholds
from turku.storage.config.model import AnomalyConfig
from turku.storage.disk import history, snapshot_notes, trash

pytestmark = pytest.mark.storage_rsync

FILES = 40
RULES = "last 2 days"


def make_files(root: Path) -> None:
    for number in range(FILES):
        directory = root / f"directory{number % 4}"
        directory.mkdir(exist_ok=True)
        (directory / f"file{number}.txt").write_bytes(os.urandom(3000))


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.txt") if path.is_file())


def rewrite(root: Path, count: int = FILES) -> None:
    for path in files_of(root)[:count]:
        path.write_bytes(os.urandom(3001))


def rename(root: Path) -> None:
    """As ransomware does with what it encrypted."""
    for path in files_of(root)[: FILES // 3]:
        path.write_bytes(os.urandom(3000))
        path.rename(path.with_name(f"{path.name}.locked"))


def delete(root: Path) -> None:
    for path in files_of(root)[: FILES * 6 // 10]:
        path.unlink()


def empty(root: Path) -> None:
    for path in files_of(root):
        path.unlink()


def truncate(root: Path) -> None:
    for path in files_of(root):
        path.write_bytes(b"")


def replace_by_random_names(root: Path) -> None:
    for number, path in enumerate(files_of(root)):
        path.unlink()
        (root / f"{number:x}{os.urandom(8).hex()}").write_bytes(os.urandom(3000))


ATTACKS: dict[str, Callable[[Path], None]] = {
    "60 % rewritten": lambda root: rewrite(root, FILES * 6 // 10),
    "all rewritten": rewrite,
    "renamed to one suffix": rename,
    "deleted": delete,
    "empty": empty,
    "truncated": truncate,
    "random names": replace_by_random_names,
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        make_files(machine.source_dir)
        yield machine


def review_all(machine: BackedUpMachine, verdict: str) -> None:
    """Review the snapshots as the operator does with ``turku-storage quarantine``."""
    for stored in history.awaiting_review(machine.place, machine.storage.state.timezone):
        snapshot_notes.change(machine.place, stored.name, review=snapshot_notes.Review(verdict))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_quarantined_and_retention_freezes(
    machine: BackedUpMachine, attack: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    machine.days(3)
    before = {name: fingerprint(machine.place.snapshot(name)) for name in machine.snapshots()}
    attack(machine.source_dir)
    machine.clock.moment += timedelta(days=5)
    outcome = machine.back_up(retention=RULES)
    assert outcome.success
    assert outcome.findings
    assert outcome.summary.startswith("ANOMALY: ")
    assert outcome.snapshot is not None
    assert not snapshot_notes.read(machine.place, outcome.snapshot).is_good
    # Days later all of it is still there, however quiet the attacker is from then on.
    for _ in range(3):
        machine.clock.moment += timedelta(days=5)
        assert machine.back_up(retention=RULES).findings
    assert before.items() <= {name: fingerprint(machine.place.snapshot(name)) for name in machine.snapshots()}.items()
    assert "no snapshot is removed while 4 quarantined snapshots" in caplog.text


def test_a_third_of_the_files_encrypted_is_seen_by_what_they_became(machine: BackedUpMachine) -> None:
    for number, path in enumerate(files_of(machine.source_dir)):
        path.write_text(f"{number}: what people write\n" * 100)
    machine.days(3)
    for path in files_of(machine.source_dir)[: FILES // 5]:
        path.write_text(path.read_text().replace("people", "others"))
    assert machine.back_up().findings == (), "a fifth changed is a fifth changed"
    for path in files_of(machine.source_dir)[: FILES // 3]:
        path.write_bytes(os.urandom(path.stat().st_size))
    outcome = machine.back_up()
    assert any("look encrypted now" in sign for sign in outcome.findings)


def test_thresholds_of_one_source_are_the_operators_and_no_machines(machine: BackedUpMachine) -> None:
    machine.days(1)
    uuid = machine.machine_dir.name
    machine.storage = with_values(
        machine.storage,
        anomaly=AnomalyConfig(
            sources={"etc": AnomalyThresholds(enabled=False), f"{uuid}/etc": AnomalyThresholds(rewritten_share=0.9)}
        ),
    )
    rewrite(machine.source_dir, FILES * 6 // 10)
    assert machine.back_up().findings == ()
    rewrite(machine.source_dir)
    assert machine.back_up().findings


def test_a_first_backup_an_upgrade_and_touched_files_are_no_anomaly(machine: BackedUpMachine) -> None:
    assert machine.back_up().findings == ()
    rewrite(machine.source_dir, FILES // 10)
    (machine.source_dir / "new").write_text("new")
    assert machine.back_up().findings == ()
    for path in files_of(machine.source_dir):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert machine.back_up().findings == ()
    for path in files_of(machine.source_dir):
        path.chmod(0o600)
    assert machine.back_up().findings == ()
    (machine.source_dir / "directory0").rename(machine.source_dir / "moved")
    assert machine.back_up().findings == ()


def test_a_rejected_snapshot_counts_nowhere_and_the_machine_can_restore(machine: BackedUpMachine) -> None:
    good = machine.days(3)
    kept = {path.name: path.read_bytes() for path in files_of(machine.source_dir)}
    rewrite(machine.source_dir)
    bad = machine.back_up(retention="last 2 snapshots").snapshot
    review_all(machine, "rejected")
    # The attacker goes on: it is seen again, by comparison with the last good one.
    assert machine.back_up(retention="last 2 snapshots").findings
    review_all(machine, "rejected")
    for path in files_of(machine.source_dir):
        path.write_bytes(kept[path.name])
    machine.clock.moment += timedelta(days=1)
    outcome = machine.back_up(retention="last 2 snapshots")
    assert outcome.findings == ()
    # The newest and the last good one before the attack. The bad ones used up no place.
    assert {good[-1], outcome.snapshot} <= set(machine.snapshots())
    assert good[0] not in machine.snapshots()
    machine.clock.moment += timedelta(days=1)
    last = machine.back_up(retention="last 2 snapshots").snapshot
    assert machine.snapshots() == [outcome.snapshot, last]
    assert bad not in machine.snapshots()


def test_an_accepted_snapshot_is_in_the_baseline_from_then_on(machine: BackedUpMachine) -> None:
    machine.days(3)
    rewrite(machine.source_dir)
    outcome = machine.back_up(retention=RULES)
    assert outcome.findings
    review_all(machine, "accepted")
    rewrite(machine.source_dir)
    machine.clock.moment += timedelta(days=9)
    again = machine.back_up(retention=RULES)
    assert again.findings == ()
    assert machine.snapshots() == [again.snapshot]


def test_a_run_that_breaks_off_does_not_hide_its_transferred_files(machine: BackedUpMachine) -> None:
    machine.days(2)
    rewrite(machine.source_dir)
    assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    outcome = machine.back_up()
    assert outcome.success
    # Files that the first of the two transferred were not sent again.
    assert "Literal data: 0 bytes" in outcome.summary
    assert outcome.findings


def test_history_of_an_existing_storage_is_compared_with_too(machine: BackedUpMachine) -> None:
    [first] = machine.days(1)
    machine.place.record_path(first).unlink()
    rewrite(machine.source_dir)
    assert machine.back_up().findings


def test_the_trash_is_frozen_with_the_rest(machine: BackedUpMachine) -> None:
    machine.storage = with_values(machine.storage, trash_days=2)
    machine.days(5, retention="last 2 days")
    trashed = [each.name for each in trash.trashed_snapshots(machine.place)]
    assert trashed
    empty(machine.source_dir)
    machine.clock.moment += timedelta(days=30)
    assert machine.back_up(retention="last 2 days").findings
    assert [each.name for each in trash.trashed_snapshots(machine.place)] == trashed


def test_the_operator_may_set_other_thresholds_or_none(machine: BackedUpMachine) -> None:
    machine.days(1)
    machine.storage = with_values(machine.storage, anomaly=AnomalyConfig(rewritten_share=0.9))
    rewrite(machine.source_dir, FILES * 6 // 10)
    assert machine.back_up().findings == ()
    machine.storage = with_values(machine.storage, anomaly=AnomalyConfig(enabled=False))
    empty(machine.source_dir)
    assert machine.back_up().findings == ()
