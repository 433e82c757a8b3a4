"""The answer to sshd about a key: the line that authorized_keys has, and the most that asking costs."""

import argparse
import fcntl
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration
from tests.support.v1_client import new_ssh_key

from turku.errors import ConfigurationError, DurableWriteFailed
from turku.protocol.messages import AssignedMachine, StorageUpdateConfigAnswer
from turku.storage.commands import authorized_keys as authorized_keys_command
from turku.storage.config.model import StorageConfig
from turku.storage.registration import admitted_keys, authorized_keys, update_config
from turku.storage.registration.authorized_keys import Admitted

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
OTHER = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


class SteppedClock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic_seconds(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Refreshes:
    """Stands where the coordinator is asked, which here would need one: notes when, and fails as told."""

    def __init__(self, clock: SteppedClock, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.clock, self.seconds, self.error = clock, seconds, error
        self.moments: list[float] = []

    def __call__(self, configuration: StorageConfig) -> StorageUpdateConfigAnswer:
        self.moments.append(self.clock.seconds)
        self.clock.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return StorageUpdateConfigAnswer({})


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    for name in ("volume", "var"):
        (tmp_path / name).mkdir()
    return storage_configuration(tmp_path)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


def bare(key: str) -> str:
    return " ".join(key.split()[:2])


def asked(storage: StorageConfig, key: str, *, user: str | None = None, clock: SteppedClock | None = None) -> list[str]:
    said: list[str] = []
    words = key.split()
    options = argparse.Namespace(user=user or storage.ssh.authorized_keys_user, type=words[0], key=words[1])
    authorized_keys_command.run(options, storage, clock or SteppedClock(), said.append)
    return said


def test_the_line_is_the_one_of_authorized_keys(storage: StorageConfig) -> None:
    keys = {uuid: AssignedMachine(ssh_public_key=new_ssh_key()) for uuid in (UUID, OTHER)}
    written = authorized_keys.write(storage, keys)
    admitted_keys.write(storage, written.admitted)
    lines = storage.ssh.authorized_keys_file.read_text().splitlines()
    for uuid, machine in keys.items():
        [line] = asked(storage, str(machine.ssh_public_key))
        assert line in lines
        assert line.endswith(f" turku:{uuid}")


def test_a_part_of_a_key_is_no_key(storage: StorageConfig) -> None:
    key = bare(new_ssh_key())
    admitted_keys.write(storage, [Admitted(UUID, key)])
    assert storage.ssh.authorized_keys_user
    for part in (key[:-4], key.replace("ssh-ed25519", "ed25519"), key.upper()):
        assert asked(storage, part) == []


def test_a_login_as_somebody_else_gets_nothing(storage: StorageConfig) -> None:
    key = bare(new_ssh_key())
    admitted_keys.write(storage, [Admitted(UUID, key)])
    assert asked(storage, key, user="somebody") == []
    assert len(asked(storage, key)) == 1


def test_a_certificate_or_a_key_of_a_type_that_is_not_allowed_gets_nothing(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    refreshes = Refreshes(clock)
    monkeypatch.setattr(update_config, "_register", refreshes)
    for kind in ("ssh-ed25519-cert-v01@openssh.com", "ssh-dss", "-oProxyCommand=x"):
        assert asked(storage, f"{kind} {new_ssh_key().split()[1]}", clock=clock) == []
    assert refreshes.moments == []


def test_a_key_that_is_known_asks_nobody(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    refreshes = Refreshes(clock)
    monkeypatch.setattr(update_config, "_register", refreshes)
    key = bare(new_ssh_key())
    admitted_keys.write(storage, [Admitted(UUID, key)])
    assert len(asked(storage, key, clock=clock)) == 1
    assert refreshes.moments == []


def test_unknown_keys_ask_the_coordinator_once_in_a_while(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    refreshes = Refreshes(clock)
    monkeypatch.setattr(update_config, "_register", refreshes)
    while clock.seconds < 60:
        assert asked(storage, new_ssh_key(), clock=clock) == []
        clock.sleep(0.5)
    assert len(refreshes.moments) == 60 / update_config.REFRESH_PAUSE_SECONDS


def test_a_coordinator_that_is_slow_or_fails_is_asked_less_often(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    refreshes = Refreshes(clock, seconds=6, error=ConfigurationError("no"))
    monkeypatch.setattr(update_config, "_register", refreshes)
    while clock.seconds < 200:
        try:
            assert asked(storage, new_ssh_key(), clock=clock) == []
        except ConfigurationError:
            pass
        clock.sleep(0.5)
    gaps = [later - earlier for earlier, later in zip(refreshes.moments, refreshes.moments[1:], strict=False)]
    assert gaps
    assert min(gaps) >= 60


def test_the_coordinator_is_not_asked_again_right_after_update_config(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    refreshes = Refreshes(clock)
    monkeypatch.setattr(update_config, "_register", refreshes)
    update_config.update_config(storage, clock=clock)
    update_config.update_config(storage, clock=clock)
    assert asked(storage, new_ssh_key(), clock=clock) == []
    assert len(refreshes.moments) == 2


@pytest.mark.parametrize("note", ["", "{}", '{"begin": 99999999999999, "seconds": 0}', "\0"])
def test_a_note_that_cannot_be_true_does_not_keep_machines_out(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock, note: str
) -> None:
    refreshes = Refreshes(clock)
    monkeypatch.setattr(update_config, "_register", refreshes)
    storage.state.var_dir.mkdir(exist_ok=True)
    (storage.state.var_dir / "machines_asked.json").write_text(note)
    assert asked(storage, new_ssh_key(), clock=clock) == []
    assert len(refreshes.moments) == 1


def test_nothing_is_asked_where_nothing_can_be_noted(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    refreshes = Refreshes(clock)
    monkeypatch.setattr(update_config, "_register", refreshes)
    (storage.state.var_dir / "machines_asked.json").mkdir(parents=True)
    for _ in range(3):
        with pytest.raises(DurableWriteFailed):
            asked(storage, new_ssh_key(), clock=clock)
    assert refreshes.moments == []


def test_a_run_under_way_is_waited_for_a_while(storage: StorageConfig, clock: SteppedClock) -> None:
    storage.state.lock_dir.mkdir(parents=True)
    with (storage.state.lock_dir / "update-config.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert asked(storage, new_ssh_key(), clock=clock) == []
    assert clock.seconds == pytest.approx(10, abs=1)


def test_a_large_storage_is_searched_while_sshd_waits(storage: StorageConfig) -> None:
    machines = [Admitted(f"9bef0a75-5a9b-43f7-a66a-{number:012x}", bare(new_ssh_key())) for number in range(30_000)]
    admitted_keys.write(storage, machines)
    begin = time.monotonic()
    [line] = asked(storage, machines[-1].key)
    assert time.monotonic() - begin < 10
    assert line.endswith(f"turku:{machines[-1].uuid}")


def test_a_file_that_cannot_be_read_is_an_error_that_names_the_user_of_sshd(storage: StorageConfig) -> None:
    admitted_keys.path(storage.state).mkdir(parents=True)
    with pytest.raises(ConfigurationError) as caught:
        asked(storage, new_ssh_key())
    assert "AuthorizedKeysCommandUser" in caught.value.hint


def test_the_note_says_when_and_how_long(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, clock: SteppedClock
) -> None:
    monkeypatch.setattr(update_config, "_register", Refreshes(clock, seconds=3))
    update_config.update_config(storage, clock=clock)
    note = json.loads((storage.state.var_dir / "machines_asked.json").read_text())
    begin = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    assert note == {"begin": begin, "seconds": 3.0, "answered": begin + 3}
