"""FIFOs and sockets are kept. Devices are kept where the operator chose so, and are counted in the run otherwise."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

LEFT_OUT = "2 device files are left out: this storage keeps none (keep_devices)"


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
