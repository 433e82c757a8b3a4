"""The faults that a storage reports: each with its kind, the worst first, and without figures that change all the time."""

from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.protocol.messages import FAULT_FULL, FAULT_OTHER, FAULT_UNMOUNTED
from turku.storage.config.model import StorageConfig
from turku.storage.disk import volumes
from turku.storage.fs.disk_usage import VolumeSpace
from turku.storage.registration import faults


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    for name in ("data", "more"):
        (tmp_path / name).mkdir()
    keys = {name: {"path": str(tmp_path / name)} for name in ("data", "more")}
    return storage_configuration(tmp_path / "etc", volumes=keys, low_water_free_pct=5)


def space(*, used: float, inodes_used: float = 10.0) -> VolumeSpace:
    return VolumeSpace(1, 1000, 500, used_percent=used, inodes_used_percent=inodes_used)


def kinds(storage: StorageConfig) -> list[str]:
    return [fault.kind for fault in faults.found(storage)]


def test_a_storage_that_is_well_has_no_fault(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "volume_space", lambda _volume: space(used=94.9))
    assert faults.found(storage) == []


@pytest.mark.parametrize(("full", "scarce"), [(space(used=95.1), "space"), (space(used=1, inodes_used=99), "inodes")])
def test_a_volume_below_the_low_water_mark_is_full(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, full: VolumeSpace, scarce: str
) -> None:
    monkeypatch.setattr(volumes, "volume_space", lambda volume: full if volume.name == "more" else space(used=50))
    [fault] = faults.found(storage)
    assert fault.kind == FAULT_FULL
    assert fault.text.startswith(f"volume more is full: less than 5 % of its {scarce} is free")


def test_the_worst_kind_comes_first(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    storage.state.var_dir.mkdir(parents=True, exist_ok=True)
    faults.note_containment(storage.state, "rsync runs without a sandbox")
    assert kinds(storage) == [FAULT_OTHER]
    monkeypatch.setattr(volumes, "volume_space", lambda _volume: space(used=99))
    (tmp_path / "data").rmdir()
    assert kinds(storage) == [FAULT_UNMOUNTED, FAULT_FULL, FAULT_OTHER]


def test_a_record_of_the_sandbox_that_is_damaged_is_no_fault(storage: StorageConfig) -> None:
    storage.state.var_dir.mkdir(parents=True, exist_ok=True)
    faults.note_containment(storage.state, "it does not work")
    (storage.state.var_dir / "containment_fault.json").write_text("[")
    assert faults.found(storage) == []
