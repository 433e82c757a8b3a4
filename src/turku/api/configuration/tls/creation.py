"""Keys and certificates that the coordinator makes for itself, with the openssl program."""

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from turku.api.configuration.tls.certificate_files import CertificateFiles
from turku.core import command, durable
from turku.errors import InvalidValue, UsageError
from turku.policy import names as name_rules

CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"
_DAYS: Final = 3650
_OPENSSL_SECONDS: Final = 30
_EXTENSIONS: Final = """\
[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
[subject]
CN = Turku coordinator
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = {names}
"""
"""Everything that a strict verification (RFC 5280) demands. Whoever trusts it trusts it for these names alone."""


def create_certificate(directory: Path, names: Sequence[str]) -> CertificateFiles:
    """Make a key and a certificate that vouches for itself, for host names and addresses, in the directory.

    The directory is made where it is missing. Raises UsageError for a name that is not valid or a key that exists.
    """
    names_text = alternative_names(names)
    durable.make_private_directory(directory)
    files = CertificateFiles(directory / CERTIFICATE_FILE, directory / KEY_FILE)
    if not durable.write_new_text(files.key, new_key()):
        raise UsageError(
            f"{files.key} exists already",
            hint="machines may recognize the coordinator by it; change it by turku-api tls next-key and tls switch",
        )
    durable.write_text(files.certificate, certificate_for(files.key, names_text), mode=0o644)
    return files


def new_key() -> str:
    """Return a new private key, as PEM. Raises CommandFailed."""
    arguments = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    return command.run(["openssl", *arguments], timeout_seconds=_OPENSSL_SECONDS).stdout.decode()


def certificate_for(key: Path, names_text: str) -> str:
    """Return a new certificate for the key, as PEM. ``names_text`` is what ``alternative_names`` returned."""
    content = _EXTENSIONS.format(names=names_text).encode()
    arguments = ("req", "-new", "-x509", "-sha256", "-days", str(_DAYS), "-config", "/dev/stdin", "-key", key)
    return command.run(["openssl", *arguments], timeout_seconds=_OPENSSL_SECONDS, input_bytes=content).stdout.decode()


def alternative_names(names: Sequence[str]) -> str:
    """Return the names as openssl's configuration has them. Raises UsageError."""
    if not names:
        raise UsageError("a certificate needs at least one name")
    return ", ".join(map(_alternative_name, names))


def _alternative_name(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        pass
    try:
        return f"DNS:{name_rules.host_name(name)}"
    except InvalidValue as error:
        raise UsageError(f"{name!r} is not a host name: {error.message}") from None
