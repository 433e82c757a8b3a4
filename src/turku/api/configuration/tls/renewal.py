"""Renewed certificates are used without a restart."""

import logging
import ssl

from turku.api.configuration.tls.certificate_files import CertificateFiles
from turku.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


class RenewedContext:
    """The context of the newest usable certificate. Files that cannot be used leave the earlier one in use."""

    def __init__(self, files: CertificateFiles) -> None:
        """Load the certificate. Raises ConfigurationError."""
        self._files = files
        self._signature = files.signature()
        self._refused: object = None
        self._context = files.context()

    def current(self) -> ssl.SSLContext:
        """Return the context for the next connection. It costs two calls of ``stat`` while nothing changes."""
        signature = self._files.signature()
        if signature not in (self._signature, self._refused):
            self._renew(signature)
        return self._context

    def _renew(self, signature: tuple[object, ...]) -> None:
        try:
            self._context = self._files.context()
        except ConfigurationError as error:
            self._refused = signature
            _LOG.error("the new certificate is not used, and the earlier one stays: %s", error.message)
            return
        self._signature, self._refused = signature, None
        _LOG.info("from now on %s is served: %s", self._files.certificate, self._files.parsed().key_fingerprint)
