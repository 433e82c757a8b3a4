"""Registration of machines and storages, and who may speak for them."""

import random
import uuid

import pytest
from django.db import transaction
from tests.support.api_cast import Cast, post
from tests.support.v1_client import A_KEY, Refused, V1Machine

from turku.api.fleet import assignment
from turku.api.fleet.identity import authentication, auths
from turku.api.fleet.identity.authentication import CHECK_IN_RESOLUTION
from turku.api.fleet.models import Auth, AuthKind, Machine, Storage
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import ApiRefused

ETC = {"etc": {"path": "/etc"}}


def refused(machine: V1Machine, **options: object) -> Refused:
    with pytest.raises(Refused) as caught:
        machine.update_config(ETC, **options)
    return caught.value


def test_a_machine_registers_with_the_nameless_string(cast: Cast) -> None:
    carol = cast.machine()
    carol.update_config(ETC)
    assert set(carol.due()) == {"etc"}


def test_a_machine_registers_with_name_and_secret(cast: Cast) -> None:
    carol = V1Machine(post, auth={"name": "machines", "secret": cast.machine_secret})
    carol.update_config(ETC)
    assert set(carol.due()) == {"etc"}


def test_every_bad_credential_gets_the_same_answer(cast: Cast) -> None:
    strangers = [
        V1Machine(post),
        V1Machine(post, auth="not a secret that anybody gave out"),
        V1Machine(post, auth={"name": "machines", "secret": "wrong"}),
        V1Machine(post, auth={"name": "nobody", "secret": cast.machine_secret}),
        V1Machine(post, auth=cast.storage_secret),
        V1Machine(post, auth=cast.machine_secret, uuid=cast.alice.uuid),
    ]
    answers = {(refused(stranger).status, refused(stranger).sentence) for stranger in strangers}
    with pytest.raises(Refused) as unknown:
        V1Machine(post).due()
    with pytest.raises(Refused) as wrong:
        V1Machine(post, uuid=cast.alice.uuid).due()
    answers |= {(error.value.status, error.value.sentence) for error in (unknown, wrong)}
    assert len(answers) == 1
    assert answers.pop()[0] == 403


def test_a_known_uuid_with_a_new_secret_leaves_the_machine_as_it_was(cast: Cast) -> None:
    before = Machine.objects.values().get()
    thief = V1Machine(post, auth=cast.machine_secret, uuid=cast.alice.uuid, unit_name="mine now")
    assert refused(thief).status == 403
    assert Machine.objects.values().get() == before


def test_a_deactivated_machine_is_refused_everywhere(cast: Cast) -> None:
    Machine.objects.update(active=False)
    assert refused(cast.alice).status == 403
    for call in (cast.alice.due, cast.alice.restorable):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.status == 403
    assert cast.bob.update_config() == {}


def test_a_deactivated_auth_registers_nobody_and_its_machines_go_on(cast: Cast) -> None:
    Auth.objects.update(active=False)
    assert refused(cast.machine()).status == 403
    cast.alice.update_config(ETC)


def test_a_short_secret_is_refused_at_registration(cast: Cast) -> None:
    error = refused(cast.machine(secret="x" * 15))
    assert (error.status, "machine.secret" in error.sentence) == (400, True)
    cast.machine(secret="x" * 16).update_config(ETC)
    with pytest.raises(Refused) as caught:
        cast.storage("small", secret="y" * 15).update_config()
    assert "storage.secret" in caught.value.sentence


def test_one_ssh_key_belongs_to_one_machine(cast: Cast) -> None:
    error = refused(cast.machine(ssh_public_key=cast.alice.ssh_public_key.replace(" turku", " other")))
    assert (error.status, "machine.ssh_public_key" in error.sentence) == (400, True)
    assert Machine.objects.count() == 1


@pytest.mark.parametrize("key", ["", "no key", "ssh-ed25519", A_KEY + "\n" + A_KEY, "command=x " + A_KEY])
def test_a_text_that_is_no_ssh_key_never_reaches_a_storage(cast: Cast, key: str) -> None:
    assert refused(cast.alice, ssh_public_key=key).status == 400
    assert (
        cast.bob.update_config()[cast.alice.uuid]["ssh_public_key"].split()[1] == cast.alice.ssh_public_key.split()[1]
    )


def test_a_machine_without_an_open_storage_gets_one_later(cast: Cast) -> None:
    Storage.objects.update(published=False)
    carol = cast.machine()
    carol.update_config(ETC)
    assert carol.due() == {}
    assert Machine.objects.get(uuid=carol.uuid).storage is None
    dave = cast.storage("dave")
    assert set(dave.update_config()) == {carol.uuid}
    assert set(carol.due()) == {"etc"}


def test_a_waiting_machine_gets_a_storage_at_its_next_update(cast: Cast) -> None:
    Machine.objects.update(storage=None)
    cast.alice.update_config(ETC)
    assert set(cast.alice.due()) == {"etc"}


def test_a_machine_that_goes_while_it_calls_is_refused(cast: Cast) -> None:
    machine = Machine.objects.get(uuid=cast.alice.uuid)
    Machine.objects.update(active=False)
    with pytest.raises(ApiRefused), transaction.atomic():
        authentication.lock_active(machine)
    Machine.objects.all().delete()
    with pytest.raises(ApiRefused), transaction.atomic():
        authentication.lock_active(machine)


def test_assignment_follows_free_space() -> None:
    storages = [Storage(name="large", space_available=900), Storage(name="small", space_available=100)]
    storages.append(Storage(name="full", space_available=0))
    chance = random.Random(7)
    names = [storage.name for storage in (assignment.choose_storage(storages, chance) for _ in range(1000)) if storage]
    assert 850 < names.count("large") < 950
    assert names.count("full") == 0
    assert assignment.choose_storage([], chance) is None


def test_only_open_storages_take_machines(cast: Cast) -> None:
    for name, change in (
        ("off", {"active": False}),
        ("hidden", {"published": False}),
        ("full", {"space_available": 0}),
    ):
        cast.storage(name).update_config()
        Storage.objects.filter(name=name).update(**change)
    assert [storage.name for storage in assignment.eligible_storages()] == ["primary"]


def test_a_storage_sees_its_active_published_machines(cast: Cast) -> None:
    assert set(cast.bob.update_config()) == {cast.alice.uuid}
    cast.alice.update_config(ETC, published=False)
    assert cast.bob.update_config() == {}
    cast.alice.update_config(ETC)
    assert cast.bob.update_config() == {}, "a message without `published` changes nothing"
    cast.alice.update_config(ETC, published=True)
    assert set(cast.bob.update_config()) == {cast.alice.uuid}


def test_another_storages_machine_does_not_exist(cast: Cast) -> None:
    eve = cast.storage("eve")
    eve.update_config()
    for act in (lambda: eve.due(cast.alice.uuid), lambda: eve.succeeded(cast.alice.uuid, "etc")):
        with pytest.raises(Refused) as caught:
            act()
        assert caught.value.status == 404
    with pytest.raises(Refused) as unknown:
        eve.due(str(uuid.uuid4()))
    assert unknown.value.sentence == caught.value.sentence


def test_a_deactivated_storage_is_refused(cast: Cast) -> None:
    Storage.objects.update(active=False)
    with pytest.raises(Refused) as caught:
        cast.bob.update_config()
    assert caught.value.status == 403
    assert cast.alice.due() == {}


def test_secrets_are_kept_as_hashes_only(cast: Cast) -> None:
    columns = [
        *Auth.objects.values_list("secret_hash", flat=True),
        *Machine.objects.values_list("secret_hash", flat=True),
        *Storage.objects.values_list("secret_hash", flat=True),
    ]
    secrets = [cast.machine_secret, cast.storage_secret, cast.alice.secret, cast.bob.secret]
    assert not any(secret in column for column in columns for secret in secrets)


def test_auth_names_are_unique_per_kind(db: None) -> None:
    now = SYSTEM_CLOCK.now()
    auths.create(AuthKind.MACHINE, "site", now=now)
    auths.create(AuthKind.STORAGE, "site", now=now)
    with pytest.raises(Exception, match="exists already"):
        auths.create(AuthKind.MACHINE, "site", now=now)


def test_checkins_are_written_once_a_minute(cast: Cast) -> None:
    first = Machine.objects.get().date_checked_in
    assert first is not None
    cast.alice.due()
    assert Machine.objects.get().date_checked_in == first
    earlier = first - CHECK_IN_RESOLUTION
    Machine.objects.update(date_checked_in=earlier)
    cast.alice.due()
    assert (Machine.objects.get().date_checked_in or earlier) > first
