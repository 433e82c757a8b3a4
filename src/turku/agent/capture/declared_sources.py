"""The sources that this machine declared last, so that a lost file of ``sources.d`` does not end backups silently."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.state import var_dir
from turku.core import durable
from turku.core.log import one_line
from turku.errors import TurkuError

RECORD_FILE = "declared_sources.json"
_RECORD_LIMIT_BYTES = 1024 * 1024
_NAMED = 20
_LOG = logging.getLogger(__name__)


def report_missing(agent: AgentConfig, *, withdrawn: Sequence[str]) -> None:
    """Log the sources that are no longer declared, and record the declared ones for the next run.

    ``withdrawn`` are those that the coordinator names at each run until an operator confirms them. A coordinator of the
    existing system names none, so they are logged once, by the first run that no longer declares them.
    """
    gone = sorted({*missing(agent), *withdrawn} - set(agent.sources))
    if gone:
        named = ", ".join(one_line(name) for name in gone[:_NAMED])
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        _LOG.error(
            "no longer declared in %s, so that nothing new of it is backed up: %s%s. Where this is not meant, put the "
            "file back and run turku-update-config. Where it is, an operator confirms it at the coordinator.",
            agent.config_dir / "sources.d",
            named,
            more,
        )
    if _recorded(agent.state) != sorted(agent.sources):
        _record(agent)


def missing(agent: AgentConfig) -> list[str]:
    """Return the names that were declared last and are no longer declared."""
    return sorted(set(_recorded(agent.state)) - set(agent.sources))


def _recorded(configuration: AgentState) -> list[str]:
    """Return the recorded names, or none where the file is missing or cannot be read."""
    try:
        content = json.loads(
            durable.read_regular_file(configuration.var_dir / RECORD_FILE, limit_bytes=_RECORD_LIMIT_BYTES)
        )
    except (OSError, ValueError, RecursionError, TurkuError):
        return []
    is_list_of_names = isinstance(content, list) and all(isinstance(name, str) for name in content)
    return content if is_list_of_names else []


def _record(agent: AgentConfig) -> None:
    path = var_dir.directory(agent.state) / RECORD_FILE
    var_dir.write_text(agent.state, path, json.dumps(sorted(agent.sources)) + "\n")
