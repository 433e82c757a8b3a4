"""``turku-agent check`` and ``config``: check the configuration and show the sources, or every key."""

import argparse
from collections.abc import Iterator

from turku.agent import registration
from turku.agent.capture import own_paths
from turku.agent.commands import reachability
from turku.agent.commands.setup import configured
from turku.agent.config.loading import load_with_files
from turku.agent.config.model import AgentConfig
from turku.agent.state import staging_records
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.configuration import display, exposed_secrets
from turku.core.log import one_line
from turku.core.setup import host_files

_EXIT_PROBLEMS = 1


def run(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Print identity and sources, with problems and notes. Return 1 where there is a problem.

    Without ``--offline``, coordinator and storage are asked as well.
    """
    remote_restore = ", ".join(one_line(str(path)) for path in agent.restore.remote_restore)
    accept_profiles = ", ".join(one_line(str(path)) for path in agent.backup.accept_profiles)
    lines = [
        f"Coordinator: {agent.api.api_url}",
        f"Machine UUID: {agent.identity.machine_uuid or 'none yet: turku-update-config registers this machine'}",
        f"Machine unit: {agent.identity.unit_name}",
        "Restores that the coordinator asks for: "
        + (f"below {remote_restore}" if remote_restore else "refused (remote_restore)"),
        "Sources that the coordinator proposes: "
        + (f"below {accept_profiles}" if accept_profiles else "refused (accept_profiles)"),
        "Sources:" if agent.sources else f"Sources: none in {agent.config_dir / 'sources.d'}",
    ]
    problems = 0
    for is_problem, line in (*_sources(agent), *_exposed_secrets(agent)):
        problems += is_problem
        lines.append(line)
    lines += [
        f"note: {one_line(str(directory))}: a restore is running there, or did not end; the next one into that "
        "directory uses or removes it"
        for directory in staging_records.existing(agent.state)
    ]
    lines += [f"note: {sentence}" for sentence in host_files.outdated("turku.agent", "turku-agent")]
    for is_problem, line in () if options.offline else reachability.lines(agent):
        problems += is_problem
        lines.append(line)
    for line in lines:
        say(line)
    return _EXIT_PROBLEMS if problems else 0


def _exposed_secrets(agent: AgentConfig) -> Iterator[tuple[bool, str]]:
    """Yield a problem for each file with a secret that other users may read or change."""
    directories = (agent.state.var_dir / "config.d", agent.config_dir / "config.d", agent.config_dir / "sources.d")
    private_key = agent.state.var_dir / "ssh_key"
    for file in (*exposed_secrets.in_directories(directories), *exposed_secrets.of_files([private_key])):
        if file.fault:
            yield True, f"PROBLEM: {one_line(str(file.path))}: {one_line(file.fault)}"


def _sources(agent: AgentConfig) -> Iterator[tuple[bool, str]]:
    """Yield the lines of the sources, and whether each tells a problem."""
    for source in agent.sources.values():
        origin = f" (profile {one_line(source.profile)})" if source.profile else ""
        yield False, f"    {source.name}: {one_line(source.path)}{origin}"
        for key, value in source.options.items():
            if key != "path":
                yield False, f"        {one_line(f'{key}: {value}')}"
        for note in own_paths.notes(agent, source):
            yield False, f"        note: {one_line(note)}"
        for warning in registration.source_warnings(source):
            where = f" ({source.place})" if warning.is_problem and source.place else ""
            label = "PROBLEM" if warning.is_problem else "note"
            yield warning.is_problem, f"        {label}: {one_line(warning.text + where)}"
    for reason in agent.unusable_sources.values():
        yield True, f"PROBLEM: {one_line(reason)}"
    for refused in agent.proposed.refused:
        yield (
            False,
            f"note: profile {one_line(refused.profile)}: source {one_line(refused.name)} is refused: "
            + (one_line(refused.reason)),
        )
    if agent.proposed.problem:
        yield True, f"PROBLEM: the sources of profiles are not known: {one_line(agent.proposed.problem)}"
    for name in registration.missing_sources(agent):
        yield (
            True,
            f"PROBLEM: source {one_line(name)} was declared at the last turku-update-config and is not in "
            f"{agent.config_dir / 'sources.d'} now: the next one ends its backups",
        )


COMMANDS = (
    Command(
        "check",
        "Check the configuration, the coordinator and the storage, and show the sources. Change nothing.",
        configured(run),
        (
            ("Check the configuration:", "{prog}"),
            ("Show only the problems:", "{prog} | grep PROBLEM"),
            ("Check a new configuration before it is used:", "{prog} --offline --config-dir /root/new"),
        ),
        (Argument("--offline", action="store_true", help="Ask neither the coordinator nor the storage."),),
        "It asks the coordinator whether it knows this machine and takes its sources, and logs in at the storage.",
        exit_codes={
            0: "No problem was found.",
            1: "The coordinator refuses something or cannot be reached, the storage does not let this machine in, or a "
            "source is missing.",
        },
    ),
    display.command("turku-agent", load_with_files),
)
