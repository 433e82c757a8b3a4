"""Slots of a volume: as many backups at once as it has, and a clear word to those that find none."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.core.configuration.declaration import with_values
from turku.errors import LockHeld
from turku.storage.config.model import StorageConfig
from turku.storage.session.session_slots import WAIT_SECONDS, volume_slot


class WaitingClock:
    """Time passes by sleeping alone."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_seconds(self) -> float:
        return self.seconds

    def now(self) -> object:
        raise AssertionError("waiting needs no date")

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    return storage_configuration(tmp_path / "storage", volume_slots=2)


def machine(tmp_path: Path, volume: str, name: str) -> Path:
    directory = tmp_path / volume / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def test_as_many_backups_write_to_a_volume_as_it_has_slots(storage: StorageConfig, tmp_path: Path) -> None:
    clock = WaitingClock()
    with ExitStack() as stack:
        for name in ("a", "b"):
            stack.enter_context(volume_slot(storage, machine(tmp_path, "one", name), clock=clock))  # type: ignore[arg-type]
        with (
            pytest.raises(LockHeld) as caught,
            volume_slot(storage, machine(tmp_path, "one", "c"), clock=clock),  # type: ignore[arg-type]
        ):
            raise AssertionError("there is no third")
        assert "2 backups write to it already" in caught.value.message
        assert "stays due" in caught.value.hint
        assert WAIT_SECONDS <= clock.seconds < WAIT_SECONDS + 2
        # Another volume has slots of its own.
        stack.enter_context(volume_slot(storage, machine(tmp_path, "two", "c"), clock=clock))  # type: ignore[arg-type]
    with volume_slot(storage, machine(tmp_path, "one", "c"), clock=clock):  # type: ignore[arg-type]
        pass


def test_a_slot_that_becomes_free_meanwhile_is_taken(storage: StorageConfig, tmp_path: Path) -> None:
    first = ExitStack()
    second = ExitStack()

    class Clock(WaitingClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.seconds >= 5:
                first.close()

    clock = Clock()
    with second:
        first.enter_context(volume_slot(storage, machine(tmp_path, "one", "a"), clock=clock))  # type: ignore[arg-type]
        second.enter_context(volume_slot(storage, machine(tmp_path, "one", "b"), clock=clock))  # type: ignore[arg-type]
        with volume_slot(storage, machine(tmp_path, "one", "c"), clock=clock):  # type: ignore[arg-type]
            assert 5 <= clock.seconds < 7


def test_without_a_number_there_is_no_limit(storage: StorageConfig, tmp_path: Path) -> None:
    unlimited = with_values(storage, volume_slots=None)
    with ExitStack() as stack:
        for number in range(50):
            stack.enter_context(volume_slot(unlimited, machine(tmp_path, "one", str(number))))
    assert not unlimited.state.lock_dir.exists()


def test_a_volume_may_lie_anywhere(storage: StorageConfig, tmp_path: Path) -> None:
    volume = "with spaces/and a very long name " + "x" * 200
    with volume_slot(storage, machine(tmp_path, volume, "a")):
        (name,) = [path.name for path in storage.state.lock_dir.iterdir()]
    assert name.startswith("volume-")
    assert len(name) < 40
