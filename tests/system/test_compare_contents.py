"""A source that has its contents compared always: from sources.d to the snapshot."""

import os
from pathlib import Path

from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine


def alter(path: Path, content: bytes) -> None:
    """As a program does that hides when it changed a file."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_whose_size_and_time_stay_is_transferred_where_contents_are_compared(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path
) -> None:
    for name in ("vault", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "container").write_bytes(b"before")
    machine = make_machine(
        {
            "vault": {"path": str(tmp_path / "vault"), "compare_contents": True},
            "plain": {"path": str(tmp_path / "plain")},
        }
    )
    machine.ping()
    for name in ("vault", "plain"):
        alter(tmp_path / name / "container", b"behind")
    fleet.make_due(machine)
    machine.ping()
    kept = {name: (fleet.snapshots(machine, name)[-1] / "container").read_bytes() for name in ("vault", "plain")}
    assert kept == {"vault": b"behind", "plain": b"before"}
    fleet.make_due(machine)
    machine.ping()
    assert fleet.snapshots(machine, "vault")[-1].is_symlink(), "what did not change is a link, compared or not"
