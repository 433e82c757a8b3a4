"""Registration Auths: making them and finding the one that a request names."""

from datetime import datetime

from django.db import IntegrityError, transaction

from turku.api.fleet.identity import keyring
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Auth, AuthKind
from turku.core.secret import Secret, generate_secret
from turku.errors import UsageError
from turku.protocol.messages import Registration, RegistrationAuth


def prepare(auth: Auth, *, now: datetime) -> Secret:
    """Set the hash of an unsaved Auth to that of a new secret, and return the secret."""
    secret = generate_secret()
    auth.secret_hash = keyring.current().hash(Purpose.AUTH, secret.reveal())
    auth.date_added = now
    return secret


def create(kind: AuthKind, name: str, *, now: datetime, comment: str = "") -> tuple[Auth, Secret]:
    """Create an Auth and return it with its secret, which is not stored. Raises UsageError for a name that is taken."""
    auth = Auth(kind=kind, name=name, comment=comment)
    secret = prepare(auth, now=now)
    try:
        with transaction.atomic():
            auth.save()
    except IntegrityError:
        raise UsageError(f"a {kind.label} auth named {name!r} exists already", hint="choose another --name") from None
    return auth, secret


def find(kind: AuthKind, given: RegistrationAuth) -> Auth | None:
    """Return the active Auth with these credentials, or None for any mistake in them."""
    ring = keyring.current()
    if isinstance(given, Registration):
        named = Auth.objects.filter(kind=kind, name=given.name).first()
        matches = ring.verify(Purpose.AUTH, given.secret, named.secret_hash if named else None)
        auth, secret = (named if matches else None), given.secret
    else:
        secret = given
        auth = Auth.objects.filter(kind=kind, secret_hash__in=ring.candidates(Purpose.AUTH, secret)).first()
    if auth is None or not auth.active:
        return None
    if ring.is_outdated(auth.secret_hash):
        Auth.objects.filter(pk=auth.pk).update(secret_hash=ring.hash(Purpose.AUTH, secret))
    return auth
