"""The part of ``check`` and ``status`` that asks the coordinator and logs in at the storage."""

from collections.abc import Iterator

from turku.agent import checkin, coordinator_status
from turku.agent.config.model import AgentConfig
from turku.agent.tunnel import probe, trusted_storages
from turku.agent.tunnel.trusted_storages import checked_address
from turku.core.log import one_line
from turku.core.units import count_of
from turku.errors import TurkuError
from turku.protocol.messages import Empty, StorageAddress

_SHOWN_STORAGES = 20


def lines(agent: AgentConfig) -> Iterator[tuple[bool, str]]:
    """Yield lines about the coordinator and the storages of this machine, and whether each tells a problem."""
    if agent.identity.machine_uuid is None or agent.identity.machine_secret is None:
        yield from _unregistered(agent)
        return
    try:
        status = coordinator_status.ask(agent)
        storages = _storages_of_existing_system(agent) if status is None else [status.answer.storage]
    except TurkuError as error:
        yield True, _problem("the coordinator", error)
        return
    if status is None:
        yield False, "The coordinator knows this machine."
    else:
        in_force = sum(each.is_declared and each.is_active for each in status.answer.sources.values())
        yield False, f"The coordinator knows this machine, with {count_of(in_force, 'source')} in force."
        for problem in coordinator_status.problems(status, agent):
            yield True, f"PROBLEM: {problem}"
        for name in coordinator_status.undeclared(status.answer, agent):
            yield True, f"PROBLEM: the coordinator does not know source {one_line(name)} yet: run turku-update-config"
    found = [each for each in storages if each is not None]
    if not found:
        yield False, "note: the coordinator has assigned no storage to this machine yet"
    for each in found[:_SHOWN_STORAGES]:
        yield storage_line(agent, each)


def storage_line(agent: AgentConfig, storage: StorageAddress) -> tuple[bool, str]:
    """Log in at the storage, and return whether that is a problem, with a line about it."""
    name = one_line(storage.name)
    try:
        probe.log_in(agent, trusted_storages.verdict(agent, checked_address(storage)))
    except TurkuError as error:
        return True, _problem(f"storage {name}", error)
    return False, f"Storage {name} is reachable and lets this machine in."


def _unregistered(agent: AgentConfig) -> Iterator[tuple[bool, str]]:
    try:
        # The answer is for anybody, and only its coming counts.
        agent.api.client(agent.state.var_dir).call("health", Empty(), Empty)
    except TurkuError as error:
        yield True, _problem("the coordinator", error)
    else:
        yield False, "The coordinator answers."


def _storages_of_existing_system(agent: AgentConfig) -> list[StorageAddress | None]:
    return [address for address, _names in checkin.by_storage(checkin.active_sources(agent))]


def _problem(what: str, error: TurkuError) -> str:
    details = "; ".join(error.details.splitlines())
    parts = [one_line(error.message), *([one_line(details)[:300]] if details else [])]
    hint = f" ({error.hint})" if error.hint else ""
    return f"PROBLEM: {what}: {': '.join(parts)}{hint}"
