"""Legacy mode (``turku-agent-ping --restore``): one storage may write to one module (contract, "A restore session").

The session stays open until the operator ends it.
"""

import logging
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from turku.agent import backup_session, checkin
from turku.agent.config.model import AgentConfig, RestoreConfig
from turku.agent.identity import machine_identity
from turku.agent.identity.machine_identity import Identity
from turku.agent.rsyncd import daemon as rsync_daemon
from turku.agent.rsyncd import nodev_mount
from turku.agent.rsyncd.config_text import Module
from turku.agent.state import last_storages, var_dir
from turku.agent.tunnel import trusted_storages
from turku.agent.tunnel.storage_output import StorageOutput
from turku.agent.tunnel.trusted_storages import Address, checked_address
from turku.core import command, durable, lock
from turku.core.log import one_line
from turku.errors import ApiForbidden, ApiUnreachable, DurableWriteFailed, InvalidValue, StorageNotTrusted, UsageError
from turku.protocol.messages import StorageAddress

LOCK_NAME = "turku-agent-restore"
_PURPOSE = "restore"
_ACTIVE = "Restore mode active on port"
_ACTIVE_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.25
_CLOSE_TIMEOUT_SECONDS = 5.0
_FORMER = "(what was backed up before this machine was moved)"
_AS_ROOT = "sudo turku-agent-ping --restore"
_LOG = logging.getLogger(__name__)

Restorable = Sequence[tuple[StorageAddress, list[str]]]


def restore(agent: AgentConfig, *, storage_name: str | None) -> None:
    """Offer ``restore_path`` to the storage for writing until the operator or the storage ends the session.

    Raises UsageError where the storage is ambiguous, LockHeld while another restore runs, RestoreFailed where the
    storage could write to devices, CommandFailed if no session could be opened.
    """
    # A lock of its own, so that a restore does not wait for a long backup.
    with lock.exclusive(var_dir.lock_directory(agent.state), LOCK_NAME):
        _say("Entering restore mode.", "")
        storages = _storages(agent)
        if storages:
            _say("This machine's sources are on the following storage units:")
            for storage, sources in storages:
                shown = [one_line(source) for source in sources] or [_FORMER]
                _say(f"    {one_line(storage.name)}", *(f"        {line}" for line in shown))
            _say("")
        address = _trusted(agent, storages, checked_address(_choose(storages, storage_name)))
        _make_restore_path(agent.restore)
        machine = machine_identity.existing(agent)
        output = StorageOutput(address.name, held_until_released=True, awaited=_ACTIVE)
        with (
            var_dir.fresh_directory(agent, _PURPOSE) as directory,
            nodev_mount.mounted(agent.restore.restore_path) as path,
        ):
            module = Module(agent.restore.restore_module, path, writable=True)
            backup_session.run(
                agent,
                address,
                [module],
                action="restore",
                directory=directory,
                output=output,
                watch=partial(_watch, output, lambda port: _say(*instructions(agent, machine, address, module, port))),
            )
        _LOG.info("restore mode is over")


def _storages(agent: AgentConfig) -> Restorable:
    """Return the storages of the machine's sources, as the coordinator knows them, or else as it named them last.

    Raises ApiError where none are known.
    """
    try:
        restorable = checkin.restorable_sources(agent)
    except (ApiUnreachable, ApiForbidden) as error:
        last = {name: each for name, each in last_storages.known(agent.state).items() if name in agent.sources}
        if not last:
            raise
        _say(
            f"The coordinator is of no help: {one_line(error.message)}",
            "These are the storages that it named last. Each must still have a host key that this machine trusts.",
            "",
        )
        return checkin.by_address(last)
    named = {name: order.storage for name, order in restorable.sources.items()}
    last_storages.remember(agent.state, named, is_whole=True)
    return [*checkin.by_address(named), *((address, []) for address in restorable.former_storages)]


def _trusted(agent: AgentConfig, storages: Restorable, chosen: Address) -> Address:
    """Return the chosen storage with the host keys that this machine trusts. Raises StorageNotTrusted."""
    others = []
    for address, _sources in storages:
        # An error of a storage that was not chosen must not prevent the restore.
        with suppress(InvalidValue):
            others.append(checked_address(address))
    verdicts = dict(zip(others, trusted_storages.check_trust(agent, others), strict=True))
    verdict = verdicts[chosen]
    if isinstance(verdict, StorageNotTrusted):
        raise verdict
    return verdict


def _make_restore_path(configuration: RestoreConfig) -> None:
    is_root = os.geteuid() == 0
    try:
        durable.make_private_directory(configuration.restore_path)
        if not os.access(configuration.restore_path, os.W_OK | os.X_OK, effective_ids=True):
            raise DurableWriteFailed(f"cannot write to {configuration.restore_path}")
    except DurableWriteFailed as error:
        raise DurableWriteFailed(error.message, hint=error.hint if is_root else f"as root: {_AS_ROOT}") from error
    if not is_root:
        _LOG.warning(
            "not root: owners, device files and all that this user may not write are not restored; that takes %s",
            _AS_ROOT,
        )
    if not rsync_daemon.can_change_root():
        # Without a chroot rsyncd rewrites links that lead out of the module.
        _LOG.warning("no chroot: symbolic links that point out of %s are rewritten", configuration.restore_path)


def _choose(storages: Restorable, storage_name: str | None) -> StorageAddress:
    names = [address.name for address, _sources in storages]
    listed = ", ".join(map(one_line, dict.fromkeys(names)))
    if not storages:
        raise UsageError(
            "this machine has no source on any storage, so there is nothing to restore from",
            hint="turku-update-config registers the machine and its sources",
        )
    if storage_name is not None:
        if storage_name not in names:
            raise UsageError(f"this machine has no source on a storage named {storage_name!r}; there are: {listed}")
        return storages[names.index(storage_name)][0]
    present = [address for address, sources in storages if sources]
    if len(present) > 1:
        raise UsageError(
            f"this machine's sources are on several storages: {listed}", hint="choose one by --restore-storage NAME"
        )
    return present[0] if present else storages[0][0]


def _watch(output: StorageOutput, show: Callable[[int], None], ssh: command.Child, port: int) -> int:
    """Show the operator the commands for the storage when the tunnel stands, and wait for the end of the session.

    Return the exit code of ssh, or 0 where the operator ended the session.
    """
    deadline = time.monotonic() + _ACTIVE_TIMEOUT_SECONDS
    # The printed port must be right, and only a tunnel that stands has its final port.
    while ssh.poll() is None and not output.has_awaited.wait(0.02) and time.monotonic() < deadline:
        pass
    if ssh.poll() is not None:
        # Another attempt may follow, and its messages must come after these.
        output.release(holds_next=True)
        return ssh.wait(1)
    show(port)
    output.release()
    try:
        return _hold_open(ssh)
    except KeyboardInterrupt:
        _close(ssh)
        return 0


def instructions(agent: AgentConfig, machine: Identity, address: Address, module: Module, port: int) -> list[str]:
    """Return the lines that an operator needs on the storage. They contain a password, so only a terminal gets them."""
    named = [
        ("environment", agent.identity.environment_name),
        ("service", agent.identity.service_name),
        ("unit", agent.identity.unit_name),
    ]
    return [
        f"Machine UUID: {machine.uuid}",
        *(f"Machine {kind}: {name}" for kind, name in named if name),
        f"Storage unit: {address.name}",
        f"Local destination path: {agent.restore.restore_path}",
        "Sample restore usage from storage unit:",
        f"    cd /var/lib/turku-storage/machines/{machine.uuid}/",
        f"    RSYNC_PASSWORD={module.password.reveal()} rsync -avzP --numeric-ids ${{P?}}/ \\",
        f"        rsync://{module.username}@127.0.0.1:{port}/{module.name}/",
        "",
    ]


def _hold_open(ssh: command.Child) -> int:
    descriptor = _watched_input()
    while ssh.poll() is None:
        if descriptor is None:
            time.sleep(_POLL_SECONDS)
        elif select.select([descriptor], [], [], _POLL_SECONDS)[0] and not _has_input(descriptor):
            _close(ssh)
            return 0
    return ssh.wait(1)


def _watched_input() -> int | None:
    """Return standard input if it is a terminal or a pipe, whose end (Ctrl-D) means that the operator is done."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    return descriptor if os.isatty(descriptor) or stat.S_ISFIFO(mode) else None


def _has_input(descriptor: int) -> bool:
    with suppress(OSError):
        return bool(os.read(descriptor, 4096))
    return False


def _close(ssh: command.Child) -> None:
    """Let the storage end the session, as it does when its input ends. Otherwise the caller's block ends it."""
    ssh.stdin.close()
    deadline = time.monotonic() + _CLOSE_TIMEOUT_SECONDS
    while ssh.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201
