"""The session with one storage: rsyncd, tunnel, request, and the wait for its end (contract, section 4)."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from turku.agent.capture.change_report import ChangeReport
from turku.agent.config.model import AgentConfig
from turku.agent.rsyncd import serving_daemon
from turku.agent.rsyncd.config_text import Module
from turku.agent.tunnel import ssh_tunnel
from turku.agent.tunnel.storage_output import StorageOutput
from turku.agent.tunnel.trusted_storages import Address
from turku.core import command
from turku.errors import CommandFailed

_LOG = logging.getLogger(__name__)
_STOP_LOOK_SECONDS = 0.2

Waiter = Callable[[command.Child, int], int]
"""A function that waits for the end of ssh, given its process and the tunnel's port, and returns its exit code."""


class PingEnded(Exception):
    """The whole ping ends. This is not an error of the storage."""


def run(
    agent: AgentConfig,
    address: Address,
    modules: Sequence[Module],
    *,
    action: Literal["checkin", "restore"],
    directory: Path,
    output: StorageOutput,
    watch: Waiter,
    withheld: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Offer the modules to the storage until ``watch`` returns. Another port is tried where one is taken there.

    ``withheld`` are due sources that are not offered, with the reasons, which the storage reports. ``directory`` is
    private and empty. Every child process has ended when this returns. Raises CommandFailed when no session came about
    or it did not end well.
    """
    is_checkin = action == "checkin"
    report = ChangeReport(agent, address.name, modules) if is_checkin else None

    def attempt(scratch: Path) -> None:
        with serving_daemon.serve(agent, modules, scratch) as port:
            request = ssh_tunnel.request_bytes(
                action,
                port=port,
                sources={module.name: module.credentials for module in modules} if is_checkin else {},
                withheld=withheld,
                parallel_sources=agent.backup.parallel_sources if is_checkin else None,
                moment_ns=None if report is None else report.moment.unix_ns,
            )
            if report is not None:
                # Before the tunnel opens, as the storage may ask at once.
                report.prepare(output)
            _LOG.debug("storage %s: opening a tunnel with port %d", address.name, port)
            with ssh_tunnel.open_tunnel(
                agent, address, port=port, request=request, output=output, directory=scratch
            ) as ssh:
                with nullcontext() if report is None else report.sent_to(ssh.stdin):
                    exit_code = watch(ssh, port)
                last_lines = ssh.last_lines
        ssh_tunnel.require_success(address, exit_code, last_lines)

    ssh_tunnel.with_free_port(address, directory, attempt)
    if report is not None:
        report.keep()


def wait_for_end(ssh: command.Child, *, timeout_seconds: float, stop: threading.Event) -> int:
    """Return the exit code of ssh. Raises CommandFailed after the timeout, PingEnded on ``stop``."""
    deadline = time.monotonic() + timeout_seconds
    descriptor = os.pidfd_open(ssh.pid)
    try:
        # The end of ssh is noticed at once. ``stop`` is checked a few times a second.
        while not select.select([descriptor], [], [], _STOP_LOOK_SECONDS)[0]:
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"the session did not end within {timeout_seconds:g} s",
                    details="\n".join(ssh.last_lines),
                    hint="session_timeout_seconds sets the limit",
                )
            if stop.is_set():
                raise PingEnded
    finally:
        os.close(descriptor)
    return ssh.wait(1)
