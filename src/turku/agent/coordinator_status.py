"""The state of this machine at its coordinator, and sentences about it for ``check``, ``status`` and ``ping``."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo

from turku.agent.config.model import AgentConfig
from turku.agent.identity import machine_identity
from turku.core.cli.status_screen import moment
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.core.units import rough_duration
from turku.errors import ApiNotFound
from turku.policy.timing import clock_agreement
from turku.protocol.machine.agent_status_messages import STATUS_CALL, AgentStatusAnswer, SourceStatus
from turku.protocol.messages import AgentPingRequest

_NAMED = 5


@dataclass(frozen=True)
class CoordinatorStatus:
    """The coordinator's answer, and the difference of its clock from this machine's as a clause, empty for none."""

    answer: AgentStatusAnswer
    clock: str


def ask(agent: AgentConfig) -> CoordinatorStatus | None:
    """Return the coordinator's answer, or None where it does not have the call, as those of the existing system.

    Raises ConfigurationError (not registered), ApiForbidden (not known), ApiUnreachable.
    """
    request = AgentPingRequest(machine_identity.existing(agent).credentials)
    try:
        answer = agent.api.client(agent.state.var_dir).beyond_contract().call(STATUS_CALL, request, AgentStatusAnswer)
    except ApiNotFound:
        return None
    return CoordinatorStatus(
        answer, clock_agreement.disagreement(SYSTEM_CLOCK.now(), answer.now, whose="the coordinator")
    )


def idle_sentence(answer: AgentStatusAnswer, zone: tzinfo) -> str:
    """Return why there was nothing to back up, with what failed last and what is next."""
    active = {name: each for name, each in answer.sources.items() if each.next is not None}
    if not answer.is_published:
        return "nothing due: backups of this machine are switched off (published)"
    if not active:
        return "nothing due: no source of this machine is in force at the coordinator"
    if answer.storage is None:
        return "nothing due: the coordinator has assigned no storage to this machine yet"
    waiting = [name for name, each in active.items() if each.next is not None and each.next <= answer.now]
    if waiting:
        are = "is" if len(waiting) == 1 else "are"
        return f"{_named(waiting)} {are} due and waiting for a free slot of storage {one_line(answer.storage.name)}"
    failing = [
        f"{one_line(name)} failed {_ago(each.failed, answer.now)}, again {_again(each, answer.now, zone)}"
        for name, each in active.items()
        if each.failed is not None
    ]
    if failing:
        more = f"; and {len(failing) - _NAMED} more failed" if len(failing) > _NAMED else ""
        return f"nothing due; {'; '.join(failing[:_NAMED])}{more}"
    name, first = min(active.items(), key=lambda item: item[1].next or answer.now)
    return f"nothing due; next is {one_line(name)} {_again(first, answer.now, zone)}"


def _ago(moment_of: datetime, now: datetime) -> str:
    return "a moment ago" if (now - moment_of).total_seconds() < 60 else f"{rough_duration(now - moment_of)} ago"


def _again(source: SourceStatus, now: datetime, zone: tzinfo) -> str:
    if source.next is None:
        return "at no time"
    local, today = source.next.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"at {local:%H:%M}"
    return f"on {local:%a} at {local:%H:%M}" if (local.date() - today.date()).days < 7 else f"on {local:%Y-%m-%d}"


def _named(names: list[str]) -> str:
    shown = ", ".join(map(one_line, names[:_NAMED]))
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def problems(status: CoordinatorStatus, agent: AgentConfig) -> Iterator[str]:
    """Yield the problems of this machine that the coordinator's answer shows."""
    answer = status.answer
    if status.clock:
        yield f"the clock of this machine is {status.clock}"
    if not answer.is_published:
        yield "the coordinator backs nothing of this machine up: its backups are switched off (published)"
    for name, reason in answer.refused.items():
        place = agent.sources[name].place if name in agent.sources else ""
        where = f" ({place})" if place else ""
        yield f"source {one_line(name)} is not in force as it is declared: {one_line(reason)}{where}"


def undeclared(answer: AgentStatusAnswer, agent: AgentConfig) -> list[str]:
    """Return the sources of this machine that the coordinator does not have in force, and did not refuse."""
    in_force = {name for name, each in answer.sources.items() if each.is_declared}
    return sorted(agent.sources.keys() - in_force - answer.refused.keys())


def last_line(source: SourceStatus, zone: tzinfo, *, now: datetime) -> str:
    """Return the last success and failure of a source."""
    good = "never backed up" if source.succeeded is None else f"backed up {moment(source.succeeded, zone, now=now)}"
    if source.failed is None:
        return good
    reason = f": {one_line(source.failure_reason)}" if source.failure_reason else ""
    return f"FAILED {moment(source.failed, zone, now=now)}{reason}; {good}"
