"""The certificate that the coordinator serves, and the keys that it announces to programs that pin them."""

from pathlib import Path
from typing import Final

from django.conf import settings

from turku.api.configuration.tls.certificate_files import CertificateFiles, read_certificate
from turku.errors import ConfigurationError

_cached: dict[Path, tuple[object, str]] = {}
NEXT_KEY_FILE: Final = "next-key.pem"
NEXT_CERTIFICATE_FILE: Final = "next-certificate.pem"


def files() -> CertificateFiles | None:
    """Return the files that the settings name, or None if a proxy speaks TLS."""
    environment = settings.TURKU_ENVIRONMENT
    if environment.tls_certificate is None or environment.tls_key is None:
        return None
    return CertificateFiles(environment.tls_certificate, environment.tls_key)


def next_files() -> CertificateFiles:
    """Return the files of the next key, which exist while a change of the key is announced."""
    directory = settings.TURKU_ENVIRONMENT.tls_directory
    return CertificateFiles(directory / NEXT_CERTIFICATE_FILE, directory / NEXT_KEY_FILE)


def announced_keys() -> list[str]:
    """Return the fingerprints of the served key and of the next one. Both files are read when they were replaced."""
    serving = files()
    if serving is None:
        return []
    found = [_fingerprint(serving.certificate), _fingerprint(next_files().certificate)]
    return list(dict.fromkeys(key for key in found if key))


def pinned_keys() -> list[str]:
    """Return the fingerprints that a join token holds: none if an authority vouches for the certificate."""
    serving = files()
    return announced_keys() if serving is not None and serving.parsed().is_self_made else []


def next_fingerprint() -> str:
    """Return the fingerprint of the next key, or an empty text if no change is announced."""
    found = announced_keys()
    return found[1] if len(found) > 1 else ""


def _fingerprint(path: Path) -> str:
    """Return the fingerprint of the key of a certificate, or an empty text without a usable one."""
    try:
        signature = (path.stat().st_ino, path.stat().st_mtime_ns)
        known = _cached.get(path)
        if known is None or known[0] != signature:
            known = _cached[path] = (signature, read_certificate(path).key_fingerprint)
    except (OSError, ConfigurationError):
        return ""
    return known[1]
