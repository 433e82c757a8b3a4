"""A certificate and its key as files, and what the certificate says."""

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from turku.api.configuration import key_file
from turku.core import command
from turku.errors import ConfigurationError, InvalidValue
from turku.protocol import certificate
from turku.protocol.certificate import Certificate

_LIMIT_BYTES = 1024 * 1024
_FIRST = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_OPENSSL_SECONDS = 30


@dataclass(frozen=True)
class Description:
    """The part of a certificate that people are shown."""

    names: str
    ends: datetime


@dataclass(frozen=True)
class CertificateFiles:
    """The files of a certificate, with those of its authorities behind it, and of its key."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return the context of a server that shows the certificate. Raises ConfigurationError that names the file."""
        self.parsed()
        _require_private(self.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION

        def refuse_encrypted() -> NoReturn:
            raise ConfigurationError(f"{self.key}: the key is encrypted", hint="nobody is there to type its password")

        try:
            context.load_cert_chain(self.certificate, self.key, password=refuse_encrypted)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigurationError(
                    f"{self.key}: is not the key of {self.certificate}", hint="were both files renewed?"
                ) from None
            raise ConfigurationError(
                f"{self.certificate} and {self.key} cannot be used: {(error.reason or str(error)).replace('_', ' ')}",
                hint="both must be PEM files: the certificate with those of its authorities, and its key",
            ) from None
        except OSError as error:
            raise _unreadable(self.key, error) from None
        return context

    def parsed(self) -> Certificate:
        """Return the parsed certificate. Raises ConfigurationError."""
        return read_certificate(self.certificate)

    def signature(self) -> tuple[object, ...]:
        """Return a value that is another one after either file was replaced."""
        return tuple(map(_identity, (self.certificate, self.key)))

    def description(self) -> Description:
        """Return what the certificate says. Raises CommandFailed."""
        return describe(self.certificate)


def _identity(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_certificate(path: Path) -> Certificate:
    """Return the first certificate in a PEM file, which is the server's own. Raises ConfigurationError."""
    try:
        with path.open("rb") as stream:
            found = _FIRST.search(stream.read(_LIMIT_BYTES))
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        if found is None:
            raise InvalidValue("it holds no PEM certificate")
        return certificate.parse(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii")))
    except (InvalidValue, ValueError) as error:
        reason = error.message if isinstance(error, InvalidValue) else "it holds no PEM certificate"
        raise ConfigurationError(f"{path}: is not a certificate: {reason}") from None


def describe(path: Path) -> Description:
    """Return what the certificate in a file says, as openssl shows it. Raises CommandFailed."""
    shown = command.run(
        ["openssl", "x509", "-in", path, "-noout", "-enddate", "-ext", "subjectAltName"],
        timeout_seconds=_OPENSSL_SECONDS,
    ).stdout.decode("utf-8", "replace")
    ends = next(line.partition("=")[2] for line in shown.splitlines() if line.startswith("notAfter="))
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", shown)
    return Description(", ".join(names) or "none", datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC))


def _require_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from None
    key_file.require_private(path, mode)


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: cannot be read: {error.strerror or error}",
        hint="both files must be readable for the user that runs turku-api",
    )
