"""Registration: the coordinator learns this machine's identity and sources (contract, section 3, ``update_config``)."""

from __future__ import annotations

import logging

from turku.agent.capture import declared_sources, source_warnings
from turku.agent.config.model import AgentConfig
from turku.agent.identity import key_pair, machine_identity
from turku.errors import ApiForbidden
from turku.protocol.api_config import ApiConfig
from turku.protocol.messages import MachineConfiguration, UpdateConfigAnswer, UpdateConfigRequest

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
    declared_sources.report_missing(agent, withdrawn=answer.withdrawn)
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
