"""The next key: made and announced beforehand, and later put in the place of the served one."""

import re
from typing import Final

from turku.api.configuration.tls import creation, served
from turku.api.configuration.tls.certificate_files import CertificateFiles
from turku.core import durable
from turku.errors import ConfigurationError, UsageError

_CREATE_HINT: Final = "set TURKU_TLS_CERTIFICATE and TURKU_TLS_KEY; turku-api tls create makes a certificate"


def serving() -> CertificateFiles:
    """Return the files that are served. Raises ConfigurationError if a proxy speaks TLS."""
    found = served.files()
    if found is None:
        raise ConfigurationError("this coordinator speaks no TLS itself, so it has no key to change", hint=_CREATE_HINT)
    return found


def make() -> str:
    """Make the next key and a certificate for the names of the served one, and return the key's fingerprint.

    From then on it is announced. Raises UsageError if there is one already.
    """
    files = serving()
    files.parsed()
    if served.next_fingerprint():
        raise UsageError(
            f"there is a next key already: {served.next_fingerprint()}", hint="turku-api tls switch puts it in use"
        )
    names = re.split(r",\s*", files.description().names)
    following = served.next_files()
    durable.make_private_directory(following.key.parent)
    durable.write_text(following.key, creation.new_key())
    certificate = creation.certificate_for(following.key, creation.alternative_names(names))
    durable.write_text(following.certificate, certificate, mode=0o644)
    return following.parsed().key_fingerprint


def require() -> str:
    """Return the fingerprint of the next key, which can be put in use. Raises UsageError."""
    files = serving()
    fingerprint = served.next_fingerprint()
    if not fingerprint:
        raise UsageError("there is no next key", hint="turku-api tls next-key makes and announces one")
    if not files.parsed().is_self_made:
        raise UsageError(
            f"{files.certificate} is from an authority, which must sign the next key as well",
            hint=f"have it sign {served.next_files().key}, then replace {files.certificate} and {files.key} by both",
        )
    return fingerprint


def switch() -> None:
    """Put the next key and its certificate in the place of the served ones. ``require`` must have agreed.

    It can be repeated after a power cut between its steps.
    """
    files, following = serving(), served.next_files()
    durable.write_bytes(files.key, following.key.read_bytes())
    durable.write_bytes(files.certificate, following.certificate.read_bytes(), mode=0o644)
    following.certificate.unlink()
    following.key.unlink()
    durable.fsync_directory(following.key.parent)
