"""A reinstalled machine takes its place again: by an operator's one-time code, never by its own word (threats M8)."""

from datetime import datetime, timedelta

from django.db import transaction

from turku.api.audit import log
from turku.api.fleet.identity import keyring, registration
from turku.api.fleet.identity.authentication import invalid_credentials
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Machine
from turku.api.request.message_errors import MessageErrors
from turku.core.secret import Secret, generate_secret

CODE_LIFETIME = timedelta(hours=24)


@transaction.atomic
def issue(machine: Machine, *, actor: log.Actor, now: datetime) -> Secret:
    """Return a new code for the machine and void an older one. Only the keyed hash is stored."""
    code = generate_secret()
    machine.re_enrol_code_hash = keyring.current().hash(Purpose.RE_ENROL_CODE, code.reveal())
    machine.date_re_enrol_code_ends = now + CODE_LIFETIME
    machine.re_enrol_code_is_used = False
    machine.save(update_fields=["re_enrol_code_hash", "date_re_enrol_code_ends", "re_enrol_code_is_used"])
    entry = log.NewEntry("machine.re_enrolment_prepared", machine, new={"until": machine.date_re_enrol_code_ends})
    log.record(actor, [entry], now=now)
    return code


@transaction.atomic
def redeem(code: str, secret: str, ssh_public_key: str, *, now: datetime) -> Machine:
    """Give the secret and key to the machine of this code, and return the machine.

    The same code with the same secret is accepted again until it expires, because an answer may be lost. Raises
    MalformedMessage. Raises ApiForbidden for a code that is unknown, expired, or was used with another secret.
    """
    ring = keyring.current()
    machine = (
        Machine.objects.select_for_update(no_key=True)
        .filter(
            re_enrol_code_hash__in=ring.candidates(Purpose.RE_ENROL_CODE, code),
            date_re_enrol_code_ends__gt=now,
            active=True,
        )
        .first()
    )
    is_answered_before = ring.verify(Purpose.MACHINE, secret, machine.secret_hash if machine else None)
    if machine is None or (machine.re_enrol_code_is_used and not is_answered_before):
        raise invalid_credentials()
    if machine.re_enrol_code_is_used:
        return machine
    errors = MessageErrors()
    errors.check("secret", registration.secret_for_registration, secret)
    fields = registration.key_fields("ssh_public_key", ssh_public_key, errors, uuid=machine.uuid)
    errors.raise_if_any()
    old = {"ssh_public_key": machine.ssh_public_key}
    registration.set_fields(
        machine, {**fields, "secret_hash": ring.hash(Purpose.MACHINE, secret), "re_enrol_code_is_used": True}
    )
    entry = log.NewEntry("machine.re_enrolled", machine, old=old, new={"ssh_public_key": machine.ssh_public_key})
    log.record(log.actor_of(machine), [entry], now=now)
    return machine
