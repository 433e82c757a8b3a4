"""Registration Auths: making them, finding the one that a request names, and counting its uses."""

import logging
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import IntegrityError, transaction
from django.db.models import F, Q

from turku.api.audit import log
from turku.api.fleet.identity import keyring
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Auth, AuthKind
from turku.core.secret import Secret, generate_secret
from turku.errors import UsageError
from turku.protocol.messages import Registration, RegistrationAuth

_LOG = logging.getLogger(__name__)
_REFUSAL_RESOLUTION = timedelta(hours=1)
"""A machine with an Auth that ended asks again every few minutes. The audit log names it this often at most."""


class AuthState(StrEnum):
    """The reason why an Auth registers nobody, or ``open``."""

    OPEN = "open"
    USED_UP = "used up"
    ENDED = "ended"
    REVOKED = "revoked"


def state(auth: Auth, *, now: datetime) -> AuthState:
    """Return the state of the Auth."""
    if not auth.active:
        return AuthState.REVOKED
    if auth.date_ends is not None and auth.date_ends <= now:
        return AuthState.ENDED
    if auth.uses_limit is not None and auth.uses_count >= auth.uses_limit:
        return AuthState.USED_UP
    return AuthState.OPEN


def is_open(*, now: datetime) -> Q:
    """Return the condition for Auths that register."""
    has_use_left = Q(uses_limit=None) | Q(uses_count__lt=F("uses_limit"))
    return Q(active=True) & (Q(date_ends=None) | Q(date_ends__gt=now)) & has_use_left


def prepare(auth: Auth, *, now: datetime) -> Secret:
    """Set the hash of an unsaved Auth to that of a new secret, and return the secret."""
    secret = generate_secret()
    auth.secret_hash = keyring.current().hash(Purpose.AUTH, secret.reveal())
    auth.date_added = now
    return secret


def create(
    kind: AuthKind,
    name: str,
    *,
    now: datetime,
    comment: str = "",
    uses_limit: int | None = None,
    date_ends: datetime | None = None,
) -> tuple[Auth, Secret]:
    """Create an Auth and return it with its secret, which is not stored. Raises UsageError for a name that is taken."""
    auth = Auth(kind=kind, name=name, comment=comment, uses_limit=uses_limit, date_ends=date_ends)
    secret = prepare(auth, now=now)
    try:
        with transaction.atomic():
            auth.save()
    except IntegrityError:
        raise UsageError(f"a {kind.label} auth named {name!r} exists already", hint="choose another --name") from None
    return auth, secret


def find(kind: AuthKind, given: RegistrationAuth, *, now: datetime) -> Auth | None:
    """Return the open Auth with these credentials, or None for any mistake in them.

    Why an Auth that is not open refuses is for the log alone: a stranger must not learn that a secret was one.
    """
    ring = keyring.current()
    if isinstance(given, Registration):
        named = Auth.objects.filter(kind=kind, name=given.name).first()
        matches = ring.verify(Purpose.AUTH, given.secret, named.secret_hash if named else None)
        auth, secret = (named if matches else None), given.secret
    else:
        secret = given
        auth = Auth.objects.filter(kind=kind, secret_hash__in=ring.candidates(Purpose.AUTH, secret)).first()
    if auth is None:
        return None
    found = state(auth, now=now)
    if found is not AuthState.OPEN:
        _note_refusal(auth, found, now=now)
        return None
    if ring.is_outdated(auth.secret_hash):
        Auth.objects.filter(pk=auth.pk).update(secret_hash=ring.hash(Purpose.AUTH, secret))
    return auth


def _note_refusal(auth: Auth, found: AuthState, *, now: datetime) -> None:
    _LOG.warning("a registration with %s is refused: it is %s", auth, found)
    if not log.was_recorded(log.COORDINATOR, "auth.refused", auth, within=_REFUSAL_RESOLUTION, now=now):
        log.record(log.COORDINATOR, [log.NewEntry("auth.refused", auth, new={"reason": found.value})], now=now)


def count_use(auth: Auth, *, now: datetime) -> bool:
    """Count a registration, in its transaction. Return False if the Auth registers nobody any more.

    Of several registrations at once, only as many as there are uses left can change the row.
    """
    counted = Auth.objects.filter(is_open(now=now), pk=auth.pk).update(uses_count=F("uses_count") + 1)
    if not counted:
        _LOG.warning("a registration with %s is refused: it ended, or another one had its last use just now", auth)
    return bool(counted)


def revoke(auth: Auth, *, actor: log.Actor, now: datetime) -> None:
    """Let the Auth register nobody any more. What registered with it stays."""
    with transaction.atomic():
        Auth.objects.filter(pk=auth.pk).update(active=False)
        changes = {"active": (auth.active, False)}
        auth.active = False
        log.record(actor, [log.change_entry("auth.changed", auth, changes)], now=now)
