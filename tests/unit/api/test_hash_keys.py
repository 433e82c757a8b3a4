"""Keyed hashes of secrets, and the rotation of their keys."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.api_cast import Cast, introduce, turku_api

from turku.api.configuration import key_file
from turku.api.fleet.identity import hash_keys, keyring
from turku.api.fleet.identity.keyring import Keyring, Purpose, UnknownHashKey
from turku.api.fleet.models import Auth, HashKey, Machine
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import ConfigurationError, UsageError

OLD = keyring.make_key("o" * 64)
NEW = keyring.make_key("n" * 64)


@pytest.fixture
def own_keys(settings: Any, tmp_path: Path, db: None) -> Iterator[Path]:
    """A hash key file of the test's own."""
    path = tmp_path / "hash_key"
    settings.TURKU_ENVIRONMENT = dataclasses.replace(settings.TURKU_ENVIRONMENT, hash_key_file=path)
    key_file.generate_if_missing(path)
    keyring.forget()
    yield path
    keyring.forget()


def test_a_hash_verifies_its_secret_for_its_purpose_only() -> None:
    ring = Keyring((NEW,))
    stored = ring.hash(Purpose.MACHINE, "secret")
    assert ring.verify(Purpose.MACHINE, "secret", stored)
    assert not ring.verify(Purpose.MACHINE, "Secret", stored)
    assert not ring.verify(Purpose.STORAGE, "secret", stored)
    assert not ring.verify(Purpose.MACHINE, "secret", None)


def test_older_keys_still_verify_and_count_as_outdated() -> None:
    stored = Keyring((OLD,)).hash(Purpose.AUTH, "secret")
    ring = Keyring((NEW, OLD))
    assert ring.verify(Purpose.AUTH, "secret", stored)
    assert ring.is_outdated(stored)
    assert not ring.is_outdated(ring.hash(Purpose.AUTH, "secret"))
    assert stored in ring.candidates(Purpose.AUTH, "secret")


def test_a_hash_of_an_unknown_key_is_no_wrong_secret() -> None:
    with pytest.raises(UnknownHashKey):
        Keyring((NEW,)).verify(Purpose.AUTH, "secret", Keyring((OLD,)).hash(Purpose.AUTH, "secret"))


def test_short_keys_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="shorter"):
        keyring.make_key("x" * 31)


def test_after_a_rotation_each_credential_moves_when_it_is_used(own_keys: Path) -> None:
    cast = introduce()
    old_id = keyring.current().newest.id
    new_id = hash_keys.rotate(now=SYSTEM_CLOCK.now())
    assert keyring.current().newest.id == new_id != old_id
    assert own_keys.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="4 credentials"):
        hash_keys.retire(old_id)
    cast.alice.due()
    assert Machine.objects.get().secret_hash.startswith(f"{new_id}:")
    cast.bob.update_config()
    cast.machine().update_config({})
    cast.storage("other").update_config()
    assert hash_keys.usage() == {old_id: 0, new_id: 6}
    assert turku_api("hash-key", "list")[1] == f"{new_id}  6 credentials  newest\n{old_id}  0 credentials  older\n"
    hash_keys.retire(old_id)
    assert [key.id for key in keyring.current().keys] == [new_id]
    assert cast.alice.due()


def test_both_ways_to_register_move_the_auth(own_keys: Path) -> None:
    cast = introduce()
    hash_keys.rotate(now=SYSTEM_CLOCK.now())
    cast.machine().update_config({})
    carol = cast.storage("carol")
    carol.auth = {"name": "storages", "secret": cast.storage_secret}
    carol.update_config()
    assert {auth.secret_hash.partition(":")[0] for auth in Auth.objects.all()} == {keyring.current().newest.id}


def test_a_coordinator_with_another_key_refuses_to_start(own_keys: Path) -> None:
    introduce()
    hash_keys.register_newest_key(now=SYSTEM_CLOCK.now())
    own_keys.write_text("another key that is long enough for a hash key\n")
    keyring.forget()
    with pytest.raises(UnknownHashKey, match="this database belongs to"):
        hash_keys.register_newest_key(now=SYSTEM_CLOCK.now())
    assert HashKey.objects.count() == 1


def test_a_worker_learns_of_a_key_that_was_rotated_beside_it(own_keys: Path, cast: Cast) -> None:
    before = keyring.current()
    hash_keys.rotate(now=SYSTEM_CLOCK.now())
    cast.alice.due()
    keyring._cached.cache_clear()
    text = own_keys.read_text()
    own_keys.write_text(text.splitlines()[1] + "\n")
    assert keyring.current().keys == before.keys
    own_keys.write_text(text)
    assert cast.alice.due()


def test_a_key_that_is_nowhere_is_answered_with_503(own_keys: Path, cast: Cast) -> None:
    own_keys.write_text("another key that is long enough for a hash key\n")
    keyring.forget()
    with pytest.raises(Exception, match="503"):
        cast.alice.due()
