"""M9, M12: what a storage's own process asks the kernel for is never a path below a machine's directory.

A whole life of a source is played by the real programs under strace: backups, browsing, restoring, verifying, drilling,
retention. A call by absolute path below the volume is an ``openat2`` that follows no link, and every other one goes by an
open directory and one name in it, without following a link. Programs that are started (bubblewrap, rsync) are others'.
"""

import os
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tests.conformance.snapshots.conftest import loop_volumes, mode, volume
from tests.support.fleet import Fleet
from tests.support.traced import Call, calls, faults, programs, traced

from turku.demo import programs as ours
from turku.storage.snapshots import SnapshotMode

__all__ = ["loop_volumes", "mode", "volume"]

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="watches what sshd starts"),
    pytest.mark.timeout(400),
]
OTHERS = {
    "bwrap",
    "rsync",
    "sh",
    "dash",
    "bash",
    "cat",
    "true",
    "env",
    "stat",
    "sshd",
    "python3",
    "python3.11",
    "python",
}


@pytest.mark.root
def test_m9_a_machine_s_directory_is_reached_through_open_directories_alone(
    mode: type[SnapshotMode], tmp_path: Path, volume: Path
) -> None:
    volume.mkdir(exist_ok=True)
    trace, source = tmp_path / "trace", tmp_path / "source"
    trace.mkdir()
    (source / "inner").mkdir(parents=True)
    for number in range(20):
        (source / "inner" / f"file{number}").write_text(f"{number}\n" * 2000)
    (source / "link").symlink_to("inner")
    with Fleet(tmp_path / "fleet") as fleet:
        storage = fleet.storage(
            "primary",
            snapshot_mode=mode.name,
            volumes={"volume": {"path": str(volume), "accept_new_high_water_pct": 100}},
            drill_days=1,
            trash_days=14,
            retention_floor="",
            minimum_period_seconds=0,
        )
        forced: list[str | Path] = [ours.DIRECTORY / "turku-storage-ping", "--config-dir", storage.config_dir]
        keys = storage.config_dir / "config.d" / "zz.json"
        keys.write_text(f'{{"authorized_keys_command": "{shlex.join(traced(trace, *forced))}"}}')
        machine = fleet.machine("m", {"etc": {"path": str(source), "retention": "last 2 snapshots"}})
        for day in range(5):
            if day != 2:
                (source / "inner" / "file0").write_text(f"day {day}\n" * 2000)
                (source / f"day{day}").mkdir()
            fleet.make_due(machine)
            machine.ping()
        configured = ("--config-dir", machine.config_dir)
        target = tmp_path / "restored"
        target.mkdir()
        if mode.keeps_history:
            ours.run("turku-agent", "ls", *configured, "etc")
            ours.run("turku-agent", "versions", *configured, "etc", "inner/file0")
            ours.run("turku-agent", "find", *configured, "etc", "*file*")
        ours.run("turku-agent", "restore", *configured, "etc", "--to", target, "--yes")
        assert list(target.rglob("file0")), "else nothing was restored"
        for words in ("verify", "drill", "gc", "catalog update", "snapshots", "trash list", "trash empty --yes"):
            argv = traced(trace, ours.DIRECTORY / "turku-storage", *words.split(), "--config-dir", storage.config_dir)
            subprocess.run(argv, capture_output=True, timeout=120, check=False)
        if mode.keeps_history:
            assert len(storage.snapshots(machine.uuid, "etc")) >= 2
        made = list(calls(trace))
        wrong = Counter(
            f"{fault}: {call}" for call in made if (fault := faults(call, volume, databases=volume / ".catalogs"))
        )
        assert [f"{count} x {text}"[:300] for text, count in wrong.most_common(20)] == []
        seen = [call for call in made if any(path.startswith(f"{volume}/{machine.uuid}") for path in call.paths)]
        assert len(seen) > 50, "else nothing was watched"
        assert {call.name for call in seen} == {"openat2"}
        started = programs(trace) - {path.name for path in ours.DIRECTORY.iterdir()}
        assert {"bwrap", "rsync"} <= started
        assert started <= OTHERS


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ('openat(AT_FDCWD</>, "/v/m/etc.snapshots", O_RDONLY|O_NOFOLLOW)', True),
        ('newfstatat(AT_FDCWD</>, "/v/m/file", {}, AT_SYMLINK_NOFOLLOW)', True),
        ('openat2(AT_FDCWD</>, "/v/m", {flags=O_RDONLY, resolve=RESOLVE_NO_MAGICLINKS}, 24)', True),
        ('openat2(AT_FDCWD</>, "/v/m", {flags=O_RDONLY, resolve=RESOLVE_NO_SYMLINKS}, 24)', False),
        ('newfstatat(5</v/m>, "a/b", {}, AT_SYMLINK_NOFOLLOW)', True),
        ('newfstatat(5</v/m>, "..", {}, AT_SYMLINK_NOFOLLOW)', True),
        ('newfstatat(5</v/m>, "a", {}, 0)', True),
        ('newfstatat(5</v/m>, "a", {}, AT_SYMLINK_NOFOLLOW)', False),
        ('openat(5</v/m>, "a", O_RDONLY)', True),
        ('openat(5</v/m>, "a", O_RDONLY|O_NOFOLLOW)', False),
        ('unlinkat(5</v/m>, "a", 0)', False),
        ('linkat(5</v/m>, "a", 6</v/m>, "b", AT_SYMLINK_FOLLOW)', True),
        ('getxattr("/proc/self/fd/5/a", "user.x", 0, 0)', True),
        ('lgetxattr("/proc/self/fd/5/a", "user.x", 0, 0)', False),
        ('getxattr("/proc/self/fd/5", "user.x", 0, 0)', False),
        ('mkdir("/v/m/x", 0700)', True),
        ('openat(AT_FDCWD</>, "/v/.catalogs/m/etc.sqlite", O_RDWR)', False),
        ('openat(AT_FDCWD</>, "/elsewhere", O_RDONLY)', False),
    ],
)
def test_the_watcher_tells_them_apart(text: str, is_wrong: bool) -> None:
    name, _, rest = text.partition("(")
    call = Call(name, rest.removesuffix(")"))
    assert (faults(call, Path("/v"), databases=Path("/v/.catalogs")) is not None) == is_wrong
