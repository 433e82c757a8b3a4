"""What ``turku-storage check`` shows: the configuration as it is used, the volumes, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from turku.errors import TurkuError
from turku.storage import protection, sandbox, volume_marks, volumes
from turku.storage.configuration import Storage
from turku.storage.protection import Verdict
from turku.storage.sandbox import SandboxNotTried

_GIB = 1024**3


def report(configuration: Storage, say: Callable[[str], None]) -> int:
    """The number of problems; each line goes to ``say``, those of what protects the host among them."""
    problems: list[str] = []
    say(f"storage {configuration.name}, coordinator {configuration.api_url}")
    say(f"  machines connect to {_address(configuration)}")
    _attempt(problems, lambda: say(f"  host keys: {', '.join(key.split()[0] for key in configuration.host_keys())}"))
    say(f"  authorized_keys: {configuration.authorized_keys_file}, of user {configuration.authorized_keys_user}")
    say(f"  forced command: {configuration.authorized_keys_command}")
    say(f"  state: {configuration.var_dir}; locks: {configuration.lock_dir}; log: {configuration.log_file}")
    say(f"  snapshots: {configuration.snapshot_mode}; time zone: {configuration.zone.key}")
    say(f"  kept in any case: {configuration.retention_floor or 'nothing'}; trash: {configuration.trash_days:g} days")
    say(f"  rsync: {' '.join(configuration.rsync_command)}")
    with suppress(SandboxNotTried):
        # Those who are told what protects the host are told of it.
        found = sandbox.availability(configuration)
        say(f"  sandbox: {'used' if found.is_used else 'not used'} ({found.reason})")
    for volume in configuration.volumes:
        fault = volume_marks.fault(configuration, volume)
        if fault is not None:
            problems.append(f"volume {volume.name}: {fault}")
            continue
        space = volumes.volume_space(volume)
        if space is None:
            problems.append(f"volume {volume.name}: {volume.path} is not there")
            continue
        say(
            f"volume {volume.name}: {volume.path}, {space.available_bytes / _GIB:.1f} of "
            f"{space.total_bytes / _GIB:.1f} GiB free, {space.used_percent:.0f} % used, "
            f"{space.inodes_used_percent:.0f} % of inodes; "
            + (
                f"takes new machines below {volume.accept_new_high_water_percent:g} %"
                if volume.accept_new
                else "takes no new machines"
            )
        )
    _attempt(problems, lambda: volumes.choose_volume(configuration))
    say("what protects this host:")
    for fact in protection.facts(configuration):
        if fact.verdict is Verdict.FAIL:
            problems.append(f"{fact.subject}: {fact.text}")
        else:
            say(f"  {fact.verdict.value:4} {fact.subject}: {fact.text}")
    for problem in problems:
        say(f"PROBLEM: {problem}")
    if not problems:
        say("no problem found")
    return len(problems)


def _address(configuration: Storage) -> str:
    return f"{configuration.ssh_ping_user}@{configuration.ssh_ping_host}, port {configuration.ssh_ping_port}"


def _attempt(problems: list[str], step: Callable[[], object]) -> None:
    try:
        step()
    except TurkuError as error:
        problems.append("; ".join(part for part in (error.message, *error.details.splitlines(), error.hint) if part))
