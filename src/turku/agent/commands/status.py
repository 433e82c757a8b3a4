"""``turku-agent status``: one screen about this machine, from its own state and from the coordinator if it answers."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from typing import Any

from turku.agent import coordinator_status, registration
from turku.agent.commands.setup import configured
from turku.agent.config.model import AgentConfig, SourceConfig
from turku.agent.coordinator_status import CoordinatorStatus
from turku.agent.state import session_record
from turku.agent.state.session_record import SessionRecord
from turku.agent.tunnel import trusted_storages
from turku.core.cli import status_screen, systemd_timers
from turku.core.cli.listing import Say
from turku.core.cli.options import JSON_OBJECT
from turku.core.cli.program import Command
from turku.core.cli.status_screen import StatusRow, StatusScreen, moment
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.core.setup import host_files
from turku.errors import TurkuError


def run(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Print the screen. Return 1 where something is wrong."""
    now = SYSTEM_CLOCK.now()
    return status_screen.show(_screen(agent, now.astimezone().tzinfo or UTC, now=now), say, as_json=options.json)


def _screen(agent: AgentConfig, zone: tzinfo, *, now: datetime) -> StatusScreen:
    record, timers = session_record.read(agent.state), systemd_timers.read(host_files.timers("turku.agent"))
    status, unreachable = _ask(agent)
    rows, problems = _sources(agent, status, zone, now=now)
    storage = None if status is None or status.answer.storage is None else status.answer.storage.name
    return StatusScreen(
        "turku-agent",
        agent.identity.unit_name,
        identity=[
            StatusRow("Machine", agent.identity.machine_uuid or "not registered: turku-update-config registers it"),
            StatusRow("Coordinator", f"{agent.api.api_url} ({unreachable or 'answers'})"),
            StatusRow("Storage", storage or ("not known while the coordinator is away" if unreachable else "none yet")),
        ],
        last=[*_sessions(record, zone, now=now), *rows],
        next=[*_next(status, zone, now=now), *status_screen.timer_rows(timers, zone, now=now)],
        problems=[
            *([f"the coordinator: {unreachable}"] if unreachable else []),
            *(_coordinators_problems(status, agent)),
            *_failures(record, zone, now=now),
            *_waiting(agent),
            *problems,
            *agent.unusable_sources.values(),
            *([f"the sources of profiles are not known: {agent.proposed.problem}"] if agent.proposed.problem else []),
            *(f"source {name} is no longer in sources.d" for name in registration.missing_sources(agent)),
            *status_screen.timer_problems(timers),
        ],
        facts=_facts(agent, status, record, unreachable) | {"timers": status_screen.timer_facts(timers)},
    )


def _ask(agent: AgentConfig) -> tuple[CoordinatorStatus | None, str]:
    """Return the coordinator's answer, and the reason why there is none."""
    if agent.identity.machine_uuid is None or agent.identity.machine_secret is None:
        return None, "this machine is not registered"
    try:
        return coordinator_status.ask(agent), ""
    except TurkuError as error:
        return None, one_line(f"{error.message} {error.details}".strip())[:300]


def _sources(
    agent: AgentConfig, status: CoordinatorStatus | None, zone: tzinfo, *, now: datetime
) -> tuple[list[StatusRow], list[str]]:
    """Return a row for each source that the coordinator has, and the problems of sources."""
    if status is None:
        return [StatusRow(name, f"{one_line(each.path)}{_origin(each)}") for name, each in agent.sources.items()], []
    known = {name: each for name, each in status.answer.sources.items() if each.is_declared and each.is_active}
    rows = [
        StatusRow(name, f"{coordinator_status.last_line(each, zone, now=now)}{_origin(agent.sources.get(name))}")
        for name, each in known.items()
    ]
    failing = [
        f"source {one_line(name)} failed: {one_line(each.failure_reason) or 'its backup run says why'}"
        for name, each in known.items()
        if each.failed is not None
    ]
    new = [
        f"the coordinator does not know source {name} yet: run turku-update-config"
        for name in coordinator_status.undeclared(status.answer, agent)
    ]
    return rows, [*failing, *new]


def _origin(source: SourceConfig | None) -> str:
    """Return the profile of a source in brackets, or nothing for a source of this machine's own."""
    return "" if source is None or not source.profile else f" (profile {one_line(source.profile)})"


def _next(status: CoordinatorStatus | None, zone: tzinfo, *, now: datetime) -> Iterator[StatusRow]:
    if status is None:
        return
    due = [(each.next, name) for name, each in status.answer.sources.items() if each.next is not None]
    for when, name in sorted(due):
        yield StatusRow(name, "due now" if when <= now else moment(when, zone, now=now))


def _sessions(record: SessionRecord, zone: tzinfo, *, now: datetime) -> Iterator[StatusRow]:
    for name, each in record.storages.items():
        if each.succeeded is not None:
            yield StatusRow(f"session, {name}", moment(each.succeeded, zone, now=now))


def _failures(record: SessionRecord, zone: tzinfo, *, now: datetime) -> Iterator[str]:
    for name, failed in record.failures().items():
        is_waiting = record.storages[name].is_awaiting_admission(now=now)
        text = f"waiting for storage {one_line(name)} to admit this machine" if is_waiting else failed.reason
        yield f"{text}, since {moment(failed.first, zone, now=now)}"


def _waiting(agent: AgentConfig) -> Iterator[str]:
    """Yield a problem for each storage whose host keys wait to be accepted."""
    try:
        pending = trusted_storages.pending(agent.state)
    except TurkuError as error:
        yield error.message
        return
    for name in pending:
        yield f"host keys of storage {one_line(name)} wait to be accepted: turku-agent storages, accept-storage"


def _coordinators_problems(status: CoordinatorStatus | None, agent: AgentConfig) -> Iterator[str]:
    if status is not None:
        yield from coordinator_status.problems(status, agent)


def _facts(
    agent: AgentConfig, status: CoordinatorStatus | None, record: SessionRecord, unreachable: str
) -> dict[str, Any]:
    answer = None if status is None else status.answer
    return {
        "machine_uuid": agent.identity.machine_uuid,
        "coordinator": agent.api.api_url,
        "coordinator_problem": unreachable,
        "storage": None if answer is None or answer.storage is None else answer.storage.name,
        "sources": {} if answer is None else answer.sources,
        "refused_sources": {} if answer is None else answer.refused,
        "sessions": record.storages,
        "profiles": {name: source.profile for name, source in agent.sources.items() if source.profile},
        "refused_of_profiles": [asdict(each) for each in agent.proposed.refused],
    }


COMMANDS = (
    Command(
        "status",
        "Show on one screen what this machine is, what was backed up last, what is next, and what is wrong.",
        configured(run),
        (
            ("Show the state of this machine:", "{prog}"),
            ("Print it for a program:", "{prog} --json"),
            ("Act only if something is wrong:", "{prog} > /dev/null || turku-agent check"),
        ),
        (JSON_OBJECT,),
        "It asks the coordinator, and shows what this machine knows itself where that does not answer.",
        status_screen.EXIT_CODES,
    ),
)
