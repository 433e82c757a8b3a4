"""``turku-storage check`` and ``config``: show the configuration as it is used, the protection, and the problems."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from turku.core import log
from turku.core.cli.program import Command
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration import display
from turku.core.setup import host_files
from turku.core.units import size
from turku.errors import TurkuError
from turku.policy.timing import clock_agreement
from turku.protocol.messages import HealthAnswer
from turku.storage.commands.protection import host, sshd
from turku.storage.commands.protection.fact import Verdict
from turku.storage.commands.setup import EXIT_PROBLEMS, config_dir
from turku.storage.config import loading
from turku.storage.config.model import SshConfig, StorageConfig
from turku.storage.containment import bubblewrap
from turku.storage.containment.bubblewrap import SandboxProbeFailed
from turku.storage.disk import history, volume_marks, volumes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import find_sources
from turku.storage.registration.coordinator import clock_warning

_load = partial(loading.load_with_files, writes_identity=False)


def run(options: argparse.Namespace) -> int:
    """Print the report. Return 1 where there is a problem."""
    log.set_up("turku-storage", debug=options.debug)
    configuration, _files = _load(config_dir(options))
    return EXIT_PROBLEMS if report(configuration, print) else 0


def report(configuration: StorageConfig, say: Callable[[str], None], *, clock: Clock = SYSTEM_CLOCK) -> int:
    """Print the report line by line, and return the number of problems."""
    problems: list[str] = []
    state, ssh, retention = configuration.state, configuration.ssh, configuration.retention
    say(f"storage {configuration.identity.name}, coordinator {configuration.api.api_url}")
    say(f"  machines connect to {_address(configuration.ssh)}")
    _attempt(problems, lambda: say(f"  host keys: {', '.join(key.split()[0] for key in ssh.host_keys())}"))
    say(f"  authorized_keys: {ssh.authorized_keys_file}, of user {ssh.authorized_keys_user}")
    say(f"  forced command: {ssh.authorized_keys_command}")
    say(f"  state: {state.var_dir}; locks: {state.lock_dir}; log: {state.log_file}")
    say(f"  snapshots: {configuration.receiving.snapshot_mode}; time zone: {state.timezone.key}")
    say(f"  kept in any case: {retention.retention_floor or 'nothing'}; trash: {retention.trash_days:g} days")
    _compare_clocks(configuration, clock, problems, say)
    say(f"  rsync: {' '.join(configuration.receiving.rsync_command)}")
    with suppress(SandboxProbeFailed):
        # Where it cannot be tried, the facts about protection say so.
        found = bubblewrap.sandbox_availability(configuration.limits)
        say(f"  sandbox: {'used' if found.is_used else 'not used'} ({found.reason})")
    _report_volumes(configuration, problems, say)
    _attempt(problems, lambda: volumes.choose_volume(configuration))
    for place, ahead in _dates_ahead(configuration, clock):
        problems.append(
            f"source {place.source} of {place.machine_dir.name}: {len(ahead)} of its snapshots are dated in the "
            f"future, the last of them {ahead[-1]}. A clock is or was wrong. They do not count as the latest, and "
            "'turku-storage snapshots' marks them"
        )
    say("what protects this host:")
    for fact in (*host.facts(configuration), *sshd.facts(configuration)):
        if fact.verdict is Verdict.FAIL:
            problems.append(f"{fact.subject}: {fact.text}")
        else:
            say(f"  {fact.verdict.value:4} {fact.subject}: {fact.text}")
    for sentence in host_files.outdated("turku.storage", "turku-storage"):
        say(f"note: {sentence}")
    for problem in problems:
        say(f"PROBLEM: {problem}")
    if not problems:
        say("no problem found")
    return len(problems)


def _report_volumes(configuration: StorageConfig, problems: list[str], say: Callable[[str], None]) -> None:
    for volume in configuration.disk.volumes:
        fault = volume_marks.fault(configuration, volume)
        space = volumes.volume_space(volume)
        if fault is not None or space is None:
            problems.append(f"volume {volume.name}: {fault or f'{volume.path} is not there'}")
            continue
        limit = f"below {volume.accept_new_high_water_pct:g} %"
        say(
            f"volume {volume.name}: {volume.path}, {size(space.available_bytes)} of {size(space.total_bytes)} free, "
            f"{space.used_percent:.0f} % used, {space.inodes_used_percent:.0f} % of inodes; "
            f"takes {f'new machines {limit}' if volume.accept_new else 'no new machines'}"
        )


def _compare_clocks(
    configuration: StorageConfig, clock: Clock, problems: list[str], say: Callable[[str], None]
) -> None:
    api = configuration.api.client(configuration.state.var_dir)
    reason = "its answer has no time"
    try:
        api.call("health", {}, HealthAnswer)
    except TurkuError as error:
        reason = error.message
    if api.their_time is None:
        say(f"  clock: not compared with the coordinator's: {reason}")
    elif warning := clock_warning(api, clock):
        problems.append(warning)
    else:
        say("  clock: as the coordinator's")


def _dates_ahead(configuration: StorageConfig, clock: Clock) -> Iterator[tuple[SourceDirectory, list[str]]]:
    """Yield the sources that have snapshots dated in the future, with their names, oldest first."""
    now = clock.now()
    for place in find_sources(configuration):
        # There are many records, so they are read only where a name has a date in the future.
        if history.has_name_ahead(place, configuration.state.timezone, now=now):
            stored = history.stored_snapshots(place, configuration.state.timezone)
            ahead = [each.name for each in stored if clock_agreement.is_ahead(each.moment, now=now)]
            if ahead:
                yield place, ahead


def _address(configuration: SshConfig) -> str:
    return f"{configuration.ssh_ping_user}@{configuration.ssh_ping_host}, port {configuration.ssh_ping_port}"


def _attempt(problems: list[str], step: Callable[[], object]) -> None:
    try:
        step()
    except TurkuError as error:
        problems.append("; ".join(part for part in (error.message, *error.details.splitlines(), error.hint) if part))


COMMANDS = (
    Command(
        "check",
        "Show the configuration as it is used, the volumes, what protects this host, and every problem.",
        run,
        (
            ("Check this storage:", "{prog}"),
            ("Show only the problems:", "{prog} | grep PROBLEM"),
            ("Check a new configuration before it is used:", "{prog} --config-dir /root/new"),
        ),
        exit_codes={1: "There is a problem."},
    ),
    display.command("turku-storage", _load),
)
