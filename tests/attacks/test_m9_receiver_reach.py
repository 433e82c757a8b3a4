"""M9: a receiver that runs the attacker's code, in the real sandbox, can change nothing but its own staging directory.

It lists every path that it can see and tries to change each one (tests/support/exploring_receiver.py): in a real fleet,
in all snapshot modes, with one source and with two of one machine side by side.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.snapshots.conftest import loop_volumes, mode, volume
from tests.support import exploring_receiver
from tests.support.exploring_receiver import OWN_MEMORY
from tests.support.fleet import Fleet

from turku.storage.snapshots import SnapshotMode

__all__ = ["loop_volumes", "mode", "volume"]

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.timeout(300),
]
HERE, BASE, LISTED = "/tree", "/beside0", "/beside"


def fingerprint(top: Path, *, leaves_out: Callable[[str], bool]) -> dict[str, tuple[Any, ...]]:
    """Return every entry below the directory, without following links. New entries change the times of directories, so
    none are here."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, inner, files in os.walk(top):
        for name in [*inner, *files]:
            path = os.path.join(directory, name)
            shown = os.path.relpath(path, top)
            if leaves_out(shown):
                if name in inner:
                    inner.remove(name)
                continue
            status = os.lstat(path)
            facts: tuple[Any, ...] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_dev)
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                facts = (*facts, status.st_mtime_ns, content, tuple(os.listxattr(path)))
            elif stat.S_ISLNK(status.st_mode):
                facts = (*facts, os.readlink(path))
            else:
                facts = (*facts, tuple(os.listxattr(path)))
            found[shown] = facts
    return found


class Scene:
    """Two machines with history, the one with two sources, whose receivers then are the attacker's."""

    def __init__(self, fleet: Fleet, directory: Path, volume: Path, mode: str) -> None:
        self.fleet, self.directory, self.volume = fleet, directory, volume
        self.program = directory / "rsync-taken-over"
        self.program.write_text('#!/bin/sh\nexec rsync "$@"\n')
        self.program.chmod(0o755)
        self.storage = fleet.storage(
            "primary",
            sandbox="required",
            rsync_command=[str(self.program)],
            snapshot_mode=mode,
            volumes={"volume": {"path": str(volume), "accept_new_high_water_pct": 100}},
        )
        self.sources = {name: directory / name for name in ("etc", "home")}
        for name, path in {**self.sources, "alice": directory / "alice"}.items():
            (path / "inner").mkdir(parents=True)
            (path / f"only-in-{name}").write_text(name)
            (path / "inner" / "file").write_text(name)
        self.alice = fleet.machine("alice", {"docs": {"path": str(directory / "alice")}})
        declared = {name: {"path": str(path), "retention": "last 9 snapshots"} for name, path in self.sources.items()}
        self.mallory = fleet.machine("mallory", declared)
        self.alice.ping()
        for number in range(2):
            self.change(f"day {number}")
            fleet.make_due(self.mallory)
            self.mallory.ping()
        self.machine_dir = self.storage.machine_directory(self.mallory.uuid).resolve()

    def change(self, text: str) -> None:
        for path in self.sources.values():
            (path / "diary").write_text(f"{text} of {path.name}\n")

    def is_of_a_new_snapshot(self, before: set[str], *sources: str) -> Callable[[str], bool]:
        machine = self.mallory.uuid

        def leaves_out(shown: str) -> bool:
            for source in sources:
                if shown.startswith(f".catalogs/{machine}/{source}."):
                    return True
                if shown in (f"{machine}/{source}.snapshots/latest", f"{machine}/.{source}.lock"):
                    return True
                if shown.startswith(f"{machine}/{source}.snapshots/{source}_") and shown not in before:
                    return True
                if shown.startswith(f"{machine}/{source}/") or shown == f"{machine}/{source}":
                    # The tree of a source without history is what its receiver writes into.
                    return True
            return False

        return leaves_out

    def known(self) -> tuple[str, ...]:
        """Paths of this host that an attacker would like to reach, whatever the sandbox lists."""
        files = [self.volume, self.machine_dir, self.storage.config_dir, self.storage.var_dir, self.directory / "alice"]
        files += [path for path in self.machine_dir.iterdir() if not path.is_symlink()]
        files += [self.volume / ".catalogs", Path("/etc/shadow"), Path("/root"), Path("/home"), Path("/var")]
        return tuple(map(str, files))


@pytest.fixture
def scene(mode: type[SnapshotMode], tmp_path: Path, volume: Path) -> Iterator[Scene]:
    volume.mkdir(exist_ok=True)
    with Fleet(tmp_path / "fleet") as fleet:
        yield Scene(fleet, tmp_path, volume, mode.name)


def test_m9_a_taken_over_receiver_reaches_its_staging_directory_alone(scene: Scene, mode: type[SnapshotMode]) -> None:
    for count in (1, 2):
        attack(scene, mode, list(scene.sources)[:count])


def attack(scene: Scene, mode: type[SnapshotMode], due: list[str]) -> None:
    """Back up these sources side by side, each by a compromised receiver."""
    every = fingerprint(scene.volume, leaves_out=lambda _shown: False)
    leaves_out = scene.is_of_a_new_snapshot(set(every), *due)
    before = fingerprint(scene.volume, leaves_out=leaves_out)
    assert any(f"{scene.alice.uuid}/docs" in name for name in before)
    is_thorough = len(due) == 1 and mode.name == "link-dest"
    exploring_receiver.program(scene.program, sees_all_of_system=is_thorough, known=scene.known(), pause=1.0)
    scene.storage.log_file.write_text("")
    scene.change(f"the attack on {len(due)}")
    scene.fleet.make_due(scene.mallory, *due)
    scene.mallory.ping()
    assert fingerprint(scene.volume, leaves_out=leaves_out) == before
    found = exploring_receiver.reports(scene.storage.log_file)
    assert {each["module"] for each in found} == set(due)
    assert len([each for each in found if not each["dry"]]) >= len(due)
    for each in found:
        assert [path for path in each["present"] if path not in ("/root", "/home", "/var")] == []
        assert_sees_nothing_of_others(scene, each)
        for attempt, paths in each["worked"].items():
            foreign = [path for path in paths if not (path == HERE or path.startswith(f"{HERE}/"))]
            assert foreign == [], (attempt, foreign)
        assert ("create" in each["worked"]) == (not each["dry"])
    for name in due:
        newest = scene.machine_dir / name
        if mode.keeps_history:
            newest = scene.storage.snapshots(scene.mallory.uuid, name)[-1]
        assert (newest / "diary").read_text() == f"the attack on {len(due)} of {name}\n"


def assert_sees_nothing_of_others(scene: Scene, found: dict[str, Any]) -> None:
    others = [name for name in scene.sources if name != found["module"]] + ["alice"]
    for path in found["seen"]:
        assert not any(f"only-in-{name}" in path for name in others), path
        for name in (scene.mallory.uuid, scene.alice.uuid, ".snapshots", ".catalogs", ".trash-", "config.d", ".lock"):
            assert name not in path, path
    top = {path.split("/")[1] for path in found["seen"] if path != "/"}
    system = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "proc", "dev", "tmp"}
    # On the way to the program itself, which is the attacker's and lies in a directory of the test's.
    assert {each for each in top if not each.startswith(("tree", "beside"))} <= system
    etc = {path for path in found["seen"] if path.startswith("/etc/")}
    assert etc <= {f"/etc/{name}" for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime")}
    in_tmp = [path for path in found["seen"] if path.startswith("/tmp/")]
    assert all(str(scene.program).startswith(path) for path in in_tmp), in_tmp
    allowed = ("/usr", "/proc", "/dev", "/etc", HERE, LISTED, *OWN_MEMORY)
    assert [
        path for path in found["mounts"] if not path.startswith(allowed) and path.strip("/") not in {"", *system}
    ] == []
