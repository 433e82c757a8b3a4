"""Registration: the coordinator learns this machine's identity and sources (contract, section 3, ``update_config``)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from turku.agent.capture import source_warnings
from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.identity import key_pair, machine_identity
from turku.agent.state import var_dir
from turku.core import durable
from turku.core.log import one_line
from turku.errors import ApiForbidden, TurkuError
from turku.protocol.api_config import ApiConfig
from turku.protocol.messages import MachineConfiguration, UpdateConfigAnswer, UpdateConfigRequest

RECORD_FILE = "declared_sources.json"
"""The sources that were declared last, so that a lost file of ``sources.d`` does not end backups silently."""
_RECORD_LIMIT_BYTES = 1024 * 1024
_NAMED = 20
_LOG = logging.getLogger(__name__)


def update_config(agent: AgentConfig) -> None:
    """Register the machine or update its sources. Identity and SSH key are generated where they are missing.

    Raises ApiRefused, ApiUnreachable, and the errors of the ``identity`` package.
    """
    for problem in source_warnings.problems(agent):
        # A coordinator of the existing system may accept it all the same.
        _LOG.error("%s", problem)
    machine = machine_identity.ensure(agent)
    message = UpdateConfigRequest(
        auth=agent.api.registration,
        machine=MachineConfiguration(
            uuid=machine.uuid,
            secret=machine.secret.reveal(),
            environment_name=agent.identity.environment_name,
            service_name=agent.identity.service_name,
            unit_name=agent.identity.unit_name,
            ssh_public_key=key_pair.ensure_public_key(agent),
            published=agent.identity.published,
            sources={source.name: dict(source.options) for source in agent.sources.values()},
        ),
    )
    try:
        answer = agent.api.client().call("update_config", message, UpdateConfigAnswer)
    except ApiForbidden as error:
        raise error.with_hint(_hint(agent.api)) from error
    count = len(agent.sources)
    _LOG.info(
        "the coordinator knows this machine (%s) with %d source%s", machine.uuid, count, "" if count == 1 else "s"
    )
    report_missing_sources(agent, withdrawn=answer.withdrawn)
    if not agent.sources:
        _LOG.warning("no source is configured in %s: nothing will be backed up", agent.config_dir / "sources.d")


def _hint(configuration: ApiConfig) -> str:
    if configuration.registration is None:
        return (
            "to register, set api_auth_name and api_auth_secret (or api_auth) to a registration of kind machine_reg, "
            "made on the coordinator with: turku-api auth-create machine_reg"
        )
    return (
        "a new machine needs an active registration of kind machine_reg in api_auth_name and api_auth_secret (or "
        "api_auth); one that is registered needs the machine_secret that it registered with"
    )


def report_missing_sources(agent: AgentConfig, *, withdrawn: Sequence[str]) -> None:
    """Log the sources that are no longer declared, and record the declared ones for the next run.

    ``withdrawn`` are those that the coordinator names at each run until an operator confirms them. A coordinator of the
    existing system names none, so they are logged once, by the first run that no longer declares them.
    """
    gone = sorted({*missing_sources(agent), *withdrawn} - set(agent.sources))
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


def missing_sources(agent: AgentConfig) -> list[str]:
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
