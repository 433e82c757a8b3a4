"""``auto``: the mode that the volume's file system has and the source needs, and the refusals of the others."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.support.backed_up_machine import backed_up_machine, order, storage_configuration

from turku.storage.backup.job import mode_name


def choose(volume: Path, *, has_large_files: bool, allowed: Sequence[str] = ()) -> str:
    """Return the mode that ``auto`` stands for on the volume."""
    asked = order(large_modifying_files=has_large_files, allowed_snapshot_modes=list(allowed), snapshot_mode="auto")
    with tempfile.TemporaryDirectory() as directory:
        return mode_name(asked, storage_configuration(Path(directory)).receiving, volume)


@pytest.mark.parametrize(
    ("kind", "expected", "expected_for_large_files"),
    [("btrfs", "btrfs", "btrfs"), ("xfs", "link-dest", "reflink"), ("ext4", "link-dest", "none")],
)
def test_auto_goes_by_file_system_and_by_what_the_source_does(
    loop_volumes: Callable[[str], Path], tmp_path: Path, kind: str, expected: str, expected_for_large_files: str
) -> None:
    volume = Path(tempfile.mkdtemp(dir=loop_volumes(kind)))
    assert choose(volume, has_large_files=False) == expected
    assert choose(volume, has_large_files=True) == expected_for_large_files
    with backed_up_machine(tmp_path, volume=volume / "machines", snapshot_mode="auto") as machine:
        (machine.source_dir / "database").write_bytes(b"content" * 10_000)
        for _ in range(2):
            assert machine.back_up(large_modifying_files=True).success
        assert len(machine.snapshots()) == (0 if expected_for_large_files == "none" else 2)


def test_auto_takes_what_the_operator_allows(loop_volumes: Callable[[str], Path]) -> None:
    volume = loop_volumes("xfs")
    assert choose(volume, has_large_files=True, allowed=["link-dest"]) == "link-dest"
    assert choose(volume, has_large_files=True, allowed=["auto", "link-dest"]) == "reflink"
    assert choose(loop_volumes("ext4"), has_large_files=True, allowed=["auto", "link-dest"]) == "link-dest"


@pytest.mark.parametrize(("mode", "kind"), [("btrfs", "xfs"), ("btrfs", "ext4"), ("reflink", "ext4")])
def test_a_file_system_that_cannot_is_named_and_nothing_is_changed(
    loop_volumes: Callable[[str], Path], tmp_path: Path, mode: str, kind: str
) -> None:
    volume = Path(tempfile.mkdtemp(dir=loop_volumes(kind)))
    with backed_up_machine(tmp_path, volume=volume / "machines", snapshot_mode=mode) as machine:
        outcome = machine.back_up()
        assert not outcome.success
        assert f"snapshot_mode: {mode}" in outcome.summary
        assert "'auto'" in outcome.summary
        assert not machine.place.snapshots_dir.exists()


def test_a_source_without_history_gets_one_without_being_sent_again(
    loop_volumes: Callable[[str], Path], tmp_path: Path
) -> None:
    for mode, kind in (("btrfs", "btrfs"), ("reflink", "xfs"), ("reflink", "btrfs")):
        volume = Path(tempfile.mkdtemp(dir=loop_volumes(kind)))
        with backed_up_machine(tmp_path / mode / kind, volume=volume / "machines", snapshot_mode=mode) as machine:
            (machine.source_dir / "database").write_bytes(b"content" * 10_000)
            assert machine.back_up(snapshot_mode="none").success
            outcome = machine.back_up()
            assert "Literal data: 0 bytes" in outcome.summary
            assert machine.differences(machine.newest_tree()) == []
