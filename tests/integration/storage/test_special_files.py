"""FIFOs and sockets are kept. Devices are kept where the operator chose so, and are counted in the run otherwise."""

import os
import socket
import stat
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.killed import as_user

NOBODY = 65534
LEFT_OUT = "2 device files are left out: this storage makes none (keep_devices, which takes root)"


def fill(directory: Path) -> None:
    (directory / "file").write_text("first")
    os.mkfifo(directory / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
    try:
        os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(directory / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    except PermissionError:
        pytest.skip("only root can make device nodes")


def kinds(machine: BackedUpMachine) -> dict[str, int]:
    tree = machine.newest_tree()
    return {entry.name: stat.S_IFMT(entry.lstat().st_mode) for entry in tree.iterdir() if entry.name != "file"}


@pytest.mark.root
@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_devices_that_are_not_kept_are_counted_in_every_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    with backed_up_machine(tmp_path, keep_devices=False, snapshot_mode=mode) as machine:
        fill(machine.source_dir)
        first = machine.back_up()
        unchanged = machine.back_up()
        (machine.source_dir / "file").write_text("another content")
        changed = machine.back_up()
        for outcome in (first, unchanged, changed):
            assert outcome.success
            assert outcome.summary.splitlines()[-1] == LEFT_OUT
        assert kinds(machine) == {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}
        if mode == "link-dest":
            assert (unchanged.strategy, changed.strategy) == ("unchanged", "incremental")
    assert [record.getMessage() for record in caplog.records if "left out" in record.getMessage()] == [
        f"etc: {LEFT_OUT}"
    ] * 3


@pytest.mark.root
def test_a_device_that_is_kept_is_no_matter(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path, keep_devices=True) as machine:
        fill(machine.source_dir)
        assert "left out" not in machine.back_up().summary
        assert kinds(machine) == {
            **{"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK},
            **{"null": stat.S_IFCHR, "loop": stat.S_IFBLK},
        }


@pytest.mark.root
def test_attributes_keep_devices_without_making_any(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path, keep_devices=False, fake_super=True) as machine:
        fill(machine.source_dir)
        assert "left out" not in machine.back_up().summary
        assert set(kinds(machine).values()) == {stat.S_IFREG}
        assert set(kinds(machine)) == {"fifo", "socket", "null", "loop"}


@pytest.mark.root
def test_a_storage_without_root_and_attributes_counts_them_too() -> None:
    # Not in pytest's own directory: it is closed to other users each time that any pytest starts.
    with (
        tempfile.TemporaryDirectory(prefix="turku-") as directory,
        backed_up_machine(Path(directory), keep_devices=True, fake_super=False) as machine,
    ):
        Path(directory).chmod(0o755)
        fill(machine.source_dir)
        for entry in machine.source_dir.iterdir():
            os.chown(entry, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(machine.source_dir, NOBODY, NOBODY)
        os.chown(machine.machine_dir, NOBODY, NOBODY)
        # Python loads some of its own modules at their first use, and the other user may not be able to read them.
        datetime.strptime("2026", "%Y")

        def run() -> None:
            outcome = machine.back_up()
            assert outcome.success, outcome.summary
            assert outcome.summary.splitlines()[-1] == LEFT_OUT

        as_user(NOBODY, NOBODY, run)
        [name] = machine.snapshots()
        tree = machine.place.tree(name)
        assert {entry.name for entry in tree.iterdir()} == {"file", "fifo", "socket"}
