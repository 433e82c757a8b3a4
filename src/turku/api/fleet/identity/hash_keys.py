"""The hash keys that the credentials of this database need. A coordinator without them refuses to start."""

from collections import Counter
from datetime import datetime

from django.conf import settings
from django.db import transaction

from turku.api.fleet.identity import keyring
from turku.api.fleet.models import Auth, HashKey, Machine, Storage
from turku.core import durable
from turku.core.secret import generate_secret
from turku.core.units import count_of
from turku.errors import UsageError


def register_newest_key(*, now: datetime) -> None:
    """Register the newest key in the database. Raises UnknownHashKey if the database needs one that is missing here."""
    ring = keyring.current()
    with transaction.atomic():
        HashKey.objects.get_or_create(key_id=ring.newest.id, defaults={"date_added": now})
        known = {key.id for key in ring.keys}
        missing = [key.key_id for key in HashKey.objects.all() if key.key_id not in known]
        if missing:
            # The transaction rolls our own key back, which does not belong to this database.
            raise keyring.UnknownHashKey(
                f"this database belongs to coordinators with hash key {', '.join(missing)}; "
                f"this one has {', '.join(sorted(known))}",
                hint=f"copy their hash key file to {settings.TURKU_ENVIRONMENT.hash_key_file}, "
                "or set TURKU_HASH_KEY_FILE; every machine would be refused otherwise",
            )


def usage() -> dict[str, int]:
    """Return the number of credentials hashed with each key that the database knows, by key id."""
    counts = Counter(dict.fromkeys(HashKey.objects.values_list("key_id", flat=True), 0))
    for model in (Auth, Storage, Machine):
        for stored in model._default_manager.values_list("secret_hash", flat=True).iterator():
            counts[stored.partition(":")[0]] += 1
    return dict(counts)


def _require_key_file() -> None:
    if settings.TURKU_ENVIRONMENT.hash_keys:
        raise UsageError(
            "the hash keys are in TURKU_HASH_KEY, not in a file",
            hint="put the new key before the old ones there, one a line, and start the coordinators again",
        )


def _write(keys: list[keyring.DigestKey]) -> None:
    lines = "".join(f"{key.secret.reveal()}\n" for key in keys)
    durable.write_text(settings.TURKU_ENVIRONMENT.hash_key_file, lines)
    keyring.forget()


def rotate(*, now: datetime) -> str:
    """Put a new key first in the key file, register it in the database, and return its id."""
    _require_key_file()
    register_newest_key(now=now)
    key = keyring.make_key(generate_secret(64).reveal())
    _write([key, *keyring.current().keys])
    HashKey.objects.create(key_id=key.id, date_added=now)
    return key.id


def retire(key_id: str) -> None:
    """Take a key out of file and database. Raises UsageError while credentials need it."""
    _require_key_file()
    keys = list(keyring.current().keys)
    if key_id not in {key.id for key in keys[1:]}:
        raise UsageError(f"{key_id} is not an older hash key of this coordinator", hint="see `turku-api hash-key list`")
    needed = usage().get(key_id, 0)
    if needed:
        raise UsageError(
            f"{count_of(needed, 'credential')} still hashed with {key_id}",
            hint="each moves to the newest key when it is next used; deactivate or delete what is never used",
        )
    HashKey.objects.filter(key_id=key_id).delete()
    _write([key for key in keys if key.id != key_id])
