"""A real file system as a volume, before it is mounted, while it is, and after it was unmounted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.support.backed_up_machine import storage_configuration
from tests.support.loop_volume import loop_volume

from turku.core import command
from turku.errors import ConfigurationError, NoVolume
from turku.storage.commands import check
from turku.storage.commands.protection import host
from turku.storage.commands.protection.fact import Verdict
from turku.storage.config.model import StorageConfig
from turku.storage.disk import volume_marks, volumes
from turku.storage.fs import mounts
from turku.storage.setup import volume_choice
from turku.storage.setup.volume_choice import VolumeChoice

MACHINE = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with loop_volume("ext4", size_bytes=64 * 1024 * 1024) as mounted:
        yield mounted


@pytest.fixture
def point(tmp_path: Path, disk: Path) -> Iterator[Path]:
    """A mount point at which nothing is mounted."""
    point = tmp_path / "volume"
    point.mkdir(mode=0o755)
    (disk / volume_marks.FILE).unlink(missing_ok=True)
    yield point
    command.run(["umount", "--lazy", point], timeout_seconds=20, check=False)


def mount(disk: Path, point: Path, options: str = "nosuid,nodev") -> None:
    source = mounts.mount_of(disk).device
    command.run(["mount", "-o", options, source, point], timeout_seconds=20)


def unmount(point: Path) -> None:
    command.run(["umount", point], timeout_seconds=20)


@pytest.fixture
def storage(tmp_path: Path, point: Path) -> StorageConfig:
    made = storage_configuration(tmp_path)
    (only,) = made.disk.volumes
    return replace(made, disk=replace(made.disk, volumes=(replace(only, path=point),)))


def in_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, point: Path) -> None:
    table = tmp_path / "fstab"
    table.write_text(f"UUID=1 {point} ext4 defaults,nosuid,nodev 0 2\n")
    monkeypatch.setattr(volume_marks, "_TABLE", table)


def problems(storage: StorageConfig) -> list[str]:
    said: list[str] = []
    check.report(storage, said.append)
    return [line for line in said if line.startswith("PROBLEM: volume")]


def test_a_volume_that_is_unmounted_after_its_first_use_gets_nothing(
    storage: StorageConfig, disk: Path, point: Path
) -> None:
    mount(disk, point)
    directory = volumes.machine_directory(storage, MACHINE)
    assert problems(storage) == []
    unmount(point)
    with pytest.raises(NoVolume, match="not mounted"):
        volumes.machine_directory(storage, MACHINE)
    [problem] = problems(storage)
    assert "not mounted" in problem
    assert list(point.iterdir()) == []
    mount(disk, point)
    assert volumes.machine_directory(storage, MACHINE) == directory
    assert problems(storage) == []
    directory.rmdir()


@pytest.mark.parametrize("is_below", [False, True], ids=["the mount point", "a directory below it"])
def test_a_volume_in_fstab_that_is_not_mounted_at_its_first_use_gets_nothing(
    is_below: bool, storage: StorageConfig, disk: Path, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_table(monkeypatch, tmp_path, point)
    path = point / "turku" if is_below else point
    path.mkdir(exist_ok=True)
    (only,) = storage.disk.volumes
    storage = replace(storage, disk=replace(storage.disk, volumes=(replace(only, path=path),)))
    with pytest.raises(ConfigurationError, match=f"{point}, and it is not mounted"):
        volume_choice.require_usable(VolumeChoice("data", path))
    with pytest.raises(NoVolume):
        volumes.machine_directory(storage, MACHINE)
    assert volumes.space(storage) == (0, 0)
    [problem] = problems(storage)
    assert f"has a file system for {point} that is not mounted" in problem
    assert list(path.iterdir()) == []
    mount(disk, point)
    path.mkdir(exist_ok=True)
    volume_choice.require_usable(VolumeChoice("data", path))
    assert volumes.machine_directory(storage, MACHINE).parent == path


def test_a_disk_mounted_over_a_volume_on_the_root_file_system_is_another_volume(
    storage: StorageConfig, disk: Path, point: Path
) -> None:
    # Somebody set the storage up on the directory, and forgot to mount.
    assert volume_choice.is_on_root_file_system(VolumeChoice("data", point))
    volumes.machine_directory(storage, MACHINE)
    [fact] = [each for each in host._volume(storage, storage.disk.volumes[0]) if "operating system" in each.text]
    assert fact.verdict is Verdict.WARN
    mount(disk, point)
    before = set(point.iterdir())
    with pytest.raises(NoVolume, match="replaced"):
        volumes.machine_directory(storage, MACHINE)
    assert set(point.iterdir()) == before


def test_the_options_of_the_mount_are_seen(disk: Path, point: Path) -> None:
    mount(disk, point, "nosuid")
    choice = VolumeChoice("data", point)
    assert not volume_choice.is_on_root_file_system(choice)
    *_text, line = volume_choice.advice(choice)
    assert line.split()[1:] == [str(point), "ext4", "defaults,nosuid,nodev", "0", "2"]
    unmount(point)
    mount(disk, point)
    assert volume_choice.advice(choice) == []
