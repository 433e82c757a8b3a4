"""Re-enrolment of reinstalled machines, and rotation of secrets and keys."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast, post, turku_api
from tests.support.v1_client import Refused, V1Machine, V1Storage, ask, new_ssh_key

from turku.api.audit.models import AuditEntry
from turku.api.fleet.models import Machine, Storage
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError


def code_for(machine: str) -> str:
    return turku_api("machine", "re-enrol", machine, "--raw")[1].strip()


def reinstalled(code: str, **attributes: Any) -> V1Machine:
    """A machine that took its place again with the code."""
    machine = V1Machine(post, uuid="", **attributes)
    message = {"code": code, "secret": machine.secret, "ssh_public_key": machine.ssh_public_key}
    machine.uuid = ask(post, "machine_reenrol", message)["machine"]["uuid"]
    return machine


def status_of(act: Any) -> int:
    try:
        act()
    except Refused as error:
        return error.status
    return 200


def rotate(machine: V1Machine, new_secret: str, **fields: Any) -> Any:
    message = {"machine": {"uuid": machine.uuid, "secret": machine.secret}, "new_secret": new_secret, **fields}
    return ask(post, "machine_rotate", message)


def test_a_reinstalled_machine_gets_its_uuid_and_sources_back(cast: Cast) -> None:
    new = reinstalled(code_for("web-0"))
    assert new.uuid == cast.alice.uuid
    assert set(new.due()) == {"etc", "home"}
    assert status_of(cast.alice.due) == 403
    assert cast.bob.update_config()[new.uuid]["ssh_public_key"].split()[1] == new.ssh_public_key.split()[1]
    entry = AuditEntry.objects.get(action="machine.re_enrolled")
    assert entry.old["ssh_public_key"].split()[1] == cast.alice.ssh_public_key.split()[1]
    assert AuditEntry.objects.get(action="machine.re_enrolment_prepared").actor_kind == "command"


def test_a_lost_answer_is_given_again_to_the_same_secret_only(cast: Cast) -> None:
    code = code_for(cast.alice.uuid)
    new = reinstalled(code)
    assert reinstalled(code, secret=new.secret).uuid == cast.alice.uuid
    assert status_of(lambda: reinstalled(code)) == 403
    assert set(new.due()) == {"etc", "home"}


def test_a_code_ends_after_a_day(cast: Cast) -> None:
    code = code_for("web-0")
    Machine.objects.update(date_re_enrol_code_ends=SYSTEM_CLOCK.now() - timedelta(seconds=1))
    assert status_of(lambda: reinstalled(code)) == 403
    assert set(cast.alice.due()) == {"etc", "home"}


def test_a_newer_code_voids_the_older(cast: Cast) -> None:
    older, newer = code_for("web-0"), code_for("web-0")
    assert status_of(lambda: reinstalled(older)) == 403
    assert reinstalled(newer).uuid == cast.alice.uuid


def test_the_code_is_kept_as_a_hash(cast: Cast) -> None:
    code = code_for("web-0")
    assert code not in str(list(Machine.objects.values()))
    assert code not in str(list(AuditEntry.objects.values()))


def test_a_machine_that_is_switched_off_does_not_return(cast: Cast) -> None:
    code = code_for("web-0")
    Machine.objects.update(active=False)
    assert status_of(lambda: reinstalled(code)) == 403
    with pytest.raises(UsageError, match="switched off"):
        code_for("web-0")


def test_a_malformed_secret_or_key_leaves_the_code_unused(cast: Cast) -> None:
    code = code_for("web-0")
    assert status_of(lambda: reinstalled(code, secret="short")) == 400
    assert status_of(lambda: reinstalled(code, ssh_public_key="no key")) == 400
    carol = cast.machine()
    carol.update_config({})
    assert status_of(lambda: reinstalled(code, ssh_public_key=carol.ssh_public_key)) == 400
    assert reinstalled(code).uuid == cast.alice.uuid


def test_the_operator_names_one_machine(cast: Cast) -> None:
    cast.machine().update_config({})
    with pytest.raises(UsageError, match="more than one"):
        code_for("web-0")
    with pytest.raises(UsageError, match="no machine"):
        code_for("nobody")


def test_a_machine_rotates_secret_and_key_and_loses_nothing(cast: Cast) -> None:
    key = new_ssh_key()
    assert rotate(cast.alice, "n" * 30, new_ssh_public_key=key) == {}
    assert status_of(cast.alice.due) == 403
    cast.alice.secret = "n" * 30
    assert set(cast.alice.due()) == {"etc", "home"}
    assert cast.bob.update_config()[cast.alice.uuid]["ssh_public_key"].split()[1] == key.split()[1]


def test_a_rotation_may_be_sent_again(cast: Cast) -> None:
    key = new_ssh_key()
    for _ in range(3):
        assert rotate(cast.alice, "n" * 30, new_ssh_public_key=key) == {}
    assert AuditEntry.objects.filter(action="machine.rotated").count() == 1


def test_a_rotation_without_a_key_keeps_the_old_one(cast: Cast) -> None:
    before = Machine.objects.get().ssh_public_key
    rotate(cast.alice, "n" * 30)
    assert Machine.objects.get().ssh_public_key == before


def test_a_storage_rotates_its_secret(cast: Cast) -> None:
    old = {"name": cast.bob.name, "secret": cast.bob.secret}
    for _ in range(2):
        assert ask(post, "storage_rotate", {"storage": old, "new_secret": "n" * 30}) == {}
    assert status_of(cast.bob.update_config) == 403
    cast.bob.secret = "n" * 30
    assert set(cast.bob.update_config()) == {cast.alice.uuid}
    assert AuditEntry.objects.filter(action="storage.rotated").count() == 1


def test_strangers_rotate_nothing(cast: Cast) -> None:
    machine, storage = Machine.objects.values().get(), Storage.objects.values().get()
    thief = V1Machine(post, uuid=cast.alice.uuid)
    assert status_of(lambda: rotate(thief, "n" * 30, new_ssh_public_key=new_ssh_key())) == 403
    assert status_of(lambda: rotate(V1Machine(post), "n" * 30)) == 403
    message = {"storage": {"name": cast.bob.name, "secret": V1Storage(post).secret}, "new_secret": "n" * 30}
    assert status_of(lambda: ask(post, "storage_rotate", message)) == 403
    assert (Machine.objects.values().get(), Storage.objects.values().get()) == (machine, storage)


def test_new_secrets_are_long_and_new_keys_are_keys(cast: Cast) -> None:
    assert status_of(lambda: rotate(cast.alice, "short")) == 400
    assert status_of(lambda: rotate(cast.alice, "n" * 30, new_ssh_public_key="command=x " + new_ssh_key())) == 400
    message = {"storage": {"name": cast.bob.name, "secret": cast.bob.secret}, "new_secret": "short"}
    assert status_of(lambda: ask(post, "storage_rotate", message)) == 400
    assert set(cast.alice.due()) == {"etc", "home"}


def test_a_machine_that_is_switched_off_rotates_nothing(cast: Cast) -> None:
    Machine.objects.update(active=False)
    assert status_of(lambda: rotate(cast.alice, "n" * 30)) == 403
