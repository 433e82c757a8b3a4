"""Keyed fast hashes of secrets that are random and long, and the keys they are made with.

People's passwords are not such secrets: they stay with Django's slow hashes.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum
from functools import cache

from django.conf import settings

from turku.api.configuration import key_file
from turku.api.configuration.environment import Environment
from turku.core.secret import Secret
from turku.errors import ConfigurationError

MINIMUM_KEY_LENGTH = 32
MINIMUM_SECRET_LENGTH = 16
"""A fast hash is right only for secrets that nobody can guess."""
_NOTHING = "0" * 64


class Purpose(Enum):
    """The kind of a secret. The same text hashes differently for each kind."""

    AUTH = "auth"
    MACHINE = "machine"
    STORAGE = "storage"
    RE_ENROL_CODE = "re-enrol code"


@dataclass(frozen=True)
class DigestKey:
    """One hash key. ``id`` is public: it stands before each hash made with the key."""

    id: str
    secret: Secret

    def digest(self, purpose: Purpose, secret: str) -> str:
        message = f"{purpose.value}:{secret}".encode()
        return hmac.new(self.secret.reveal().encode(), message, hashlib.sha256).hexdigest()


class UnknownHashKey(ConfigurationError):
    """A credential is hashed with a key that this coordinator does not have."""

    code = "unknown-hash-key"


class Keyring:
    """The keys of this coordinator, newest first."""

    def __init__(self, keys: tuple[DigestKey, ...]) -> None:
        self.keys = keys
        self._by_id = {key.id: key for key in keys}

    @property
    def newest(self) -> DigestKey:
        return self.keys[0]

    def hash(self, purpose: Purpose, secret: str) -> str:
        """Return the hash to store: key id, colon, and 64 hexadecimal digits, made with the newest key."""
        return f"{self.newest.id}:{self.newest.digest(purpose, secret)}"

    def candidates(self, purpose: Purpose, secret: str) -> list[str]:
        """Return the possible stored hashes of this secret, one for each key."""
        return [f"{key.id}:{key.digest(purpose, secret)}" for key in self.keys]

    def verify(self, purpose: Purpose, secret: str, stored: str | None) -> bool:
        """Return True if ``stored`` is the hash of ``secret``.

        None, for an unknown name, is False and takes the same time. Raises UnknownHashKey.
        """
        key_id, _, digest = (stored or f"{self.newest.id}:{_NOTHING}").partition(":")
        key = self._by_id.get(key_id)
        if key is None:
            raise UnknownHashKey(
                f"credentials in the database are hashed with key {key_id}, which this coordinator does not have",
                hint="give all coordinators of one database the same hash key file (TURKU_HASH_KEY_FILE)",
            )
        return hmac.compare_digest(key.digest(purpose, secret), digest)

    def is_outdated(self, stored: str) -> bool:
        """Return True if the hash was not made with the newest key."""
        return not stored.startswith(f"{self.newest.id}:")


def make_key(text: str) -> DigestKey:
    """Return the key of that text. Raises ConfigurationError for a short text."""
    if len(text) < MINIMUM_KEY_LENGTH:
        raise ConfigurationError(
            f"a hash key is shorter than {MINIMUM_KEY_LENGTH} characters", hint="`turku-api hash-key rotate` makes one"
        )
    identity = hashlib.blake2b(text.encode(), digest_size=8, person=b"turku-key-id").hexdigest()
    return DigestKey(identity, Secret(text))


def load(environment: Environment) -> Keyring:
    """Return the keyring of that environment. Raises ConfigurationError."""
    text = environment.hash_keys or key_file.read(environment.hash_key_file)
    lines = [line.strip() for line in text.reveal().splitlines()]
    return Keyring(tuple(make_key(line) for line in lines if line))


@cache
def _cached(environment: Environment) -> Keyring:
    return load(environment)


def current() -> Keyring:
    """Return the keyring of the settings, which is read once."""
    return _cached(settings.TURKU_ENVIRONMENT)


def forget() -> None:
    """Read the keys again at the next use: after a rotation, or when a hash names an unknown key."""
    _cached.cache_clear()
