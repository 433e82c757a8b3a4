"""SSH public keys are parsed as keys."""

import base64
import struct

import pytest

from turku.errors import InvalidValue
from turku.policy.ssh_key import ssh_host_key, ssh_public_key


def field(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def number(value: int) -> bytes:
    return field(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def key(key_type: str, *fields: bytes, inside: str | None = None) -> str:
    blob = field((inside or key_type).encode()) + b"".join(fields)
    return f"{key_type} {base64.b64encode(blob).decode()}"


ED25519 = key("ssh-ed25519", field(bytes(range(32))))
RSA = key("ssh-rsa", number(65537), number(2**2047 + 1))
ECDSA = [
    key(f"ecdsa-sha2-{curve}", field(curve.encode()), field(b"\x04" + bytes(2 * size)))
    for curve, size in (("nistp256", 32), ("nistp384", 48), ("nistp521", 66))
]
SECURITY_KEYS = [
    key("sk-ssh-ed25519@openssh.com", field(bytes(32)), field(b"ssh:")),
    key("sk-ecdsa-sha2-nistp256@openssh.com", field(b"nistp256"), field(b"\x04" + bytes(64)), field(b"ssh:")),
]


@pytest.mark.parametrize("text", [ED25519, RSA, *ECDSA])
def test_keys_of_machines_and_of_hosts(text: str) -> None:
    for parse in (ssh_public_key, ssh_host_key):
        assert parse(text).line == text
        assert parse(text).type == text.partition(" ")[0]


@pytest.mark.parametrize("text", SECURITY_KEYS)
def test_a_security_key_is_a_machines_and_no_hosts(text: str) -> None:
    assert ssh_public_key(text).line == text
    with pytest.raises(InvalidValue):
        ssh_host_key(text)


@pytest.mark.parametrize("ending", ["", " turku", " a comment of words", "\n", " turku\n", "\ttabs", " größe\r\n"])
def test_only_type_and_key_are_kept(ending: str) -> None:
    assert ssh_public_key(ED25519 + ending).line == ED25519


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "ssh-ed25519", "ssh-ed25519 ", "no key", "ssh-ed25519 AAAA", "ssh-ed25519 ====", "ssh-ed25519 !"),
        f"{ED25519}\n{ED25519}",
        f"{ED25519} x\nssh-rsa AAAA",
        f"{ED25519}\n\n",
        f"{ED25519}\rx",
        f"{ED25519} \0",
        f"{ED25519} \x1b[2J",
        f"{ED25519} \u2028{ED25519}",
        f"{ED25519} \ud800",
        f'command="/bin/sh" {ED25519}',
        f'command="/bin/sh",{ED25519}',
        f"no-pty {ED25519}",
        f"# {ED25519}",
        f"@cert-authority * {ED25519}",
        f"@revoked {ED25519}",
        f"host {ED25519}",
        ED25519.replace("ssh-ed25519", "ssh-rsa"),
        ED25519.replace("ssh-ed25519", "SSH-ED25519"),
        ED25519[:-1] + "-",
        ED25519 + "=",
        ED25519.split()[1],
        key("ssh-dss", number(2**1023), number(3), number(3), number(3)),
        key("ssh-ed25519-cert-v01@openssh.com", field(bytes(32))),
        key("ssh-ed25519", field(bytes(31))),
        key("ssh-ed25519", field(bytes(32)), b"more"),
        key("ssh-ed25519", field(bytes(32)), inside="ssh-rsa"),
        key("ssh-ed25519", b"\xff\xff\xff\xff"),
        key("ssh-ed25519", b"\0"),
        key("ssh-rsa", number(65537), number(2**1023 + 1)),
        key("ssh-rsa", number(1), number(2**2047 + 1)),
        key("ssh-rsa", number(65536), number(2**2047 + 1)),
        key("ssh-rsa", number(65537), number(2**16384)),
        key("ssh-rsa", field(b""), number(2**2047)),
        key("ssh-rsa", field(b"\x80"), number(2**2047)),
        key("ssh-rsa", field(b"\0\1"), number(2**2047)),
        key("ecdsa-sha2-nistp256", field(b"nistp384"), field(b"\x04" + bytes(64))),
        key("ecdsa-sha2-nistp256", field(b"nistp256"), field(b"\x02" + bytes(32))),
        ED25519 + " " + "x" * 20_000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    for parse in (ssh_public_key, ssh_host_key):
        with pytest.raises(InvalidValue):
            parse(text)


def test_a_weak_key_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(InvalidValue) as caught:
        ssh_public_key(key("ssh-rsa", number(65537), number(2**1023 + 1)))
    assert "1024 bits" in caught.value.message
    assert "ssh-keygen" in caught.value.hint
