"""Files of the same size and time, and of another content: found by comparing with the machine, through its daemon."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core.configuration.declaration import with_values
from turku.core.secret import Secret
from turku.storage import catalog
from turku.storage.disk import history, snapshot_notes
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import damage, scrub, source_comparison
from turku.storage.integrity.scrub import ScrubShare
from turku.storage.integrity.source_comparison import ComparisonResult
from turku.storage.rsync.request import RsyncDaemon

pytestmark = pytest.mark.storage_rsync


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        for number in range(20):
            (machine.source_dir / f"file\n{number}").write_bytes(os.urandom(5000))
        machine.days(2)
        yield machine


def alter(path: Path) -> None:
    """As somebody does who sets the time back."""
    status = path.stat()
    path.write_bytes(os.urandom(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def daemon(machine: BackedUpMachine) -> RsyncDaemon:
    return RsyncDaemon(machine.daemon.port, machine.source, machine.daemon.username, Secret(machine.daemon.password))


def compare(machine: BackedUpMachine, share: float = 100.0) -> ComparisonResult:
    return source_comparison.compare(
        machine.storage, machine.place, daemon(machine), machine.snapshots()[-1], share=share
    )


def test_nothing_differs_where_nothing_was_altered(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file\n3").write_bytes(b"changed since, and honestly")
    compared = compare(machine)
    assert (compared.files, compared.altered) == (20, ())


def test_an_altered_file_of_the_same_size_and_time_is_found(machine: BackedUpMachine) -> None:
    alter(machine.source_dir / "file\n7")
    machine.back_up()
    assert compare(machine).altered == (b"file\n7",)
    assert not list(machine.machine_dir.glob(".comparing-*"))


def test_a_kept_file_that_is_damaged_is_not_the_machines_fault(machine: BackedUpMachine) -> None:
    scrub.verify(machine.place, zone=machine.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())
    alter(machine.place.tree(machine.snapshots()[-1]) / "file\n7")
    assert compare(machine).altered == ()


def test_a_sample_is_a_sample(machine: BackedUpMachine) -> None:
    assert 0 < sum(compare(machine, 50).files for _ in range(3)) < 60


def test_it_is_made_after_a_backup_when_asked_for_and_quarantines_it(machine: BackedUpMachine) -> None:
    alter(machine.source_dir / "file\n7")
    snapshot = machine.back_up().snapshot
    assert snapshot is not None
    assert source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot) == ()
    source_comparison.request(machine.storage.state, machine.place)
    [finding] = source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot)
    assert "1 of 21 files differ" in finding
    assert snapshot_notes.read(machine.place, snapshot).findings == (finding,)
    assert history.awaiting_review(machine.place, machine.storage.state.timezone)
    assert source_comparison.percent(machine.storage, machine.place) == 0, "asked for once, it is made once"
    always = with_values(machine.storage, compare_with_source_percent=5.0)
    assert source_comparison.percent(always, machine.place) == 5.0


def found_altered(machine: BackedUpMachine, path: str) -> None:
    """The file is altered, and a comparison after the backup notices it."""
    alter(machine.source_dir / path)
    snapshot = machine.back_up().snapshot
    assert snapshot is not None
    source_comparison.request(machine.storage.state, machine.place)
    assert source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot)


@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_a_difference_found_by_comparison_is_transferred_by_the_next_backup(
    machine: BackedUpMachine, mode: str
) -> None:
    found_altered(machine, "file\n7")
    wanted = (machine.source_dir / "file\n7").read_bytes()
    before = machine.place.tree(machine.snapshots()[-1])
    assert (before / "file\n7").read_bytes() != wanted
    outcome = machine.back_up(snapshot_mode=mode)
    assert outcome.success, outcome.summary
    tree = machine.place.working_tree if mode == "none" else machine.place.tree(machine.snapshots()[-1])
    assert (tree / "file\n7").read_bytes() == wanted
    if mode != "none":
        assert outcome.strategy == "incremental"
        assert (before / "file\n7").read_bytes() != wanted, "an earlier snapshot stays what it is"
        assert machine.back_up().strategy == "unchanged", "it is transferred once"


def test_a_backup_that_fails_leaves_it_to_the_next_one(machine: BackedUpMachine) -> None:
    found_altered(machine, "file\n7")
    assert not machine.with_rsync("sh", "-c", "exit 12", "rsync").back_up().success
    machine.back_up()
    assert (machine.place.tree(machine.snapshots()[-1]) / "file\n7").read_bytes() == (
        machine.source_dir / "file\n7"
    ).read_bytes()


def test_a_file_transferred_for_that_is_another_version_in_the_catalog(machine: BackedUpMachine) -> None:
    found_altered(machine, "file\n7")
    machine.back_up()
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
        versions = opened.history(b"file\n7")
        assert len(versions) == 2
        assert len({each.checksum for each in versions}) == 2


@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_a_source_whose_contents_are_compared_always_has_what_the_machine_has(
    machine: BackedUpMachine, mode: str
) -> None:
    machine.back_up(snapshot_mode=mode)
    alter(machine.source_dir / "file\n7")
    machine.back_up(snapshot_mode=mode)
    tree = machine.place.working_tree if mode == "none" else machine.place.tree(machine.snapshots()[-1])
    wanted = (machine.source_dir / "file\n7").read_bytes()
    assert (tree / "file\n7").read_bytes() != wanted
    outcome = machine.back_up(snapshot_mode=mode, compare_contents=True)
    assert outcome.success, outcome.summary
    tree = machine.place.working_tree if mode == "none" else machine.place.tree(machine.snapshots()[-1])
    assert (tree / "file\n7").read_bytes() == wanted
    if mode != "none":
        assert outcome.strategy == "incremental"
        assert machine.back_up(snapshot_mode=mode, compare_contents=True).strategy == "unchanged"


def with_two_names(machine: BackedUpMachine) -> Path:
    """A file of two names, backed up as such and then altered."""
    path = machine.source_dir / "file\n7"
    os.link(path, machine.source_dir / "another name")
    machine.back_up(preserve_hard_links=True)
    alter(path)
    return path


def test_with_hard_links_too_contents_are_compared(machine: BackedUpMachine) -> None:
    with_two_names(machine)
    outcome = machine.back_up(preserve_hard_links=True, compare_contents=True)
    assert outcome.success, outcome.summary
    assert machine.differences(machine.place.tree(machine.snapshots()[-1])) == []


def test_a_difference_found_at_one_name_is_transferred_for_all_names(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_two_names(machine)
    snapshot = machine.back_up(preserve_hard_links=True).snapshot
    assert snapshot is not None
    drawn = source_comparison._sample
    monkeypatch.setattr(
        source_comparison,
        "_sample",
        lambda *arguments: [each for each in drawn(*arguments) if each.path == os.fsencode(path.name)],
    )
    source_comparison.request(machine.storage.state, machine.place)
    assert source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot)
    assert damage.altered(machine.place) == {b"file\n7", b"another name"}
    outcome = machine.back_up(preserve_hard_links=True)
    assert outcome.success, outcome.summary
    assert machine.differences(machine.place.tree(machine.snapshots()[-1])) == []


def test_only_files_that_were_compared_are_counted(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file\n7").unlink()
    (machine.source_dir / "file\n3").unlink()
    compared = compare(machine)
    assert (compared.files, compared.size_bytes) == (18, 18 * 5000)
