"""The parts of an X.509 certificate by which a coordinator's key is recognized.

The standard library gives a peer's certificate as DER bytes and nothing of its key. This module walks over the few
elements in front of the key, and reads nothing else (RFC 5280, "Basic Certificate Fields").
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from turku.errors import InvalidValue

Fingerprint = Annotated[str, Meta(pattern=r"\ASHA256:[A-Za-z0-9+/]{43}\Z")]
"""The SHA-256 of a public key (DER, SubjectPublicKeyInfo) in Base64 without padding, as OpenSSH writes fingerprints."""
FINGERPRINTS_LIMIT: Final = 4
"""Most keys by which one coordinator is recognized at a time."""
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_VERSION: Final = 0xA0


@dataclass(frozen=True)
class Certificate:
    """The DER elements of a certificate that are compared, each with its tag and length."""

    issuer: bytes
    subject: bytes
    public_key: bytes
    """SubjectPublicKeyInfo."""

    @property
    def is_self_made(self) -> bool:
        """True if it names itself as its issuer: no authority vouches for it."""
        return self.issuer == self.subject

    @property
    def key_fingerprint(self) -> str:
        """The fingerprint of its key, which stays the same when the certificate is renewed for the same key."""
        return f"SHA256:{b64encode(hashlib.sha256(self.public_key).digest()).decode().rstrip('=')}"


def parse(der: bytes) -> Certificate:
    """Return the parts of a certificate. Raises InvalidValue for any other bytes."""
    whole, rest = _element(der)
    if rest:
        raise InvalidValue("bytes follow the certificate")
    to_be_signed = _only(next(_content(whole, _SEQUENCE), b""), _SEQUENCE)
    fields = list(_content(to_be_signed, _SEQUENCE))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    # Serial number, signature algorithm, issuer, validity, subject, key.
    if len(fields) < 6:
        raise InvalidValue("the certificate ends before its key")
    _only(fields[0], _INTEGER)
    issuer, subject, public_key = (_only(fields[index], _SEQUENCE) for index in (2, 4, 5))
    return Certificate(issuer, subject, public_key)


def _only(element: bytes, tag: int) -> bytes:
    """Return the element. Raises InvalidValue if it has another tag."""
    if element[:1] != bytes([tag]):
        raise InvalidValue("it is not a certificate")
    return element


def _content(element: bytes, tag: int) -> Iterator[bytes]:
    """Yield the elements within an element."""
    rest = _only(element, tag)[_header_length(element) :]
    while rest:
        inner, rest = _element(rest)
        yield inner


def _header_length(element: bytes) -> int:
    return 2 + (element[1] & 0x7F if element[1] & 0x80 else 0)


def _element(data: bytes) -> tuple[bytes, bytes]:
    """Return the first DER element, with its tag and length, and what follows it."""
    if len(data) < 2:
        raise InvalidValue("the certificate is cut off")
    length_bytes = data[1] & 0x7F if data[1] & 0x80 else 0
    header = 2 + length_bytes
    # DER has no indefinite length, and no certificate needs more than four bytes for one.
    if data[1] == 0x80 or length_bytes > 4 or len(data) < header:
        raise InvalidValue("the certificate is cut off")
    end = header + (int.from_bytes(data[2:header]) if length_bytes else data[1])
    if len(data) < end:
        raise InvalidValue("the certificate is cut off")
    return data[:end], data[end:]
