"""A restore that is killed, whoever it is that is killed: nothing half written has its final name, and the same command
again completes it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.processes import command_lines, parent_of
from tests.support.trees import differences

from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage

OURS = ".turku-restore-*"
LARGE_BYTES = 2_000_000


@pytest.fixture(scope="module")
def slow(fleet: Fleet) -> PrivateStorage:
    """A storage whose rsync takes its time, so that there is a moment to kill it."""
    return fleet.storage("slow", rsync_command=["rsync", "--bwlimit=1500"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interrupted") / "home"
    (root / "directory").mkdir(parents=True)
    for letter in "az":
        for number in range(15):
            (root / f"{letter}{number:02}").write_bytes(os.urandom(40_000))
    (root / "large").write_bytes(os.urandom(LARGE_BYTES))
    (root / "directory" / "leaf").write_bytes(b"leaf")
    return root


@pytest.fixture(scope="module")
def machine(fleet: Fleet, slow: PrivateStorage, tree: Path) -> PrivateMachine:
    machine = fleet.machine("interrupted", {"home": {"path": str(tree)}}, storage=slow)
    machine.ping()
    return machine


def processes() -> Iterator[tuple[int, list[bytes]]]:
    for process, line in command_lines().items():
        yield process, line.split(b"\0")


def is_below(process: int, ancestor: Callable[[list[bytes]], bool]) -> bool:
    """Return True if one of the processes that led to this one is such a one."""
    try:
        while process > 1:
            process = parent_of(process)
            if ancestor(Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")):
                return True
    except OSError:
        pass
    return False


def those(machine: PrivateMachine, who: str) -> list[int]:
    """Of this machine's restore alone: other tests may be restoring at the same time."""
    state, config, uuid = (each.encode() for each in (str(machine.var_dir), str(machine.config_dir), machine.uuid))
    is_one: dict[str, Callable[[list[bytes]], bool]] = {
        "agent": lambda words: any(word.endswith(b"/turku-agent") for word in words[:2]) and config in words,
        "rsyncd": lambda words: b"--daemon" in words and any(state in word for word in words),
        "ssh": lambda words: words[0].endswith(b"ssh") and any(state in word for word in words),
        "storage": lambda words: any(word.endswith(b"/turku-storage-ping") for word in words[:2]) and uuid in words,
        "rsync": lambda words: (
            os.path.basename(words[0]) == b"rsync" and any(b"/turku-restore/" in word for word in words)
        ),
    }
    found = [process for process, words in processes() if is_one[who](words)]
    return [each for each in found if is_below(each, is_one["storage"])] if who == "rsync" else found


def large_is_under_way(target: Path) -> bool:
    return any(
        100_000 < path.stat().st_size < LARGE_BYTES for path in target.glob(f"{OURS}/tree/.turku-restore-*/*large.*")
    )


def some_are_there(target: Path) -> bool:
    return len(list(target.glob(f"{OURS}/tree/a*"))) >= 3


def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        ("agent", large_is_under_way),
        ("agent", some_are_there),
        ("rsyncd", large_is_under_way),
        ("ssh", large_is_under_way),
        ("storage", some_are_there),
        ("rsync", large_is_under_way),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_next_run_completes_it_whichever_process_is_killed(
    machine: PrivateMachine, tree: Path, tmp_path: Path, victim: str, moment: Callable[[Path], bool]
) -> None:
    target = tmp_path / "restored"
    words = ("restore", "--config-dir", str(machine.config_dir), "home", "--to", str(target))
    argv = [str(programs.DIRECTORY / "turku-agent"), *words]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: moment(target) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        killed = those(machine, victim)
        assert killed
        for pid in killed:
            # One may end with the other.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if victim == "agent" else 3), said
    if victim != "agent":
        assert "goes on where this one ended" in said
    wait_for(lambda: not any(those(machine, who) for who in ("agent", "rsyncd", "ssh", "storage", "rsync")))

    [ours] = target.glob(OURS)
    assert victim != "agent" or list(target.iterdir()) == [ours], "a killed restore leaves its directory alone"
    kept = [path for path in (*target.iterdir(), *(ours / "tree").iterdir()) if path.is_file()]
    assert kept
    assert [path.name for path in kept if path.read_bytes() != (tree / path.name).read_bytes()] == []

    # Nobody is asked: the target has the files of the first run.
    again = programs.run("turku-agent", *words)
    assert differences(tree, target) == []
    assert f"{len(kept):,} files" not in again.stdout.decode()
    assert "32 verified" in again.stdout.decode()
