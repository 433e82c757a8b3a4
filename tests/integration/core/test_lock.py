"""Locks between processes: held by the kernel, gone with their holder."""

import os
import signal
import stat
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from turku.core import command, lock
from turku.errors import DurableWriteFailed, LockHeld

_HOLDER = """
import time
from pathlib import Path
from turku.core import lock
with lock.exclusive(Path("lock"), "ping"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(directory: Path) -> AbstractContextManager[command.Child]:
    return command.start(
        [sys.executable, "-c", _HOLDER],
        stdout=True,
        working_directory=directory,
        extra_environment={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_second_process_is_refused_at_once_with_the_path(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        assert child.stdout.readline() == b"held\n"
        began = time.monotonic()
        with pytest.raises(LockHeld, match="another run holds") as refused, lock.exclusive(tmp_path / "lock", "ping"):
            pass
        assert str(tmp_path / "lock" / "ping.lock") in refused.value.message
        assert time.monotonic() - began < 10
        with lock.exclusive(tmp_path / "lock", "update-config"):
            pass


def test_a_killed_holder_leaves_no_stale_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        assert child.stdout.readline() == b"held\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        with lock.exclusive(tmp_path / "lock", "ping"):
            pass


def test_a_lock_is_released_with_its_block_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock.exclusive(tmp_path, "ping"):
        raise ZeroDivisionError
    with lock.exclusive(tmp_path, "ping"), pytest.raises(LockHeld), lock.exclusive(tmp_path, "ping"):
        pass


def test_a_child_does_not_keep_the_lock_of_its_owner(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path, "ping"):
        started = command.start(["sleep", "60"])
        started.__enter__()
    try:
        with lock.exclusive(tmp_path, "ping"):
            pass
    finally:
        started.__exit__(None, None, None)


def test_lock_files_are_private(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path / "a" / "lock", "ping"):
        assert stat.S_IMODE((tmp_path / "a" / "lock").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "a" / "lock" / "ping.lock").stat().st_mode) == 0o600


def test_a_planted_link_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    (tmp_path / "ping.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(DurableWriteFailed, match="cannot open the lock"), lock.exclusive(tmp_path, "ping"):
        pass
    assert not (tmp_path / "victim").exists()


def test_a_lock_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("")
    with pytest.raises(DurableWriteFailed), lock.exclusive(tmp_path / "lock", "ping"):
        pass


def test_the_first_free_lock_of_several_is_held(tmp_path: Path) -> None:
    with (
        lock.one_of(tmp_path, ["a", "b"]),
        lock.one_of(tmp_path, ["a", "b"]),
        pytest.raises(LockHeld, match="each of these"),
        lock.one_of(tmp_path, ["a", "b"]),
    ):
        raise AssertionError
    with lock.one_of(tmp_path, ["a"]):
        pass


def test_a_directory_itself_can_be_a_lock(tmp_path: Path) -> None:
    with (
        lock.exclusive_directory(tmp_path),
        pytest.raises(LockHeld, match=str(tmp_path)),
        lock.exclusive_directory(tmp_path),
    ):
        raise AssertionError
