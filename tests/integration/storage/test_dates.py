"""Files of any date that a file system holds are backed up, catalogued, listed and told exactly, and nothing hangs."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.loop_volume import loop_volume
from tests.support.random_history import state

from turku.core.cli import listing
from turku.protocol import codec
from turku.protocol.restore_messages import FileRow, time_ns
from turku.storage import catalog
from turku.storage.fs import timestamp_range
from turku.storage.restore import history_rows

SECONDS = {
    # From 1901 to 2446, where an inode has 256 bytes.
    "ext4": (-(2**31), -1, 2**31, 9_300_000_000, 15_032_385_535),
    "tmpfs": (-(2**55), -(2**33), -9_300_000_000, 9_300_000_000, 2**33, 2**40, 2**55),
}


@pytest.fixture(params=sorted(SECONDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def volume(kind: str) -> Iterator[Path]:
    with ExitStack() as stack:
        if kind == "ext4":
            yield stack.enter_context(loop_volume("ext4"))
            return
        memory = Path("/dev/shm")
        if not memory.is_dir():
            pytest.skip("no tmpfs here")
        directory = Path(tempfile.mkdtemp(dir=memory))
        stack.callback(shutil.rmtree, directory)
        yield directory


@pytest.fixture
def machine(volume: Path, kind: str) -> Iterator[BackedUpMachine]:
    with backed_up_machine(volume / "all") as machine:
        for number, second in enumerate(SECONDS[kind]):
            for path in (machine.source_dir / f"file {number}", machine.source_dir / f"directory {number}"):
                if path.name.startswith("file"):
                    path.write_text(str(number))
                else:
                    path.mkdir()
                os.utime(path, ns=(second * 10**9, second * 10**9 + 987_654_321))
            link = machine.source_dir / f"link {number}"
            link.symlink_to("nowhere")
            os.utime(link, ns=(0, second * 10**9 + 5), follow_symlinks=False)
        yield machine


def assert_exact(machine: BackedUpMachine, snapshot: str) -> None:
    tree = machine.place.tree(snapshot)
    expected = {path: content[5] for path, content in state(tree).items()}
    assert expected == {path: content[5] for path, content in state(machine.source_dir).items()}
    with catalog.open_catalog(machine.place, zone=UTC) as opened:
        found = {entry.path: entry for entry in opened.files(snapshot)}
        assert {path: entry.mtime_ns for path, entry in found.items()} == expected
        for path, entry in found.items():
            row = codec.decode(codec.encode(history_rows.file_row(entry)), FileRow)
            assert time_ns(row.modified) == expected[path]
            assert listing.moment(time_ns(row.modified), UTC)


def test_every_date_is_kept_exactly(machine: BackedUpMachine) -> None:
    assert machine.back_up().success
    assert_exact(machine, machine.snapshots()[-1])
    unchanged = machine.back_up()
    assert unchanged.success
    assert_exact(machine, machine.snapshots()[-1])
    (machine.source_dir / "file 0").write_text("another")
    os.utime(machine.source_dir / "file 1", ns=(0, 10_000_000_000_000_000_001))
    assert machine.back_up().success
    assert_exact(machine, machine.snapshots()[-1])
    with catalog.open_catalog(machine.place, zone=UTC) as opened:
        first, _unchanged, last = machine.snapshots()
        assert [each.path for each in opened.diff(first, last)] == [b"file 0", b"file 1"]


@pytest.fixture
def machine_on_tmpfs() -> Iterator[BackedUpMachine]:
    """One that has dates which its storage's volume cannot keep."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("no tmpfs here, which keeps every date")
    with (
        tempfile.TemporaryDirectory(dir=memory) as text,
        loop_volume("ext4") as volume,
        backed_up_machine(Path(text), volume=volume) as machine,
    ):
        yield machine


def test_dates_that_the_volume_cannot_keep_are_reported(machine_on_tmpfs: BackedUpMachine) -> None:
    machine, source = machine_on_tmpfs, machine_on_tmpfs.source_dir
    for name, second in (("plain", 0), ("last\n", 2**40), ("old", -(2**33)), ("older", -(2**40))):
        (source / name).write_text(name)
        os.utime(source / name, ns=(second * 10**9, second * 10**9))
    (source / "sub").mkdir()
    os.utime(source / "sub", ns=(0, -(2**33) * 10**9))
    outcome = machine.back_up()
    assert outcome.success
    (warning,) = outcome.warnings
    assert warning.startswith("last\\n, old, older and 1 more have the first or the last date that this volume's file ")
    assert warning in outcome.summary
    (source / "new").write_text("new")
    # rsync takes them for changed each time.
    assert machine.back_up().warnings == (warning,)
    for name in ("last\n", "old", "older"):
        (source / name).unlink()
    os.utime(source / "sub", ns=(0, 0))
    for _ in range(2):
        assert machine.back_up().warnings == ()


def test_nothing_is_reported_where_every_date_is_kept(machine: BackedUpMachine, kind: str) -> None:
    if kind == "ext4":
        pytest.skip("its first and last dates are those of the source")
    assert machine.back_up().warnings == ()


def test_a_file_system_that_refuses_far_dates_has_no_limit_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "utime", refuse)
    assert timestamp_range.date_range(tmp_path) == timestamp_range.DateRange()
