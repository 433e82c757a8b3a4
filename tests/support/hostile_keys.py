"""Texts that are not one SSH key, each of which would be worth something to an attacker in authorized_keys or
known_hosts."""

import base64

from tests.support.v1_client import A_KEY, ssh_key

OTHER_KEY = ssh_key(bytes(range(1, 33)))
TYPE, BASE64, _COMMENT = A_KEY.split()


def _blob(kind: str, *fields: bytes) -> str:
    parts = (kind.encode(), *fields)
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


HOSTILE_KEYS: dict[str, str] = {
    "two lines": f"{A_KEY}\n{OTHER_KEY}",
    "a carriage return": f"{A_KEY}\r{OTHER_KEY}",
    "a line of Unicode": f"{A_KEY}\u2028{OTHER_KEY}",
    "NUL": f"{A_KEY}\0",
    "a vertical tab": f"{A_KEY}\v{OTHER_KEY}",
    "a forced command": f'command="/bin/sh" {A_KEY}',
    "options without a blank": f'command="id",{A_KEY}',
    "an environment": f'environment="LD_PRELOAD=/x" {A_KEY}',
    "another listener": f'permitlisten="*:22" {A_KEY}',
    "a certificate authority": f"cert-authority {A_KEY}",
    "an authority of hosts": f"@cert-authority * {A_KEY}",
    "a comment": f"# {A_KEY}",
    "an unknown type": f"ssh-magic {_blob('ssh-magic', bytes(32))}",
    "a type that is too weak": f"ssh-dss {_blob('ssh-dss', bytes(64))}",
    "a certificate": f"ssh-ed25519-cert-v01@openssh.com {BASE64}",
    "another type inside": f"ssh-rsa {BASE64}",
    "more inside": f"{TYPE} {_blob('ssh-ed25519', bytes(32), b'more')}",
    "half a key": f"{TYPE} {BASE64[:-8]}",
    "no Base64": f"{TYPE} $(touch /tmp/x)",
    "a type alone": TYPE,
    "blanks": " ",
    "too long": f"{A_KEY} {'x' * 4000}{'y' * 20_000}",
}
