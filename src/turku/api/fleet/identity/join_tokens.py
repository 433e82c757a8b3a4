"""Join tokens on the coordinator: an Auth, and the one word that carries its secret to a new machine or storage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction

from turku.api.audit import log
from turku.api.configuration.tls import served
from turku.api.fleet.identity import auths, hash_keys
from turku.api.fleet.models import NAME_LENGTH, Auth, AuthKind
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, UsageError
from turku.protocol.certificate import FINGERPRINTS_LIMIT
from turku.protocol.client import checked_url
from turku.protocol.join_token import JoinKind, JoinToken

DEFAULT_LIFETIME: Final = timedelta(hours=24)
"""Long enough for the machines of one day's work. A token that turns up later in a shell history registers nobody."""
DEFAULT_USES: Final = {JoinKind.MACHINE: 100, JoinKind.STORAGE: 1}
"""A storage receives files of machines, so a token lets in the one that it was made for. One token is pasted on many
machines. If it leaks, it lets in a limited number of strangers, who see nothing of others."""
AUTH_KINDS: Final = {JoinKind.MACHINE: AuthKind.MACHINE, JoinKind.STORAGE: AuthKind.STORAGE}
_VERSION: Final = "/v1"


@dataclass(frozen=True)
class IssuedToken:
    """A join token and the Auth that it registers with. ``word`` is shown once and stored nowhere."""

    auth: Auth
    token: JoinToken

    @property
    def word(self) -> Secret:
        """The word that ``setup`` takes."""
        return Secret(self.token.encode())


def create(
    kind: JoinKind,
    *,
    uses: int | None,
    ends: datetime | None,
    now: datetime,
    note: str = "",
    name: str = "",
    url: str = "",
    key_fingerprints: Sequence[str] | None = None,
    actor: log.Actor = log.COMMAND_LINE,
) -> IssuedToken:
    """Create a join token. None as ``uses`` or ``ends`` sets no limit.

    Without a ``url`` it is ``coordinator_url()``. ``key_fingerprints`` are by default those of the certificate that the
    coordinator made itself. With none, the certificate is verified by the authorities of the system. Raises UsageError,
    and ConfigurationError for a certificate that cannot be read.
    """
    address = _address(url)
    if key_fingerprints is None:
        key_fingerprints = served.pinned_keys()
    if len(key_fingerprints) > FINGERPRINTS_LIMIT:
        raise UsageError(f"a join token holds at most {FINGERPRINTS_LIMIT} key fingerprints")
    name = name or f"{kind.value}-{now:%Y-%m-%d}-{generate_secret(6).reveal()}"
    for what, text in (("name", name), ("note", note)):
        if len(text) > NAME_LENGTH or not text.isprintable():
            raise UsageError(f"the {what} of a join token must be printable and at most {NAME_LENGTH} characters long")
    hash_keys.register_newest_key(now=now)
    with transaction.atomic():
        auth, secret = auths.create(AUTH_KINDS[kind], name, now=now, comment=note, uses_limit=uses, date_ends=ends)
        record_creation(auth, actor=actor, now=now)
    return IssuedToken(auth, JoinToken(kind, address, secret, tuple(key_fingerprints)))


def token_of(auth: Auth, secret: Secret) -> JoinToken:
    """Return the join token of an Auth whose secret is still known. Raises UsageError without an address."""
    return JoinToken(kind_of(auth), coordinator_url(), secret, tuple(served.pinned_keys()))


def kind_of(auth: Auth) -> JoinKind:
    """Return the kind of the join tokens of an Auth."""
    return next(kind for kind, auth_kind in AUTH_KINDS.items() if auth_kind == auth.kind)


def record_creation(auth: Auth, *, actor: log.Actor, now: datetime) -> None:
    """Write the new Auth of a token to the audit log."""
    kind = AuthKind(auth.kind).label
    new = {"name": auth.name, "kind": kind, "uses": auth.uses_limit, "ends": auth.date_ends}
    log.record(actor, [log.NewEntry("auth.added", auth, new=new)], now=now)


def _address(url: str) -> str:
    try:
        address = checked_url(url) if url else coordinator_url()
    except ConfigurationError as error:
        raise UsageError(error.message.replace("api_url", "the address of a join token"), hint=error.hint) from None
    return address if address.endswith(_VERSION) else f"{address}{_VERSION}"


def coordinator_url() -> str:
    """Return the address for agents and storages, with the version. Raises UsageError if it is not configured."""
    environment = settings.TURKU_ENVIRONMENT
    if environment.url:
        return f"{environment.url}{_VERSION}"
    host = next((host for host in environment.allowed_hosts if not host.startswith(".")), "")
    if not host or not environment.is_public:
        raise UsageError(
            "the address of this coordinator is not known: TURKU_URL is not set, and TURKU_ALLOWED_HOSTS names no host",
            hint="set TURKU_URL=https://turku.example.com in /etc/turku-api/environment, or give --url",
        )
    return f"https://{host}{_VERSION}"
