"""Volumes: space by file system, and where a machine's directory is or will be."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.errors import InvalidValue, NoVolume
from turku.storage.config.model import StorageConfig
from turku.storage.disk import volumes
from turku.storage.fs.disk_usage import VolumeSpace

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
_GIB = 1024**3


def storage(directory: Path, *names: str, **options: dict[str, Any]) -> StorageConfig:
    """Return a storage with these volumes, made. ``options`` are those of single volumes."""
    sections = {}
    for name in names:
        (directory / name).mkdir(parents=True)
        sections[name] = {"path": str(directory / name), "accept_new_high_water_pct": 100, **options.get(name, {})}
    return storage_configuration(directory / "etc", ssh_ping_host="storage.example.com", volumes=sections)


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> dict[str, VolumeSpace]:
    """The space of each volume by name, for the test to set: file systems of chosen sizes cannot be had here."""
    chosen: dict[str, VolumeSpace] = {}
    monkeypatch.setattr(volumes, "volume_space", lambda volume: chosen.get(volume.name))
    return chosen


def test_two_volumes_on_one_file_system_count_once(tmp_path: Path) -> None:
    total, available = volumes.space(storage(tmp_path, "a", "b"))
    status = os.statvfs(tmp_path)
    assert total == pytest.approx(status.f_blocks * status.f_frsize / 1024**2)
    assert available == pytest.approx(status.f_bavail * status.f_frsize / 1024**2, rel=0.1)


def test_volumes_on_several_file_systems_add_up(tmp_path: Path, spaces: dict[str, VolumeSpace]) -> None:
    spaces["a"] = VolumeSpace(1, 100 * _GIB, 10 * _GIB, 90)
    spaces["b"] = VolumeSpace(2, 50 * _GIB, 50 * _GIB, 0)
    assert volumes.space(storage(tmp_path, "a", "b")) == (150 * 1024, 60 * 1024)


def test_a_volume_that_is_not_there_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configured = storage(tmp_path, "a", "b")
    (tmp_path / "b").rmdir()
    assert volumes.space(configured)[0] > 0
    assert "volume b" in caplog.text
    (tmp_path / "a").rename(tmp_path / "c")
    assert volumes.space(configured) == (0, 0)


def test_a_new_machine_gets_a_private_directory_and_a_link(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a")
    directory = volumes.machine_directory(configured, UUID.upper())
    assert directory == tmp_path / "a" / UUID
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (configured.state.machines_dir / UUID).readlink() == directory


def test_a_machine_keeps_its_directory(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a", "b")
    first = volumes.machine_directory(configured, UUID)
    assert {volumes.machine_directory(configured, UUID) for _ in range(20)} == {first}


def test_a_directory_is_found_when_its_link_is_gone(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a", "b", b={"accept_new": False})
    (tmp_path / "b" / UUID).mkdir()
    assert volumes.machine_directory(configured, UUID) == tmp_path / "b" / UUID
    assert (configured.state.machines_dir / UUID).readlink() == tmp_path / "b" / UUID


def test_a_link_to_a_volume_that_is_no_longer_configured_is_followed(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a")
    (tmp_path / "old" / UUID).mkdir(parents=True)
    volumes.link_directory(configured.state, UUID, tmp_path / "old" / UUID)
    assert volumes.machine_directory(configured, UUID) == tmp_path / "old" / UUID


def test_a_directory_that_was_moved_to_another_volume_is_found(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a", "b")
    old = volumes.machine_directory(configured, UUID)
    new = tmp_path / ("b" if old.parent.name == "a" else "a") / UUID
    old.rename(new)
    assert volumes.machine_directory(configured, UUID) == new


def test_a_volume_that_is_not_mounted_starts_no_second_history(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a", "b")
    directory = volumes.machine_directory(configured, UUID)
    directory.rmdir()
    with pytest.raises(NoVolume, match="not there"):
        volumes.machine_directory(configured, UUID)
    assert not any((tmp_path / name / UUID).exists() for name in ("a", "b"))


def test_an_entry_that_is_no_link_is_not_overwritten(tmp_path: Path) -> None:
    configured = storage(tmp_path, "a")
    (configured.state.machines_dir / UUID).mkdir(parents=True)
    with pytest.raises(NoVolume, match="not a symbolic link"):
        volumes.machine_directory(configured, UUID)


@pytest.mark.parametrize("uuid", ["../x", "", ".", f"{UUID}/..", f"{UUID}\n"])
def test_a_text_that_is_no_uuid_becomes_no_path(tmp_path: Path, uuid: str) -> None:
    with pytest.raises(InvalidValue):
        volumes.machine_directory(storage(tmp_path, "a"), uuid)


def test_volumes_are_drawn_by_the_weight_of_their_free_space(tmp_path: Path, spaces: dict[str, VolumeSpace]) -> None:
    spaces["small"] = VolumeSpace(1, 100 * _GIB, 10 * _GIB, 50)
    spaces["large"] = VolumeSpace(2, 100 * _GIB, 30 * _GIB, 50)
    configured = storage(tmp_path, "small", "large")
    drawn = Counter(volumes.choose_volume(configured).name for _ in range(4000))
    assert 0.68 < drawn["large"] / 4000 < 0.82


def test_volumes_that_are_full_enough_or_closed_are_not_drawn(tmp_path: Path, spaces: dict[str, VolumeSpace]) -> None:
    spaces["closed"] = VolumeSpace(1, 100 * _GIB, 99 * _GIB, 1)
    spaces["full"] = VolumeSpace(2, 100 * _GIB, 20 * _GIB, 80)
    spaces["open"] = VolumeSpace(3, 100 * _GIB, 21 * _GIB, 79.9)
    options: dict[str, Any] = {"closed": {"accept_new": False}}
    options |= {name: {"accept_new_high_water_pct": 80} for name in ("full", "open")}
    configured = storage(tmp_path, "closed", "full", "open", "gone", **options)
    assert {volumes.choose_volume(configured).name for _ in range(50)} == {"open"}


def test_a_volume_whose_inodes_run_out_takes_no_new_machines(tmp_path: Path, spaces: dict[str, VolumeSpace]) -> None:
    spaces["small"] = VolumeSpace(1, 100 * _GIB, 90 * _GIB, 10, inodes_used_percent=96.4)
    spaces["open"] = VolumeSpace(2, 100 * _GIB, 21 * _GIB, 79, inodes_used_percent=5)
    options = {name: {"accept_new_high_water_pct": 85} for name in spaces}
    assert volumes.choose_volume(storage(tmp_path, *spaces, **options)).name == "open"
    del spaces["open"]
    with pytest.raises(NoVolume) as caught:
        volumes.choose_volume(storage(tmp_path / "other", "small", **options))
    assert caught.value.details == "small: 96 % of inodes used, high-water mark 85 %"


def test_inodes_are_counted_where_the_file_system_counts_them(tmp_path: Path) -> None:
    [volume] = storage(tmp_path, "a").disk.volumes
    found = volumes.volume_space(volume)
    assert found is not None
    assert found.fullness_percent == max(found.used_percent, found.inodes_used_percent)
    assert (found.inodes_used_percent > 0) == (os.statvfs(tmp_path).f_files > 0)


def test_the_error_says_for_each_volume_why_it_does_not_fit(tmp_path: Path, spaces: dict[str, VolumeSpace]) -> None:
    spaces["full"] = VolumeSpace(2, 100 * _GIB, 10 * _GIB, 90)
    options: dict[str, Any] = {"closed": {"accept_new": False}, "full": {"accept_new_high_water_pct": 85}}
    configured = storage(tmp_path, "closed", "full", "gone", **options)
    with pytest.raises(NoVolume) as caught:
        volumes.machine_directory(configured, UUID)
    assert caught.value.details.splitlines() == [
        "closed: accept_new is false",
        "full: 90 % used, high-water mark 85 %",
        f"gone: {tmp_path / 'gone'} is not there",
    ]
