"""Join tokens: one word that tells a new machine or storage all that it needs to register with a coordinator.

A token is ``turku-machine-`` or ``turku-storage-``, followed by its content in URL-safe Base64. The content ends with a
checksum, so that a word that was cut off while it was pasted is told from one that is not valid any more.
"""

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from turku.core.secret import Secret
from turku.errors import ConfigurationError, UsageError
from turku.protocol.certificate import FINGERPRINTS_LIMIT, Fingerprint
from turku.protocol.client import checked_url

LIMIT_CHARACTERS: Final = 2048
KEYS: Final = ("api_url", "api_key_fingerprints")
"""Keys of the configuration that a token sets. A token without fingerprints ends those of an earlier coordinator."""
_CHECKSUM_BYTES: Final = 4
_HINT: Final = "make a new one on the coordinator: turku-api join-token create"


class JoinKind(StrEnum):
    """The program that a token is for."""

    MACHINE = "machine"
    STORAGE = "storage"


class _Content(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(max_length=1000)]
    secret: Annotated[str, Meta(min_length=20, max_length=200)]
    key_fingerprints: Annotated[tuple[Fingerprint, ...], Meta(max_length=FINGERPRINTS_LIMIT)] = ()


@dataclass(frozen=True)
class JoinToken:
    """An address, a registration secret, and the keys by which the coordinator is recognized there.

    Without ``key_fingerprints`` the coordinator's certificate is verified by the authorities of the system.
    """

    kind: JoinKind
    url: str
    secret: Secret
    key_fingerprints: tuple[str, ...] = ()

    def encode(self) -> str:
        """Return the token as one word."""
        content = msgspec.json.encode(_Content(self.url, self.secret.reveal(), self.key_fingerprints))
        return f"turku-{self.kind}-{urlsafe_b64encode(content + _checksum(content)).decode().rstrip('=')}"

    def configuration(self) -> dict[str, Any]:
        """Return what a configuration needs to know of the coordinator. The secret is in none."""
        pinned = {"api_key_fingerprints": list(self.key_fingerprints)} if self.key_fingerprints else {}
        return {"api_url": self.url, **pinned}

    def digest(self) -> str:
        """Return the digest by which a setup knows that it was given this token before."""
        return hashlib.sha256(self.encode().encode()).hexdigest()


def decode(text: str, *, kind: JoinKind) -> JoinToken:
    """Return the token that the word is. Its secret is in no message. Raises UsageError."""
    word = "".join(text.split())
    prefix = next((f"turku-{each}-" for each in JoinKind if word.startswith(f"turku-{each}-")), None)
    if prefix is None or len(word) > LIMIT_CHARACTERS:
        raise UsageError("this is not a join token: one begins with turku-machine- or turku-storage-", hint=_HINT)
    if prefix != f"turku-{kind}-":
        raise UsageError(
            f"this join token is for a {prefix.split('-')[1]}, and this program sets up a {kind}",
            hint=f"on the coordinator: turku-api join-token create {kind}",
        )
    encoded = word.removeprefix(prefix)
    try:
        payload = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        payload = b""
    content, checksum = payload[:-_CHECKSUM_BYTES], payload[-_CHECKSUM_BYTES:]
    if not content or _checksum(content) != checksum:
        raise UsageError("this join token is damaged: was it cut off while it was pasted?", hint="paste it whole")
    try:
        read = msgspec.json.decode(content, type=_Content)
        url = checked_url(read.url)
    except (msgspec.MsgspecError, UnicodeError):
        raise UsageError("this join token is from another version of Turku, or forged", hint=_HINT) from None
    except ConfigurationError as error:
        raise UsageError(f"this join token leads to no usable address: {error.message}", hint=_HINT) from None
    return JoinToken(kind, url, Secret(read.secret), read.key_fingerprints)


def in_force(token: JoinToken | None, *, is_known: bool, before: Mapping[str, Any]) -> JoinToken | None:
    """Return the token if it sets the configuration. One that was used does not undo what was edited since."""
    return None if is_known and "api_url" in before else token


def require_address(token: JoinToken, api_url: str) -> None:
    """Raise UsageError if an administrator's own file leads to another coordinator than the token is from."""
    if api_url.rstrip("/") != token.url.rstrip("/"):
        raise UsageError(
            f"this join token is from {token.url}, and a file in config.d has the api_url {api_url}",
            hint="remove api_url from that file, or use a token of that coordinator",
        )


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM_BYTES]
