"""Sources with ``expects_mount``, which are offered only while a file system is mounted at their path.

A missing disk leaves an empty directory. Its backup would look as if everything had been deleted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from turku.agent.config.sources import SourceConfig

OPTION = "expects_mount"
_LOG = logging.getLogger(__name__)


def is_missing(source: SourceConfig) -> bool:
    """Return True where the source expects a mount and its path is not a mount point."""
    return source.options.get(OPTION) is True and not os.path.ismount(os.path.realpath(source.path))


def missing(sources: Sequence[SourceConfig]) -> dict[str, str]:
    """Return the sources that are not offered, by name, with the reasons, and log them."""
    found = {}
    for source in sources:
        if is_missing(source):
            found[source.name] = f"nothing is mounted at {source.path}, and it is to be a mount point ({OPTION})"
            _LOG.error("source %s is not offered: %s", source.name, found[source.name])
    return found
