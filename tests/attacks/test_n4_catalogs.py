"""N4: on a volume that other users may write to, nobody plants a catalog, nor a way to one.

SQLite opens its files by path. So no catalog is opened, and nothing is written beside it, where another user could have
put the file, one of its directories, or a link. The backup is made all the same.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.attacks.test_n4_storage_users import AS_SOMEBODY, SOMEBODY
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.errors import CatalogUnusable
from turku.storage import catalog
from turku.storage.catalog import database
from turku.storage.commands.protection import host
from turku.storage.commands.protection.fact import Verdict
from turku.storage.integrity import damage, drill, drill_record
from turku.storage.integrity.damage import DamageRecord

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")]
SECRET = "NAME-OF-A-FILE-THAT-NOBODY-MAY-KNOW"


@pytest.fixture
def machine(shared: Path) -> Iterator[BackedUpMachine]:
    for path in (shared / "volume",):
        path.mkdir(mode=0o755)
    with backed_up_machine(shared / "site", volume=shared / "volume") as machine:
        (shared / "site").chmod(0o755)
        (machine.source_dir / SECRET).write_text("content")
        yield machine


def volume(machine: BackedUpMachine) -> Path:
    return machine.machine_dir.parent


def somebodys(path: Path) -> None:
    os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)


def plant_directory(machine: BackedUpMachine, trap: Path) -> None:
    shutil.rmtree(volume(machine) / ".catalogs")
    subprocess.run([*AS_SOMEBODY, "mkdir", "-m", "777", volume(machine) / ".catalogs"], check=True)


def plant_link(machine: BackedUpMachine, trap: Path) -> None:
    shutil.rmtree(volume(machine) / ".catalogs")
    subprocess.run([*AS_SOMEBODY, "ln", "-s", trap, volume(machine) / ".catalogs"], check=True)


def plant_machine(machine: BackedUpMachine, trap: Path) -> None:
    directory = database.file_of(machine.place).parent
    shutil.rmtree(directory)
    directory.mkdir(mode=0o777)
    somebodys(directory)


def plant_machine_link(machine: BackedUpMachine, trap: Path) -> None:
    directory = database.file_of(machine.place).parent
    shutil.rmtree(directory)
    directory.symlink_to(trap)


def plant_file(machine: BackedUpMachine, trap: Path) -> None:
    somebodys(database.file_of(machine.place))


def plant_file_link(machine: BackedUpMachine, trap: Path) -> None:
    file = database.file_of(machine.place)
    file.rename(trap / "database")
    file.symlink_to(trap / "database")


def plant_link_to_nothing(machine: BackedUpMachine, trap: Path) -> None:
    database.file_of(machine.place).unlink()
    database.file_of(machine.place).symlink_to(trap / "new")


def plant_hard_link(machine: BackedUpMachine, trap: Path) -> None:
    database.file_of(machine.place).rename(trap / "database")
    os.link(trap / "database", database.file_of(machine.place))


def plant_journal(machine: BackedUpMachine, trap: Path) -> None:
    journal = database.file_of(machine.place).with_name("etc.sqlite-journal")
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    somebodys(journal)


def open_file(machine: BackedUpMachine, trap: Path) -> None:
    database.file_of(machine.place).chmod(0o666)


def open_directory(machine: BackedUpMachine, trap: Path) -> None:
    (volume(machine) / ".catalogs").chmod(0o770)


def open_volume(machine: BackedUpMachine, trap: Path) -> None:
    volume(machine).chmod(0o777)


PLANTS: list[Callable[[BackedUpMachine, Path], None]] = [
    *(plant_directory, plant_link, plant_machine, plant_machine_link, plant_file, plant_file_link, plant_hard_link),
    *(plant_link_to_nothing, plant_journal, open_file, open_directory, open_volume),
]


def state(directory: Path) -> list[tuple[str, int, int, bytes]]:
    return [
        (str(path), path.lstat().st_mode, path.lstat().st_uid, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    ]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_n4_a_planted_catalog_is_neither_read_nor_written(
    machine: BackedUpMachine, shared: Path, plant: Callable[[BackedUpMachine, Path], None]
) -> None:
    machine.days(2)
    volume(machine).chmod(0o1777)
    trap = shared / "trap"
    trap.mkdir(mode=0o777)
    trap.chmod(0o777)
    plant(machine, trap)
    # What a user would like the storage to believe.
    directory = database.file_of(machine.place).parent
    if directory.is_dir() and not directory.is_symlink() and directory.stat().st_uid == SOMEBODY:
        (directory / "etc.damage.json").write_text(
            '[{"path": "x", "kind": "content", "state": "next_backup", "snapshots": []}]'
        )
        (directory / "etc.drill.json").write_text('{"success": true, "time_begin": 0, "time_end": 1}')
    before = state(trap), state(volume(machine) / ".catalogs")
    assert machine.back_up().success
    machine.days(1)
    with (
        pytest.raises(CatalogUnusable) as raised,
        catalog.open_catalog(machine.place, zone=machine.storage.state.timezone),
    ):
        pass
    assert "others may write to it" in str(raised.value)
    assert damage.read(machine.place) == []
    assert drill_record.read(machine.place) is None
    made = drill.drill(machine.storage, machine.place)
    assert not made.is_good
    assert (state(trap), state(volume(machine) / ".catalogs")) == before
    argv: list[str | Path] = [*AS_SOMEBODY, "grep", "-rl", SECRET, trap, directory]
    if plant in (plant_directory, plant_link, plant_machine, plant_machine_link, plant_link_to_nothing):
        assert subprocess.run(argv, capture_output=True, check=False).stdout == b""


def test_n4_on_a_shared_volume_with_the_sticky_bit_a_catalog_of_ours_is_kept(machine: BackedUpMachine) -> None:
    # Else the others show nothing.
    volume(machine).chmod(0o1777)
    machine.days(2)
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
        assert len(known.snapshots()) == 2
    damage.write(machine.place, [DamageRecord("x", "content", "next_backup", ())])
    assert [each.path for each in damage.read(machine.place)] == ["x"]


@pytest.mark.parametrize(
    ("mode", "owner", "verdict"),
    [
        (0o777, 0, Verdict.FAIL),
        (0o1777, 0, Verdict.WARN),
        (0o775, 0, Verdict.WARN),
        (0o755, SOMEBODY, Verdict.WARN),
        (0o755, 0, None),
        (0o700, 0, None),
    ],
)
def test_n4_the_check_names_a_volume_that_others_may_write_to(
    machine: BackedUpMachine, mode: int, owner: int, verdict: Verdict | None
) -> None:
    own = machine.storage.disk.volumes[0]
    own.path.mkdir(exist_ok=True)
    own.path.chmod(mode)
    os.chown(own.path, owner, owner)
    found = [
        fact.verdict
        for fact in host.facts(machine.storage)
        if fact.subject == f"volume {own.name}"
        and str(own.path) in fact.text
        and ("chmod" in fact.text or "chown" in fact.text)
    ]
    assert found == ([] if verdict is None else [verdict])
