"""A compromise played to the end: root on a machine tries for 100 pings to shrink, overwrite, flood and corrupt 30 days
of history. Afterwards every one of the 30 snapshots restores byte for byte, with all metadata.

The history is made by the real engine and rsync under a clock of the test's own. Then once with a real coordinator that
is told every hostile configuration, and once with one that is compromised too and passes on all that the machine
wants. At each ping the source counts as due: a machine can always break a run off before its report.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.support import trees
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine, backed_up_machine, fingerprint, order
from tests.support.http_cast import HttpCast
from tests.support.malicious_rsync_server import SPOKEN, Entry, MaliciousRsyncServer, directory, symbolic_link
from tests.support.rich_tree import make_rich_tree
from tests.support.v1_client import Refused

from turku.core import command
from turku.protocol.messages import SourceOrder
from turku.storage.backup.job import BackupReport
from turku.storage.backup.run import back_up
from turku.storage.disk import trash

# One worker makes the thirty days for both tests.
pytestmark = pytest.mark.xdist_group("thirty days")
DAYS = 30
PINGS = 50
DECLARED = {"path": "/etc", "retention": f"last {DAYS} snapshots"}
DEFAULTS: dict[str, Any] = {
    "retention_floor": "last 3 days",
    "minimum_period_seconds": 3600,
    "trash_days": 7,
    "keep_devices": False,
}
"""The settings of a storage by default. The helper's own are those of a bare one."""


def synced(source: Path, target: Path) -> None:
    # To the nanosecond: else rsync leaves a time alone that is off by less than a second.
    argv = ["rsync", "-aH", "--numeric-ids", "--delete", "--checksum", "--modify-window=-1", f"{source}/", f"{target}/"]
    command.run(argv, timeout_seconds=60)


@dataclass
class CompromisedMachine:
    """A machine with its history, and what its sources were on each day, kept aside."""

    machine: BackedUpMachine
    aside: dict[str, Path]
    """Snapshot to a copy of the source as it was."""
    successes: int = 0
    """Pings of the attack whose backup was made."""

    def restored_from(self, copy: Path) -> "CompromisedMachine":
        """The same on another volume, with the source as it was last."""
        shutil.rmtree(self.machine.source_dir)
        self.machine.source_dir.mkdir()
        synced(list(self.aside.values())[-1], self.machine.source_dir)
        machine_dir = copy / self.machine.machine_dir.name
        machine_dir.mkdir(parents=True)
        synced(self.machine.machine_dir, machine_dir)
        clock = replace_clock(self.machine)
        return replace(self, machine=replace(self.machine, machine_dir=machine_dir, clock=clock))

    def assert_all_restore(self, directory: Path) -> None:
        """Restore every snapshot and compare it with what was kept aside: rsync's eyes, then ours."""
        for number, (name, original) in enumerate(self.aside.items()):
            restored = directory / str(number)
            restored.mkdir(parents=True)
            snapshot = self.machine.place.snapshot(name)
            assert snapshot.is_dir(), f"{name} is gone"
            synced(snapshot, restored)
            assert trees.differences(original, restored, "--numeric-ids") == [], name
            assert fingerprint(restored) == fingerprint(original), name

    def ping(self, ordered: SourceOrder | None, *, failing: bool = False, server: Any = None) -> None:
        self.machine.clock.moment += timedelta(minutes=5)
        if ordered is None:
            return
        machine = self.machine.with_rsync(*FAILING_RSYNC) if failing else self.machine
        job = replace(machine.job(), order=ordered)
        if server is not None:
            spoken = structs.replace(ordered, **SPOKEN)
            job = replace(job, rsync_port=server.port, order=spoken)
        outcome: BackupReport = back_up(job, machine.storage, clock=machine.clock)
        self.successes += outcome.success


def replace_clock(machine: BackedUpMachine) -> Any:
    clock = type(machine.clock)()
    clock.moment = machine.clock.moment
    return clock


@pytest.fixture(scope="module")
def thirty_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompromisedMachine]:
    """Thirty days of history, a snapshot on each."""
    base = tmp_path_factory.mktemp("compromised")
    with backed_up_machine(base / "machine", **DEFAULTS) as machine:
        make_rich_tree(machine.source_dir)
        (machine.source_dir / "device").unlink(missing_ok=True)
        for number in range(20):
            (machine.source_dir / f"page{number:02}").write_bytes(os.urandom(2000))
        aside = {}
        for day in range(DAYS):
            (machine.source_dir / f"page{day % 20:02}").write_bytes(os.urandom(2000 + day))
            (machine.source_dir / "directory" / f"added{day}").write_text(f"{day}\n")
            [name] = machine.days(1, **ordered_by_default())
            copy = base / "aside" / f"{day:02}"
            copy.mkdir(parents=True)
            synced(machine.source_dir, copy)
            aside[name] = copy
        assert machine.snapshots() == list(aside)
        yield CompromisedMachine(machine, aside)


def ordered_by_default() -> dict[str, Any]:
    return {"retention": DECLARED["retention"], "period_seconds": 24 * 3600.0, "preserve_hard_links": True}


# --- what the attacker does to the source


def everything(root: Path, act: Callable[[Path], object]) -> None:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            act(path)


def nothing(root: Path) -> None:
    """Only changes the configuration."""


def encrypt(root: Path) -> None:
    everything(root, lambda path: path.write_bytes(os.urandom(path.stat().st_size + 16)))


def rename(root: Path) -> None:
    everything(root, lambda path: path.rename(path.with_name(f"{path.name[:50]}.locked")))


def truncate(root: Path) -> None:
    everything(root, lambda path: path.write_bytes(b""))


def empty(root: Path) -> None:
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def attributes(root: Path) -> None:
    """Modes, owners and times of unchanged files, which older snapshots share."""
    for path in (path for path in root.rglob("*") if not path.is_symlink()):
        path.chmod(0o777)
        os.utime(path, (1, 1))
        if os.geteuid() == 0:
            os.chown(path, 4711, 4711)


def hard_links(root: Path) -> None:
    """Everything becomes one file, and that one is changed."""
    pages = sorted(root.glob("page*")) or [root / "page"]
    pages[0].write_bytes(os.urandom(100))
    for path in pages[1:]:
        path.unlink()
        path.hardlink_to(pages[0])
    pages[0].chmod(0o4777)


def symbolic_links(root: Path) -> None:
    """Directories become links into history."""
    for path in [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]:
        shutil.rmtree(path)
        path.symlink_to(f"../etc.snapshots/latest/{path.name}")


def flood(root: Path) -> None:
    for number in range(200):
        (root / f"flood{os.urandom(4).hex()}{number}").write_bytes(b"x")


# --- what it declares, and how its daemon behaves

Step = tuple[Callable[[Path], None], dict[str, Any]]
STEPS: list[Step] = [
    (nothing, {"retention": "last 1 snapshots"}),
    (nothing, {"retention": "last 1 snapshots", "frequency": "cron * * * * *"}),
    (nothing, {"retention": "earliest of day"}),
    (flood, {"retention": "last 1 snapshots", "frequency": "hourly"}),
    (nothing, {"frequency": "monthly"}),
    (attributes, {"retention": "last 1 days"}),
    (hard_links, {"preserve_hard_links": True}),
    (nothing, {"snapshot_mode": "none"}),
    (attributes, {"large_rotating_files": True, "large_modifying_files": True}),
    (nothing, {"exclude": ["*"]}),
    (nothing, {"filter": ["- *"]}),
    (nothing, {"filter": ["P *", "R *"], "retention": "last 1 snapshots"}),
    (encrypt, {}),
    (rename, {"retention": "last 1 snapshots"}),
    (symbolic_links, {}),
    (truncate, {"snapshot_mode": "link-dest"}),
    (empty, {"path": "/var/empty"}),
    (flood, {"published": False}),
    (encrypt, {"name": "renamed"}),
    (encrypt, {"failing": True}),
    (nothing, {"server": "links"}),
    (nothing, {"server": "names"}),
    (nothing, {"server": "hard links"}),
    (nothing, {"gone": True}),
    (hard_links, {"retention": "last 1 snapshots", "snapshot_mode": "none", "preserve_hard_links": True}),
]
SERVERS: dict[str, list[Entry]] = {
    "links": [symbolic_link(b"directory", b"../etc.snapshots/latest"), Entry(b"directory/file")],
    "names": [directory(b"directory"), Entry(b"../etc.snapshots/latest/file"), Entry(b"/etc/hostname-x")],
    "hard links": [Entry(b"file"), Entry(b"page00", linked_to=0), Entry(b"page01", linked_to=7)],
}
BEHAVIOUR = ("failing", "server", "name", "gone", "published")


def attack(compromised: CompromisedMachine, orders: Callable[[Mapping[str, Any]], SourceOrder | None]) -> None:
    """Take each step twice, a ping for each. ``orders`` gives the storage's order after a declaration."""
    last = list(compromised.aside.values())[-1]
    for number in range(PINGS):
        act, declared = STEPS[number % len(STEPS)]
        if number % len(STEPS) == 0:
            synced(last, compromised.machine.source_dir)
        act(compromised.machine.source_dir)
        with ExitStack() as stack:
            entries = SERVERS.get(declared.get("server", ""))
            server = stack.enter_context(MaliciousRsyncServer(entries)) if entries else None
            compromised.ping(orders(declared), failing="failing" in declared, server=server)
    assert compromised.successes > PINGS / 2, "else this would show nothing"


def test_with_a_coordinator_of_ours_all_of_history_stays_where_it_is(
    thirty_days: CompromisedMachine, cast: HttpCast, tmp_path: Path
) -> None:
    compromised = thirty_days.restored_from(tmp_path / "volume")
    cast.alice.update_config({"etc": {**DECLARED, "preserve_hard_links": True}})
    # It has been declared like that for long: nothing that the operator set, only what a coordinator does by default.
    cast.operator("SourceChange.objects.filter(source__machine=alice).delete()")
    before = cast.bob.due(cast.alice.uuid)["etc"]
    assert {key: before[key] for key in ordered_by_default()} == ordered_by_default()

    def orders(declared: Mapping[str, Any]) -> SourceOrder | None:
        options = {key: value for key, value in declared.items() if key not in BEHAVIOUR}
        sources = {declared.get("name", "etc"): {**DECLARED, **options}}
        cast.alice.update_config({} if "gone" in declared else sources, published=declared.get("published", True))
        try:
            found = cast.bob.due(cast.alice.uuid).get("etc")
        except Refused:
            # It withdrew itself.
            return None
        return msgspec.convert(found, SourceOrder) if found else None

    attack(compromised, orders)
    assert list(compromised.aside) == compromised.machine.snapshots()[:DAYS]
    compromised.assert_all_restore(tmp_path / "restored")
    assert any(entry["weakens"] for entry in cast.audit("source.changed"))


def test_with_a_coordinator_that_passes_on_all_of_it_history_can_be_restored_from_the_trash(
    thirty_days: CompromisedMachine, tmp_path: Path
) -> None:
    compromised = thirty_days.restored_from(tmp_path / "volume")

    def orders(declared: Mapping[str, Any]) -> SourceOrder | None:
        if declared.keys() & {"name", "gone", "published"}:
            return None
        slot = {"cron * * * * *": 60.0, "hourly": 3600.0, "monthly": 30 * 24 * 3600.0}
        options = {key: value for key, value in declared.items() if key not in (*BEHAVIOUR, "path", "frequency")}
        return order(**{**ordered_by_default(), "period_seconds": slot.get(declared.get("frequency", "")), **options})

    attack(compromised, orders)
    trashed = trash.trashed_snapshots(compromised.machine.place)
    assert trashed, "else this would show nothing of the trash"
    for each in trashed:
        if each.name in compromised.aside:
            trash.restore(each, now=compromised.machine.clock.moment, trash_days=7)
    compromised.assert_all_restore(tmp_path / "restored")
