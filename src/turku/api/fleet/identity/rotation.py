"""Rotation of the secrets of machines and storages.

A program writes its new secret down before it sends it, and repeats the call until it is answered. The coordinator
accepts either secret meanwhile, so the program is never locked out.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from turku.api.audit import log
from turku.api.fleet.identity import keyring, registration
from turku.api.fleet.identity.authentication import Caller, invalid_credentials
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Machine, Storage
from turku.api.request.message_errors import MessageErrors


def _require_either(caller: Caller | None, purpose: Purpose, *secrets: str) -> Caller:
    ring = keyring.current()
    # All of them are compared, so that wrong and unknown secrets take the same time.
    matches = [ring.verify(purpose, secret, caller.secret_hash if caller else None) for secret in secrets]
    if caller is None or not caller.active or not any(matches):
        raise invalid_credentials()
    return caller


def _rotate(
    caller: Machine | Storage, purpose: Purpose, new_secret: str, fields: dict[str, Any], *, now: datetime
) -> None:
    ring = keyring.current()
    if not ring.verify(purpose, new_secret, caller.secret_hash):
        fields["secret_hash"] = ring.hash(purpose, new_secret)
    changed = registration.set_fields(caller, fields)
    if changed:
        entry = log.change_entry(f"{caller._meta.model_name}.rotated", caller, changed)
        log.record_of_program(log.actor_of(caller), [entry], now=now)


@transaction.atomic
def rotate_machine(uuid: UUID, secret: str, new_secret: str, new_ssh_public_key: str | None, *, now: datetime) -> None:
    """Give the machine a new secret and, where one is given, a new key.

    Raises MalformedMessage, ApiForbidden where neither secret is the machine's.
    """
    row = Machine.objects.select_for_update(no_key=True).filter(uuid=uuid).first()
    machine = _require_either(row, Purpose.MACHINE, secret, new_secret)
    errors = MessageErrors()
    errors.check("new_secret", registration.secret_for_registration, new_secret)
    fields: dict[str, Any] = {}
    if new_ssh_public_key is not None:
        fields = registration.key_fields("new_ssh_public_key", new_ssh_public_key, errors, uuid=uuid)
    errors.raise_if_any()
    _rotate(machine, Purpose.MACHINE, new_secret, fields, now=now)


@transaction.atomic
def rotate_storage(name: str, secret: str, new_secret: str, *, now: datetime) -> None:
    """Give the storage a new secret. Raises MalformedMessage, ApiForbidden."""
    row = Storage.objects.select_for_update(no_key=True).filter(name=name).first()
    storage = _require_either(row, Purpose.STORAGE, secret, new_secret)
    errors = MessageErrors()
    errors.check("new_secret", registration.secret_for_registration, new_secret)
    errors.raise_if_any()
    _rotate(storage, Purpose.STORAGE, new_secret, {}, now=now)
