"""The versions of this storage's programs, as the coordinator is told them."""

import logging
from typing import Final

import msgspec

from turku.core import durable
from turku.core.kernel import host_software
from turku.core.kernel.host_software import KnownProgram
from turku.errors import DurableWriteFailed
from turku.storage.config.model import StorageConfig

_FILE: Final = "versions.json"
_LIMIT_BYTES: Final = 64 * 1024
_LOG = logging.getLogger(__name__)


def versions(configuration: StorageConfig) -> dict[str, str]:
    """Return the versions. A program is asked when its file has changed."""
    path = configuration.state.var_dir / _FILE
    known: dict[str, KnownProgram] = {}
    try:
        content = durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES)
        known = msgspec.json.decode(content, type=dict[str, KnownProgram])
    except (OSError, msgspec.MsgspecError, UnicodeError):
        _LOG.debug("%s has no versions yet", path)
    commands = {"rsync": configuration.receiving.rsync_command, "ssh": ("ssh",)}
    found, programs = host_software.versions(commands, known)
    if programs != known:
        try:
            durable.write_json(path, msgspec.to_builtins(programs))
        except DurableWriteFailed as error:
            # They are asked again in the next run.
            _LOG.debug("%s", error.message)
    return found
