"""A volume is known by its mark: at its first use, when it is not mounted, when it moves, when it is another one."""

import json
import shutil
import uuid
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.support.backed_up_machine import storage_configuration

from turku.core import durable
from turku.core.configuration.declaration import with_values
from turku.errors import ConfigurationError, NoVolume
from turku.storage.config.model import StorageConfig
from turku.storage.disk import source_lookup, volume_marks, volumes
from turku.storage.fs import mounts

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
OTHER = "0bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    """A storage with a volume ``data``, empty and never used, in a directory that can be renamed away."""
    (tmp_path / "volume").mkdir()
    keys = {"volumes": {"data": {"path": str(tmp_path / "volume"), "accept_new_high_water_pct": 100}}}
    return storage_configuration(tmp_path / "etc", ssh_ping_host="storage.example.com", **keys)


def mark(directory: Path) -> str:
    return str(json.loads((directory / ".turku-volume").read_text())["id"])


def unmount(storage: StorageConfig) -> Path:
    """Leave an empty directory in the volume's place, as an unmounted file system does, and return its new place."""
    path = storage.disk.volumes[0].path
    away = path.with_name("away")
    path.rename(away)
    path.mkdir()
    return away


def mount(storage: StorageConfig, away: Path) -> None:
    shutil.rmtree(storage.disk.volumes[0].path)
    away.rename(storage.disk.volumes[0].path)


def test_the_first_use_of_an_empty_volume_marks_it(storage: StorageConfig, tmp_path: Path) -> None:
    assert volume_marks.faults(storage) == []
    assert not (tmp_path / "volume" / ".turku-volume").exists(), "reading marks nothing"
    volumes.machine_directory(storage, UUID)
    uuid.UUID(mark(tmp_path / "volume"))
    assert volume_marks.faults(storage) == []


def test_looking_is_no_first_use(storage: StorageConfig, tmp_path: Path) -> None:
    (tmp_path / "volume" / UUID).mkdir()
    assert source_lookup.find_sources(storage) == ()
    assert volumes.existing_directory(storage, UUID)
    assert not (tmp_path / "volume" / ".turku-volume").exists()
    assert not (storage.state.var_dir / "volumes").exists()


def test_reporting_space_is_a_first_use(storage: StorageConfig, tmp_path: Path) -> None:
    volumes.space(storage)
    assert (tmp_path / "volume" / ".turku-volume").exists()


def test_nothing_is_written_into_the_mount_point_of_a_volume_that_is_not_mounted(storage: StorageConfig) -> None:
    volumes.machine_directory(storage, UUID)
    away = unmount(storage)
    for machine in (UUID, OTHER):
        with pytest.raises(NoVolume) as raised:
            volumes.machine_directory(storage, machine)
        assert "not mounted" in f"{raised.value.message} {raised.value.details}"
    assert volumes.space(storage) == (0, 0)
    assert source_lookup.find_sources(storage) == ()
    with pytest.raises(NoVolume) as refused:
        volume_marks.require_all(storage)
    assert "turku-storage accept-volume" in refused.value.hint
    assert list(storage.disk.volumes[0].path.iterdir()) == []
    mount(storage, away)
    assert volumes.machine_directory(storage, UUID) == storage.disk.volumes[0].path / UUID
    assert not (storage.disk.volumes[0].path / OTHER).exists()


def test_new_machines_go_to_the_volumes_that_are_there(storage: StorageConfig, tmp_path: Path) -> None:
    second = replace(storage.disk.volumes[0], name="second", path=tmp_path / "second")
    second.path.mkdir()
    both = with_values(storage, volumes=(*storage.disk.volumes, second))
    volumes.space(both)
    away = unmount(storage)
    assert volumes.machine_directory(both, OTHER) == second.path / OTHER
    assert volumes.space(both)[0] > 0
    assert away.exists()


def test_an_existing_volume_of_an_older_installation_is_adopted_once(storage: StorageConfig, tmp_path: Path) -> None:
    directory = tmp_path / "volume" / UUID
    directory.mkdir()
    volumes.link_directory(storage.state, UUID, directory)
    assert volumes.machine_directory(storage, UUID) == directory
    assert mark(tmp_path / "volume")
    # So it is where the links are lost, as after var_dir was.
    shutil.rmtree(storage.state.var_dir)
    (tmp_path / "volume" / ".turku-volume").unlink()
    assert volumes.machine_directory(storage, UUID) == directory


def test_an_older_installation_whose_volume_is_not_mounted_is_not_adopted(
    storage: StorageConfig, tmp_path: Path
) -> None:
    # What was written around it lies in the mount point already.
    for machine in (UUID, OTHER, "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"):
        volumes.link_directory(storage.state, machine, tmp_path / "volume" / machine)
    (tmp_path / "volume" / OTHER).mkdir()
    with pytest.raises(NoVolume, match="lacks 2 of the 3 machines"):
        volumes.machine_directory(storage, OTHER)
    assert not (tmp_path / "volume" / ".turku-volume").exists()


@pytest.mark.parametrize("below", ["", "/volume"], ids=["a directory above it", "the directory itself"])
def test_a_directory_that_is_a_mount_point_of_the_system_is_no_volume_before_it_is_mounted(
    below: str, storage: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "fstab"
    table.write_text(f"# a comment\nUUID=1 / ext4 defaults 0 1\nUUID=2 {tmp_path}{below} xfs nosuid 0 2\n")
    monkeypatch.setattr(volume_marks, "_TABLE", table)
    with pytest.raises(NoVolume) as raised:
        volumes.machine_directory(storage, UUID)
    assert "that is not mounted" in raised.value.details
    monkeypatch.setattr(mounts, "is_mount_point", lambda _path: True)
    assert volumes.machine_directory(storage, UUID)


def test_a_volume_may_move_to_another_path(storage: StorageConfig, tmp_path: Path) -> None:
    volumes.machine_directory(storage, UUID)
    (tmp_path / "volume").rename(tmp_path / "elsewhere")
    moved = with_values(storage, volumes=(replace(storage.disk.volumes[0], path=tmp_path / "elsewhere"),))
    assert volumes.machine_directory(moved, UUID) == tmp_path / "elsewhere" / UUID
    renamed = with_values(moved, volumes=(replace(moved.disk.volumes[0], name="archive"),))
    assert volumes.machine_directory(renamed, UUID) == tmp_path / "elsewhere" / UUID


def test_another_volume_in_its_place_is_refused_until_it_is_accepted(storage: StorageConfig, tmp_path: Path) -> None:
    volumes.machine_directory(storage, UUID)
    unmount(storage)
    durable.write_json(tmp_path / "volume" / ".turku-volume", {"id": str(uuid.uuid4())})
    with pytest.raises(NoVolume, match="mark of another volume"):
        volumes.machine_directory(storage, UUID)
    assert volume_marks.accept(storage, "data") == str(tmp_path / "volume")
    assert volumes.machine_directory(storage, OTHER) == tmp_path / "volume" / OTHER


def test_a_new_disk_in_the_place_of_a_lost_one_is_accepted_by_the_operator(
    storage: StorageConfig, tmp_path: Path
) -> None:
    volumes.machine_directory(storage, UUID)
    former = mark(unmount(storage))
    volume_marks.accept(storage, "data")
    assert mark(tmp_path / "volume") != former
    assert volumes.machine_directory(storage, OTHER)
    with pytest.raises(ConfigurationError, match="no volume 'backup'"):
        volume_marks.accept(storage, "backup")


def test_a_volume_and_its_copy_are_not_both_taken(storage: StorageConfig, tmp_path: Path) -> None:
    volumes.machine_directory(storage, UUID)
    shutil.copytree(tmp_path / "volume", tmp_path / "copy")
    copied = replace(storage.disk.volumes[0], name="copy", path=tmp_path / "copy")
    both = with_values(storage, volumes=(*storage.disk.volumes, copied))
    assert len(volume_marks.faults(both)) == 2
    # The operator says that the copy is a volume of its own.
    volume_marks.accept(both, "copy")
    assert volume_marks.faults(both) == []
    assert mark(tmp_path / "copy") != mark(tmp_path / "volume")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"{}", b'{"id": 7}'])
def test_a_damaged_mark_is_a_fault_and_a_damaged_note_of_it_is_none(
    storage: StorageConfig, tmp_path: Path, content: bytes
) -> None:
    volumes.machine_directory(storage, UUID)
    [note] = (storage.state.var_dir / "volumes").iterdir()
    note.write_bytes(content)
    assert volumes.machine_directory(storage, UUID)
    assert json.loads(note.read_text())["id"] == mark(tmp_path / "volume")
    (tmp_path / "volume" / ".turku-volume").write_bytes(content)
    with pytest.raises(NoVolume, match="is damaged"):
        volumes.machine_directory(storage, UUID)
    (tmp_path / "volume" / ".turku-volume").unlink()
    note.write_bytes(content)
    with pytest.raises(NoVolume, match="not mounted"):
        volumes.machine_directory(storage, UUID)


def test_a_link_is_no_mark(storage: StorageConfig, tmp_path: Path) -> None:
    volumes.machine_directory(storage, UUID)
    path = tmp_path / "volume" / ".turku-volume"
    path.rename(tmp_path / "mark")
    path.symlink_to(tmp_path / "mark")
    with pytest.raises(NoVolume):
        volumes.machine_directory(storage, UUID)
