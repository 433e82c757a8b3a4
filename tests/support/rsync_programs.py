"""The rsync that runs on each side: the system's, or those that --storage-rsync and --machine-rsync name.

In a configuration that a test writes, the word ``rsync`` stands for the one of its side. A script of a test starts it
as ``"$0"``: in the sandbox a bare ``rsync`` is always the system's.

    rsync_programs.of_storage({"rsync_command": ["rsync", "--bwlimit=500"]})     keys for a storage's configuration
    rsync_programs.of_machine({})                                                 keys for a machine's
    with rsync_programs.watched() as running: ...                                 notes the programs below this process
    running.assert_as_chosen()                                                    both sides ran those chosen, no others
"""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import parent_of

from turku.core import command
from turku.errors import CommandFailed
from turku.storage.rsync import version as rsync_version

_SYSTEMS = "rsync"
_POLL_SECONDS = 0.05


@dataclass
class Chosen:
    """The programs, as ``pytest_configure`` of tests/conftest.py was told."""

    storage: str = _SYSTEMS
    machine: str = _SYSTEMS

    @property
    def is_storage_old(self) -> bool:
        version = rsync_version.installed([self.storage])
        return version is not None and version.is_old


chosen = Chosen()


def add_options(parser: pytest.Parser) -> None:
    """Add the options to pytest's."""
    group = parser.getgroup("rsync", "which rsync runs on each side (default: the system's)")
    group.addoption("--storage-rsync", metavar="PATH", default=_SYSTEMS, help="what storages receive and send with")
    group.addoption("--machine-rsync", metavar="PATH", default=_SYSTEMS, help="what machines serve and receive with")


def choose(config: pytest.Config) -> None:
    """Take the programs of the options. Raises UsageError for one that is not rsync."""
    for side in ("storage", "machine"):
        program = config.getoption(f"--{side}-rsync")
        path = shutil.which(program)
        if program != _SYSTEMS and (path is None or rsync_version.installed([path]) is None):
            raise pytest.UsageError(f"--{side}-rsync: {program} is no rsync that runs here")
        # Absolute: programs start elsewhere, and the sandbox shows what has an absolute path.
        setattr(chosen, side, program if program == _SYSTEMS else str(Path(str(path)).absolute()))


def options() -> list[str]:
    """The options for a pytest that a test starts."""
    return [f"--storage-rsync={chosen.storage}", f"--machine-rsync={chosen.machine}"]


def summary() -> list[str]:
    """The versions that the tests run, for people."""
    of_ssh = "not found"
    with suppress(CommandFailed):
        # It says its version as an error.
        of_ssh = " ".join(command.run(["ssh", "-V"], timeout_seconds=10, check=False).last_lines)
    sides = _sides("storages", "machines")
    return [*(f"rsync {_version(program)} on {side} ({path_of(program)})" for side, program in sides), f"ssh {of_ssh}"]


def words(argv: Sequence[str], program: str | None = None) -> list[str]:
    """The argument list with the storage's rsync, or ``program``, for the word ``rsync``."""
    return [(program or chosen.storage) if word == _SYSTEMS else word for word in argv]


def of_storage(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a storage's configuration, with the rsync of that side in them."""
    if chosen.storage == _SYSTEMS:
        return dict(keys)
    return {
        # Old on purpose.
        **({"allow_old_rsync": True} if chosen.is_storage_old else {}),
        **keys,
        "rsync_command": words(keys.get("rsync_command", [_SYSTEMS])),
    }


def of_machine(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a machine's configuration, with the rsync of that side in them."""
    if chosen.machine == _SYSTEMS:
        return dict(keys)
    return {**keys, "rsyncd_command": words(keys.get("rsyncd_command", [_SYSTEMS]), chosen.machine)}


def is_running(process: int, program: str) -> bool:
    """Return True if the process runs that program, by the file itself."""
    return os.path.samestat(os.stat(f"/proc/{process}/exe"), os.stat(path_of(program)))


@dataclass
class Running:
    """The files of the programs that ran below this process, side by side."""

    files: dict[str, set[tuple[int, int]]] = field(default_factory=lambda: {"storage": set(), "machine": set()})

    def sample(self) -> None:
        """Take note of what runs now."""
        for entry in Path("/proc").iterdir():
            # They come and go.
            with suppress(OSError, ValueError):
                if entry.name.isdigit() and (entry / "comm").read_text() == "rsync\n" and _is_below_us(int(entry.name)):
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    status = (entry / "exe").stat()
                    # Both sides ask theirs what it knows, which is over in a moment.
                    if b"--version" not in argv:
                        side = "machine" if b"--daemon" in argv else "storage"
                        self.files[side].add((status.st_dev, status.st_ino))

    def assert_as_chosen(self) -> None:
        """Fail unless both sides ran, each the program that was chosen for it and no other."""
        expected = {}
        for side, program in _sides("storage", "machine"):
            status = os.stat(path_of(program))
            expected[side] = {(status.st_dev, status.st_ino)}
        assert self.files == expected, summary()


@contextmanager
def watched() -> Iterator[Running]:
    """Yield a record of what ran during the block, to be asked after it."""
    running = Running()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_POLL_SECONDS):
            running.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        is_over.set()
        thread.join()


def _sides(storage: str, machine: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ((storage, chosen.storage), (machine, chosen.machine))


def path_of(program: str) -> str:
    """Return where the program lies."""
    return shutil.which(program, path=command.environment()["PATH"]) or program


def _version(program: str) -> str:
    with suppress(CommandFailed):
        return str(rsync_version.installed([program]) or "of an unknown version")
    return "not found"


def _is_below_us(process: int) -> bool:
    while process > 1:
        if process == os.getpid():
            return True
        process = parent_of(process)
    return False
