"""The session of one machine: the forced command of its SSH key, from request to last report.

The machine's identity comes from the command's own argument, never from the machine's input.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from turku.core import log
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration import directory as configuration_files
from turku.errors import LockHeld
from turku.storage.config.defaults import DEFAULT_LOG_FILE, DEFAULT_VAR_DIR
from turku.storage.session import request as session_request
from turku.storage.session.session_slots import SessionKind, SessionSlots

if TYPE_CHECKING:
    from turku.protocol.messages import SessionRequest
    from turku.storage.config.model import StorageConfig

_LOG = logging.getLogger(__name__)

PROGRAM: Final = "turku-storage-ping"
_USE_CHECK_SECONDS: Final = 10.0
"""Interval of the checks that a restore's tunnel is used."""


def run(config_dir: Path, uuid: str, *, descriptor: int = 0, debug: bool = False, clock: Clock = SYSTEM_CLOCK) -> int:
    """Serve one request of machine ``uuid``, read from ``descriptor``, and return the exit code.

    Few modules are loaded before the session has a slot of its kind, so that one key can hold open only few and small
    sessions (threats M11). Raises MalformedMessage, LockHeld (too many sessions), ConfigurationError, TunnelRefused,
    NoVolume, ApiError, or, after all reports, BackupFailed.
    """
    tree = configuration_files.read_with_state(config_dir, default_var_dir=DEFAULT_VAR_DIR)
    files = tree.content
    if tree.faults or not isinstance(files.get("api_url"), str):
        from turku.storage.config import loading as configuration

        configuration.load(config_dir)
    destination = files.get("log_file", DEFAULT_LOG_FILE)
    log.set_up(PROGRAM, destination=str(destination), debug=debug, terminal=False, prefix=f"{uuid}: ")
    with SessionSlots.of(files, uuid) as slots:
        slots.begin()
        content = session_request.read(descriptor, clock=clock)
        kind = session_request.kind_of(content)
        if kind is not None:
            try:
                slots.turn_to(kind)
            except LockHeld as refusal:
                if kind is SessionKind.HISTORY:
                    return _refuse(refusal)
                raise
        _serve(config_dir, uuid, content, kind, descriptor=descriptor, debug=debug, clock=clock)
    return 0


def _ask_for_changed_entries(request: "SessionRequest") -> tuple[str, ...]:
    """Ask a capable agent for recently changed entries, and return the sources that it was asked about."""
    import sys

    from msgspec import UNSET

    from turku.protocol.machine.changed_entries_messages import CHANGED_ENTRIES_WANTED

    if request.moment_ns is UNSET or not request.sources:
        return ()
    try:
        sys.stderr.write(CHANGED_ENTRIES_WANTED + "\n")
        sys.stderr.flush()
    except OSError:
        # The agent is gone, which the end of standard input will show.
        return ()
    return tuple(request.sources)


def _refuse(refusal: LockHeld) -> int:
    """Answer with a refusal that a browsing agent understands."""
    import json
    import sys

    _LOG.warning("%s", refusal.message)
    answer = {"row": "refusal", "code": refusal.code, "message": refusal.message, "hint": refusal.hint}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _serve(
    config_dir: Path, uuid: str, content: bytes, kind: SessionKind | None, *, descriptor: int, debug: bool, clock: Clock
) -> None:
    from turku.protocol.restore_messages import HistoryRequest
    from turku.storage.config import loading as storage_configuration
    from turku.storage.session import tunnel_ownership
    from turku.storage.session.cancellation import SessionCancellation

    request = session_request.parse(content, kind)
    configuration = storage_configuration.load(config_dir)
    is_restore = kind is SessionKind.RESTORE
    log.set_up(
        PROGRAM,
        destination=configuration.state.log_file,
        debug=debug,
        # The terminal log goes to the agent by way of standard error.
        terminal=request.verbose or is_restore,
        terminal_name=configuration.identity.name,
        prefix=f"{uuid}: ",
    )
    if isinstance(request, HistoryRequest):
        from turku.storage.session import restore_session

        restore_session.serve(configuration, uuid, request, descriptor=descriptor, clock=clock)
        return
    _LOG.debug("from %s: %s", os.environ.get("SSH_CONNECTION", "no ssh"), os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    tunnel_ownership.require_own_tunnel(request.port)
    if not is_restore:
        from turku.storage.session.checkin import Checkin

        with SessionCancellation(descriptor, asked_sources=_ask_for_changed_entries(request)) as agent:
            Checkin(configuration, uuid, request, agent, clock).run()
        return
    _hold_tunnel(configuration, request.port, descriptor, clock)


def _hold_tunnel(configuration: "StorageConfig", port: int, descriptor: int, clock: Clock) -> None:
    """Keep the session open while an operator restores through its tunnel, until the tunnel is idle for too long."""
    from turku.protocol.messages import restore_active_line
    from turku.storage.session import tunnel_ownership
    from turku.storage.session.cancellation import AgentDisconnected, SessionCancellation

    with SessionCancellation(descriptor, longest_seconds=configuration.limits.max_run_seconds) as agent:
        _LOG.info("%s", restore_active_line(port))
        idle_seconds = configuration.sessions.restore_idle_seconds
        used = clock.monotonic_seconds()
        try:
            while clock.monotonic_seconds() - used < idle_seconds:
                agent.wait(min(_USE_CHECK_SECONDS, idle_seconds / 10))
                if tunnel_ownership.is_used(port):
                    used = clock.monotonic_seconds()
            _LOG.warning(
                "the restore ends: nothing went through its tunnel for %g s (restore_idle_seconds)", idle_seconds
            )
        except AgentDisconnected:
            _LOG.info("the restore ends: %s", agent.reason)
