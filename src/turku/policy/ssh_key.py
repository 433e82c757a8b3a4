"""Parsing of SSH public keys. Lines of authorized_keys and known_hosts are written from the parsed key only."""

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from turku.errors import InvalidValue
from turku.policy.characters import is_line_break_or_control, shown

TEXT_LIMIT = 16 * 1024
SMALLEST_RSA_BITS = 2048
LARGEST_RSA_BITS = 16384
_HINT = "the one line of a .pub file: TYPE BASE64 [COMMENT]"
_CURVE_BYTES = {"nistp256": 32, "nistp384": 48, "nistp521": 66}


@dataclass(frozen=True)
class SshKey:
    """A public key of an allowed type, with a content of that type."""

    type: str
    base64: str

    @property
    def line(self) -> str:
        """``TYPE BASE64``, without anything else that was sent."""
        return f"{self.type} {self.base64}"

    @property
    def fingerprint(self) -> str:
        """Fingerprint ``SHA256:...``, as ``ssh-keygen -l`` shows it."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class _Blob:
    """A reader of the fields of a key (RFC 4251, section 5)."""

    def __init__(self, blob: bytes) -> None:
        self._rest = blob

    def string(self) -> bytes:
        if len(self._rest) < 4:
            raise InvalidValue("is cut short inside")
        (length,) = struct.unpack(">I", self._rest[:4])
        value, self._rest = self._rest[4 : 4 + length], self._rest[4 + length :]
        if len(value) != length:
            raise InvalidValue("is cut short inside")
        return value

    def number(self) -> int:
        value = self.string()
        if not value or value[0] & 0x80 or (value[0] == 0 and not (len(value) > 1 and value[1] & 0x80)):
            raise InvalidValue("has a malformed number inside")
        return int.from_bytes(value, "big")

    def end(self) -> None:
        if self._rest:
            raise InvalidValue("has more inside than its type has")


def _ed25519(blob: _Blob) -> None:
    if len(blob.string()) != 32:
        raise InvalidValue("is not 32 bytes long inside")


def _rsa(blob: _Blob) -> None:
    exponent, modulus = blob.number(), blob.number()
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise InvalidValue("has an unusable exponent")
    if not SMALLEST_RSA_BITS <= modulus.bit_length() <= LARGEST_RSA_BITS:
        raise InvalidValue(
            f"has {modulus.bit_length()} bits; RSA keys have {SMALLEST_RSA_BITS} to {LARGEST_RSA_BITS}",
            hint="make one with: ssh-keygen -t ed25519",
        )


def _ecdsa(curve: str) -> Callable[[_Blob], None]:
    def check(blob: _Blob) -> None:
        if blob.string() != curve.encode():
            raise InvalidValue("names another curve inside than outside")
        point = blob.string()
        if len(point) != 1 + 2 * _CURVE_BYTES[curve] or point[0] != 4:
            raise InvalidValue("is not a point of its curve")

    return check


def _security_key(check: Callable[[_Blob], None]) -> Callable[[_Blob], None]:
    def check_with_application(blob: _Blob) -> None:
        check(blob)
        blob.string()

    return check_with_application


_HOST_TYPES: dict[str, Callable[[_Blob], None]] = {
    "ssh-ed25519": _ed25519,
    "ssh-rsa": _rsa,
    **{f"ecdsa-sha2-{curve}": _ecdsa(curve) for curve in _CURVE_BYTES},
}
_USER_TYPES: dict[str, Callable[[_Blob], None]] = {
    **_HOST_TYPES,
    "sk-ssh-ed25519@openssh.com": _security_key(_ed25519),
    "sk-ecdsa-sha2-nistp256@openssh.com": _security_key(_ecdsa("nistp256")),
}


def ssh_public_key(text: str) -> SshKey:
    """Parse the key of a machine. Raises InvalidValue unless it is one key of an allowed type on one line."""
    return _parse(text, _USER_TYPES)


def ssh_host_key(text: str) -> SshKey:
    """Parse the host key of a storage's sshd. Raises InvalidValue likewise."""
    return _parse(text, _HOST_TYPES)


def _parse(text: str, types: dict[str, Callable[[_Blob], None]]) -> SshKey:
    if len(text) > TEXT_LIMIT:
        raise InvalidValue(f"is longer than {TEXT_LIMIT} characters, so it is not an SSH key", hint=_HINT)
    # The line break at the end of the file may be included.
    line = text.removesuffix("\n").removesuffix("\r")
    if any(is_line_break_or_control(character) and character != "\t" for character in line):
        raise InvalidValue("an SSH key is one line without control characters", hint=_HINT)
    words = line.split(maxsplit=2)
    if len(words) < 2:
        raise InvalidValue(f"{shown(line)} is not an SSH key", hint=_HINT)
    key_type, encoded = words[:2]
    if key_type not in types:
        raise InvalidValue(
            f"{shown(key_type)} is not an allowed type of SSH key; those are {', '.join(types)}", hint=_HINT
        )
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if base64.b64encode(raw).decode() != encoded:
        raise InvalidValue("the SSH key is not valid Base64", hint=_HINT)
    _check_inside(raw, key_type, types[key_type])
    return SshKey(key_type, encoded)


def _check_inside(raw: bytes, key_type: str, check: Callable[[_Blob], None]) -> None:
    blob = _Blob(raw)
    try:
        if blob.string() != key_type.encode():
            raise InvalidValue("is of another type inside than outside")
        check(blob)
        blob.end()
    except InvalidValue as error:
        raise InvalidValue(f"the SSH key {error.message}", hint=error.hint or _HINT) from None
