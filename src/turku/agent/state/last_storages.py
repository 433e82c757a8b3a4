"""The storages of this machine's sources as the coordinator named them last, for a restore while it is away.

The record is as little trusted as the coordinator was: a storage still needs a host key that this machine knows.
"""

import logging
from collections.abc import Mapping

import msgspec

from turku.agent.config.model import AgentState
from turku.agent.state import var_dir
from turku.core import durable
from turku.protocol.messages import StorageAddress

FILE = "last_storages.json"
_LIMIT_BYTES = 4 * 1024 * 1024
_LOG = logging.getLogger(__name__)


def known(configuration: AgentState) -> dict[str, StorageAddress]:
    """Return the storage of each source, by its name. Empty where none is recorded."""
    path = configuration.var_dir / FILE
    try:
        content = durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=dict[str, StorageAddress])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        _LOG.warning("%s cannot be read: %s", path, error)
        return {}


def remember(configuration: AgentState, storages: Mapping[str, StorageAddress], *, is_whole: bool = False) -> None:
    """Record the storages of these sources, where they changed. With ``is_whole``, others have none any more."""
    before = known(configuration)
    after = dict(storages) if is_whole else {**before, **storages}
    if after != before:
        text = msgspec.json.format(msgspec.json.encode(after), indent=4).decode() + "\n"
        var_dir.write_text(configuration, var_dir.directory(configuration) / FILE, text)
