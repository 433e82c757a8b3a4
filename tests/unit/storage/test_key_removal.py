"""Machines that an answer lacks: few lose their keys at once, most of them only when another answer lacks them too."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.backed_up_machine import storage_configuration
from tests.support.v1_client import new_ssh_key

from turku.protocol.messages import AssignedMachine
from turku.storage.config.model import StorageConfig
from turku.storage.registration import authorized_keys, key_removal
from turku.storage.registration.key_removal import PAUSE_SECONDS, Removal

FLEET = {str(uuid4()): AssignedMachine(ssh_public_key=new_ssh_key()) for _ in range(6)}
UUIDS = list(FLEET)


class Later:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

    def passes(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self.moment

    def monotonic_seconds(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")


@pytest.fixture
def clock() -> Later:
    return Later()


@pytest.fixture
def storage(tmp_path: Path, clock: Later) -> StorageConfig:
    configured = storage_configuration(tmp_path)
    configured.state.var_dir.mkdir()
    answer(configured, clock, *UUIDS)
    return configured


def answer(storage: StorageConfig, clock: Later, *named: str, is_confirmed: bool = False) -> set[str]:
    """Take an answer that names these machines, and return those that are let in then."""
    removal = Removal(storage, clock=clock, is_confirmed=is_confirmed)
    written = authorized_keys.write(storage, {uuid: FLEET[uuid] for uuid in named}, removal)
    lines = storage.ssh.authorized_keys_file.read_text()
    assert {each.uuid for each in written.admitted} == {uuid for uuid in UUIDS if f"turku:{uuid}\n" in lines}
    return {each.uuid for each in written.admitted}


def test_few_machines_are_let_in_no_more_at_once(storage: StorageConfig, clock: Later) -> None:
    assert answer(storage, clock, *UUIDS[:3]) == set(UUIDS[:3])
    assert key_removal.fault(storage.state) is None


def test_most_machines_keep_their_keys_until_another_answer_lacks_them_too(
    storage: StorageConfig, clock: Later, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(storage, clock) == set(UUIDS)
    assert "lacks 6 of the 6 machines" in caplog.text
    assert "lacks 6 of the 6 machines" in (key_removal.fault(storage.state) or "")
    # A login asks at any moment: that is no second answer.
    clock.passes(PAUSE_SECONDS - 1)
    assert answer(storage, clock) == set(UUIDS)
    clock.passes(2)
    assert answer(storage, clock) == set()
    assert key_removal.fault(storage.state) is None


def test_an_answer_that_has_them_again_ends_the_waiting(storage: StorageConfig, clock: Later) -> None:
    answer(storage, clock, UUIDS[0])
    clock.passes(PAUSE_SECONDS + 1)
    assert answer(storage, clock, *UUIDS) == set(UUIDS)
    assert key_removal.fault(storage.state) is None
    assert answer(storage, clock, UUIDS[0]) == set(UUIDS)


def test_each_machine_has_to_be_missing_in_both(storage: StorageConfig, clock: Later) -> None:
    answer(storage, clock, *UUIDS[:2])
    clock.passes(PAUSE_SECONDS + 1)
    assert answer(storage, clock, *UUIDS[1:3]) == set(UUIDS[:3])
    clock.passes(PAUSE_SECONDS + 1)
    assert answer(storage, clock, *UUIDS[1:3]) == set(UUIDS[1:3])


def test_new_machines_are_let_in_while_others_are_waited_for(storage: StorageConfig, clock: Later) -> None:
    new = str(uuid4())
    machines = {new: AssignedMachine(ssh_public_key=new_ssh_key())}
    written = authorized_keys.write(storage, machines, Removal(storage, clock=clock))
    assert {each.uuid for each in written.admitted} == {new, *UUIDS}


def test_a_key_that_is_another_machines_by_now_is_not_held(storage: StorageConfig, clock: Later) -> None:
    heir = str(uuid4())
    written = authorized_keys.write(storage, {heir: FLEET[UUIDS[0]]}, Removal(storage, clock=clock))
    assert [each.uuid for each in written.admitted if each.key == written.admitted[0].key] == [heir]
    assert {each.uuid for each in written.admitted} == {heir, *UUIDS[1:]}


def test_the_operator_may_say_that_it_is_right(storage: StorageConfig, clock: Later) -> None:
    assert answer(storage, clock) == set(UUIDS)
    assert answer(storage, clock, UUIDS[0], is_confirmed=True) == {UUIDS[0]}
    assert key_removal.fault(storage.state) is None


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b'{"since": {"x": "y"}}'])
def test_a_damaged_note_makes_it_wait_longer(storage: StorageConfig, clock: Later, content: bytes) -> None:
    answer(storage, clock)
    [note] = storage.state.var_dir.glob("keys_*.json")
    note.write_bytes(content)
    clock.passes(PAUSE_SECONDS + 1)
    assert answer(storage, clock) == set(UUIDS)
    clock.passes(PAUSE_SECONDS + 1)
    assert answer(storage, clock) == set()


def test_a_clock_that_was_set_back_makes_it_wait_longer(storage: StorageConfig, clock: Later) -> None:
    answer(storage, clock)
    clock.passes(-86_400)
    assert answer(storage, clock) == set(UUIDS)
    clock.passes(PAUSE_SECONDS + 1)
    assert answer(storage, clock) == set()


def test_lines_of_an_existing_storage_are_held_too(storage: StorageConfig, clock: Later) -> None:
    lines = [
        f'command="turku-storage-ping {uuid}",no-pty,no-agent-forwarding,no-X11-forwarding,no-user-rc '
        f"{machine.ssh_public_key} {uuid}"
        for uuid, machine in FLEET.items()
    ]
    storage.ssh.authorized_keys_file.write_text("# Automatically generated\n" + "\n".join(lines) + "\n")
    assert answer(storage, clock, UUIDS[0]) == set(UUIDS)
