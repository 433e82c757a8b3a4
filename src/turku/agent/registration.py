"""Registration: the coordinator learns this machine's identity and sources (contract, "Calls", ``update_config``).

``turku-agent check`` shows the warnings about sources that the coordinator rejects or ignores.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import UNSET

from turku.agent import checkin
from turku.agent.capture import accepted_path, excluded_paths
from turku.agent.capture import mounts as mount_points
from turku.agent.config import profiles
from turku.agent.config.model import AgentConfig, AgentState, SourceConfig, StoredProfiles
from turku.agent.identity import key_pair, machine_identity
from turku.agent.identity.machine_identity import Identity
from turku.agent.state import host_report, profile_store, var_dir
from turku.core import durable
from turku.core.log import one_line
from turku.core.units import count_of
from turku.errors import (
    ApiForbidden,
    ApiNotFound,
    ApiRefused,
    ApiRemoved,
    ApiUnreachable,
    ConfigurationError,
    InvalidValue,
    TurkuError,
)
from turku.policy import source_options
from turku.protocol.api_config import ApiConfig
from turku.protocol.client import ApiClient
from turku.protocol.messages import MachineConfiguration, UpdateConfigAnswer, UpdateConfigRequest

RECORD_FILE = "declared_sources.json"
"""The sources that were declared last, so that a lost file of ``sources.d`` does not end backups silently."""
_RECORD_LIMIT_BYTES = 1024 * 1024
_NAMED = 20
_NAME_LIMIT = 200
_REASON_LIMIT = 500
_LOG = logging.getLogger(__name__)


def update_config(agent: AgentConfig) -> None:
    """Register the machine or update its sources. Identity and SSH key are generated where they are missing.

    Sources come from the coordinator's present profiles as well, if the machine accepts any. One bad source keeps no
    other out. Raises InvalidValue that names the sources which were not taken, after the others were; ApiRefused,
    ApiUnreachable, ConfigurationError, and the errors of the ``identity`` package.
    """
    is_known = agent.identity.machine_uuid is not None
    machine = machine_identity.ensure(agent)
    if not is_known:
        refused = _declare(agent, machine)
    # Only a registered machine is told its profiles.
    if is_known or agent.backup.accept_profiles:
        agent, refused = _declare_with_profiles(agent, machine)
    if refused:
        raise _refusal(agent, refused)


def take_profiles(agent: AgentConfig) -> AgentConfig:
    """Take the coordinator's present profiles, and return the configuration with what it takes of them.

    Raises as ``update_config`` does, but for sources that were not taken, which are logged.
    """
    taken, refused = _declare_with_profiles(agent, machine_identity.existing(agent))
    if refused:
        _LOG.error("%s", _refusal(taken, refused).message)
    return taken


def _declare_with_profiles(agent: AgentConfig, machine: Identity) -> tuple[AgentConfig, Mapping[str, str]]:
    """Send the configuration with what it takes of the coordinator's present profiles. Return both, as ``_declare``."""
    stored = _present_profiles(agent, machine)
    present = agent if stored is None else profiles.with_profiles(agent, stored)
    refused = _declare(present, machine)
    if stored is not None and (stored != agent.proposed.stored or agent.proposed.problem):
        # Written last, so that a run that fails before it is repeated by the next ping.
        profile_store.write(agent.state, stored)
    return present, refused


def _present_profiles(agent: AgentConfig, machine: Identity) -> StoredProfiles | None:
    """Return the profiles that the coordinator has for this machine, or None where it does not say.

    Raises ConfigurationError where the stored ones cannot be read either: a declaration without them would end backups.
    """
    if not agent.backup.accept_profiles:
        return None
    try:
        answer = checkin.proposed_profiles(agent, machine.credentials)
    except (ApiRefused, ApiUnreachable) as error:
        if agent.proposed.problem:
            raise ConfigurationError(
                f"the sources of profiles are not known: {agent.proposed.problem}, and the coordinator did not send "
                f"them: {error.message}",
                hint="run turku-update-config again when the coordinator answers",
            ) from error
        level = logging.DEBUG if isinstance(error, ApiNotFound) else logging.WARNING
        _LOG.log(level, "the coordinator sent no profiles; those that it sent last stay: %s", error.message)
        return None
    stored = StoredProfiles(answer.digest, answer.profiles)
    if len(msgspec.json.encode(stored)) > profiles.LIMIT_BYTES:
        _LOG.error(
            "the coordinator's profiles are larger than %d bytes; those that it sent last stay", profiles.LIMIT_BYTES
        )
        return None
    return stored


def _declare(agent: AgentConfig, machine: Identity) -> Mapping[str, str]:
    """Send the configuration, and return the sources that are not in force as they are declared, with the reasons."""
    answer, learned_keys = _send(agent, machine)
    if learned_keys:
        # Sent again, because the coordinator changes its key when its machines have said that they accept the next one.
        answer, _ = _send(agent, machine)
    for problem in source_problems(agent, known=answer.refused):
        # A coordinator of the existing system accepts anything.
        _LOG.error("%s", problem)
    refused = {**_sent_reasons(agent.unusable_sources), **answer.refused}
    _LOG.info(
        "the coordinator knows this machine (%s) with %s",
        machine.uuid,
        count_of(len(agent.sources.keys() - refused.keys()), "source"),
    )
    host_report.show_warnings(answer.warnings)
    report_missing_sources(agent, withdrawn=answer.withdrawn)
    for each in agent.proposed.refused:
        _LOG.warning("profile %s: source %s is refused: %s", *map(one_line, (each.profile, each.name, each.reason)))
    if not agent.sources:
        _LOG.warning("no source is configured in %s: nothing will be backed up", agent.config_dir / "sources.d")
    return refused


def _learn_keys(agent: AgentConfig, answer: UpdateConfigAnswer, api: ApiClient, known: Sequence[str]) -> bool:
    if not answer.announced_keys:
        return False
    from turku.protocol import pinned_keys

    path = var_dir.directory(agent.state) / pinned_keys.FILE
    return pinned_keys.learn(
        agent.api.api_key_fingerprints,
        known,
        answer.announced_keys,
        seen_key=api.seen_key,
        write=lambda text: var_dir.write_text(agent.state, path, text),
    )


def _send(agent: AgentConfig, machine: Identity) -> tuple[UpdateConfigAnswer, bool]:
    """Send the configuration. Return the answer, and True if it announced keys that were not known."""
    accepted_keys = agent.api.accepted_keys(agent.state.var_dir)
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
            unusable_sources=_sent_reasons(agent.unusable_sources),
            accepted_keys=list(accepted_keys),
            profiles=profiles.report(agent) if agent.backup.accept_profiles else UNSET,
        ),
        takes_part=True,
        host=host_report.report(agent, is_whole=True),
    )
    api = agent.api.client(agent.state.var_dir)
    try:
        answer = api.call("update_config", message, UpdateConfigAnswer)
    except ApiRemoved:
        # No Auth helps.
        raise
    except ApiForbidden as error:
        raise error.with_hint(_hint(agent.api)) from error
    return answer, _learn_keys(agent, answer, api, accepted_keys)


def _sent_reasons(reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the first of these reasons, in the size of a message."""
    return {
        one_line(name)[:_NAME_LIMIT]: one_line(reason)[:_REASON_LIMIT]
        for name, reason in list(reasons.items())[:_NAMED]
    }


def _refusal(agent: AgentConfig, refused: Mapping[str, str]) -> InvalidValue:
    """Return the error that names the sources which are not in force as they are declared here."""
    lines = []
    for name, reason in list(refused.items())[:_NAMED]:
        source = agent.sources.get(name)
        where = f"{source.place}: " if source is not None and source.place else ""
        lines.append(one_line(f"{where}{reason}" if where or name in agent.unusable_sources else f"{name}: {reason}"))
    shown = ", ".join(one_line(name) for name in list(refused)[:_NAMED])
    return InvalidValue(
        f"not taken: {count_of(len(refused), 'source')} ({shown}). The others are in force. What was declared of "
        f"{'it' if len(refused) == 1 else 'them'} before stays in force",
        details="\n".join(lines),
        hint="correct the file and run turku-update-config again; turku-agent check names everything that is wrong",
    )


def _hint(configuration: ApiConfig) -> str:
    if configuration.registration is None:
        return (
            "to register, run turku-agent setup JOIN. On the coordinator, 'turku-api join-token create machine' prints "
            "JOIN"
        )
    return (
        "a new machine needs a join token or an Auth that is still valid: on the coordinator, 'turku-api join-token "
        "list' shows them. One that is registered needs the machine_secret that it registered with"
    )


def report_missing_sources(agent: AgentConfig, *, withdrawn: Sequence[str]) -> None:
    """Log the sources that are no longer declared, and record the declared ones for the next run.

    ``withdrawn`` are those that the coordinator names at each run until an operator confirms them. A coordinator of the
    existing system names none, so they are logged once, by the first run that no longer declares them.
    """
    gone = sorted({*missing_sources(agent), *withdrawn} - _declared(agent))
    if gone:
        named = ", ".join(one_line(name) for name in gone[:_NAMED])
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        _LOG.error(
            "no longer declared in %s%s, so that nothing new of it is backed up: %s%s. Where this is not meant, put "
            "the file back and run turku-update-config. Where it is, an operator confirms it at the coordinator.",
            agent.config_dir / "sources.d",
            " or by a profile" if agent.backup.accept_profiles else "",
            named,
            more,
        )
    if _recorded(agent.state) != sorted(_declared(agent)):
        _record(agent)


def missing_sources(agent: AgentConfig) -> list[str]:
    """Return the names that were declared last and are no longer declared."""
    return sorted(set(_recorded(agent.state)) - _declared(agent))


def _declared(agent: AgentConfig) -> set[str]:
    return {*agent.sources, *agent.unusable_sources}


def _recorded(configuration: AgentState) -> list[str]:
    """Return the recorded names, or none where the file is missing or cannot be read."""
    try:
        content = durable.read_regular_file(configuration.var_dir / RECORD_FILE, limit_bytes=_RECORD_LIMIT_BYTES)
        return msgspec.json.decode(content, type=list[str])
    except (OSError, UnicodeError, msgspec.MsgspecError, TurkuError):
        return []


def _record(agent: AgentConfig) -> None:
    path = var_dir.directory(agent.state) / RECORD_FILE
    var_dir.write_text(agent.state, path, json.dumps(sorted(_declared(agent))) + "\n")


@dataclass(frozen=True)
class SourceWarning:
    """A sentence about a source. ``is_problem`` says that the source cannot be backed up as it is."""

    text: str
    is_problem: bool


def source_warnings(source: SourceConfig) -> list[SourceWarning]:
    """Return all warnings about the source's directory, and about its options as the coordinator reads them."""
    found = []
    found += [SourceWarning(text, is_problem=False) for text in [_about_directory(Path(source.path))] if text]
    if source.profile and (problem := accepted_path.problem(source)):
        found.append(SourceWarning(f"is not offered: {problem}", is_problem=True))
    if excluded_paths.is_mount_missing(source):
        found.append(SourceWarning("nothing is mounted there now, so that it would not be backed up", is_problem=False))
    mounts = mount_points.all_mounts()
    others = excluded_paths.other_file_systems(source, mounts)
    if any(not mount.is_of_the_kernel for mount in others):
        found.append(SourceWarning(excluded_paths.other_file_systems_text(others), is_problem=False))
    found += [
        SourceWarning(f"{volume} is not backed up: it is a volume of the storage on this machine", is_problem=False)
        for volume in excluded_paths.volumes_within(source, mounts)
    ]
    for name, close in source_options.unknown_names(source.options):
        suggestion = f"; did you mean {close}?" if close else ""
        found.append(SourceWarning(f"{name}: unknown option, sent as it is{suggestion}", is_problem=False))
    found += [SourceWarning(str(problem), is_problem=True) for problem in source_options.problems(source.options)]
    return found


def _about_directory(path: Path) -> str:
    try:
        if path.is_dir():
            return ""
        return "is not a directory" if path.exists() else "no such directory now"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def source_problems(agent: AgentConfig, *, known: Collection[str] = ()) -> Iterator[str]:
    """Yield the problems for which the coordinator rejects sources, each with its place, but not of ``known`` ones."""
    for source in agent.sources.values():
        if source.name in known:
            continue
        for problem in source_options.problems(source.options):
            yield f"{source.place or source.name}: {problem}"
    for together in source_options.problems_together({each.name: each.options for each in agent.sources.values()}):
        yield f"{agent.config_dir / 'sources.d'}: {together}"
