"""M8: nobody becomes another machine: not by its UUID, not by registering again, not by guessing a re-enrolment code."""

import pytest
from tests.support.http_cast import SOURCES, HttpCast, status_of
from tests.support.v1_client import V1Machine, ask, new_ssh_key


def re_enrol(machine: V1Machine, code: str) -> str:
    message = {"code": code, "secret": machine.secret, "ssh_public_key": machine.ssh_public_key}
    uuid: str = ask(machine.post, "machine_reenrol", message)["machine"]["uuid"]
    return uuid


@pytest.mark.parametrize("call", ["due", "restorable"])
def test_m8_another_machines_uuid_with_ones_own_secret_is_refused(cast: HttpCast, call: str) -> None:
    mallory = cast.machine()
    mallory.update_config(SOURCES)
    mallory.uuid = cast.alice.uuid
    assert status_of(getattr(mallory, call)) == 403


def test_m8_registering_a_known_uuid_again_changes_nothing(cast: HttpCast) -> None:
    machine, sources = cast.machine_row(), cast.source_rows()
    mallory = cast.machine(uuid=cast.alice.uuid, unit_name="mallory")
    assert status_of(lambda: mallory.update_config({"etc": {"path": "/var/empty"}})) == 403
    assert (cast.machine_row(), cast.source_rows()) == (machine, sources)
    assert set(cast.alice.due()) == {"etc", "home"}


def test_m8_registering_a_deactivated_uuid_again_changes_nothing(cast: HttpCast) -> None:
    cast.operator("alice.active = False; alice.save()")
    machine = cast.machine_row()
    for mallory in (cast.machine(uuid=cast.alice.uuid), cast.machine(uuid=cast.alice.uuid, secret=cast.alice.secret)):
        assert status_of(lambda mallory=mallory: mallory.update_config(SOURCES)) == 403
    assert cast.machine_row() == machine


def test_m8_rotating_another_machines_identity_is_refused(cast: HttpCast) -> None:
    machine = cast.machine_row()
    mallory = cast.machine()
    mallory.update_config(SOURCES)
    message = {
        "machine": {"uuid": cast.alice.uuid, "secret": mallory.secret},
        "new_secret": "m" * 30,
        "new_ssh_public_key": new_ssh_key(),
    }
    assert status_of(lambda: ask(cast.post, "machine_rotate", message)) == 403
    assert cast.machine_row() == machine


def test_m8_another_machines_ssh_key_cannot_be_claimed(cast: HttpCast) -> None:
    mallory = cast.machine(ssh_public_key=cast.alice.ssh_public_key)
    assert status_of(lambda: mallory.update_config(SOURCES)) == 400


def test_m8_history_comes_back_only_by_an_operators_code(cast: HttpCast) -> None:
    reinstalled = V1Machine(cast.post, uuid="")
    assert status_of(lambda: re_enrol(reinstalled, "x" * 30)) == 403
    code = cast.coordinator.manage("machine", "re-enrol", cast.alice.uuid, "--raw").strip()
    assert status_of(lambda: re_enrol(reinstalled, code[:-1])) == 403
    reinstalled.uuid = re_enrol(reinstalled, code)
    assert reinstalled.uuid == cast.alice.uuid
    assert set(reinstalled.restorable()) == {"etc", "home"}
    assert status_of(cast.alice.due) == 403, "the stolen identity ends"
    thief = V1Machine(cast.post, uuid="")
    assert status_of(lambda: re_enrol(thief, code)) == 403, "the code works once"
    assert set(reinstalled.due()) == {"etc", "home"}


def test_m8_a_code_that_is_too_old_is_void(cast: HttpCast) -> None:
    code = cast.coordinator.manage("machine", "re-enrol", cast.alice.uuid, "--raw").strip()
    cast.operator("alice.date_re_enrol_code_ends -= timedelta(hours=25); alice.save()")
    machine = cast.machine_row()
    assert status_of(lambda: re_enrol(V1Machine(cast.post, uuid=""), code)) == 403
    assert cast.machine_row() == machine
