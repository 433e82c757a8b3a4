"""Sessions with storages: rsyncd, tunnel, request, and the wait for the end (contract, "A backup session")."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from turku.agent.capture import accepted_path, excluded_paths, own_paths
from turku.agent.capture.change_report import ChangeReport
from turku.agent.checkin import DueStorage
from turku.agent.config.model import AgentConfig, SourceConfig
from turku.agent.rsyncd import serving_daemon
from turku.agent.rsyncd.config_text import Module
from turku.agent.state import session_record, var_dir
from turku.agent.state.session_record import SessionResult
from turku.agent.tunnel import ssh_tunnel, trusted_storages
from turku.agent.tunnel.storage_output import StorageOutput
from turku.agent.tunnel.trusted_storages import Address, checked_address
from turku.core import command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.errors import BackupFailed, CommandFailed, InvalidValue, TurkuError

_LOG = logging.getLogger(__name__)
_STOP_LOOK_SECONDS = 0.2
_PURPOSE = "ping"
_REASON_LENGTH = 900

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


def back_up(agent: AgentConfig, storages: Sequence[DueStorage]) -> None:
    """Have a session with each storage, all at the same time. Raises BackupFailed where one failed."""
    with var_dir.fresh_directory(agent, _PURPOSE) as directory:
        stop = threading.Event()
        trusted, results = _trusted(storages, agent)
        runs = [
            _SessionThread(agent, address, sources, directory / str(number), stop)
            for number, (address, sources) in enumerate(trusted)
        ]
        try:
            # In parallel, so that a slow storage, or one that holds its session open, delays no other.
            for run in runs:
                run.start()
            for run in runs:
                run.join()
        finally:
            stop.set()
            for run in runs:
                if run.ident is not None:
                    run.join()
    failed = [result.storage for result in results] + [run.storage_name for run in runs if run.failed]
    results += [run.result for run in runs]
    session_record.note(agent.state, results, configured=agent.sources, now=SYSTEM_CLOCK.now())
    if failed:
        raise BackupFailed(f"the session with {', '.join(failed)} failed; what was due there stays due")


def _trusted(
    storages: Sequence[DueStorage], agent: AgentConfig
) -> tuple[list[tuple[Address, tuple[SourceConfig, ...]]], list[SessionResult]]:
    """Return the trusted storages with their due sources, and the others with their errors, which are logged."""
    refused: list[SessionResult] = []
    addresses, sources = [], []
    for storage in storages:
        try:
            addresses.append(checked_address(storage.address))
            sources.append(storage.sources)
        except TurkuError as error:
            refused.append(SessionResult(one_line(storage.address.name)[:255], _names(storage.sources), error))
            _log_error(error)
    trusted = []
    for verdict, address, due in zip(trusted_storages.check_trust(agent, addresses), addresses, sources, strict=True):
        if isinstance(verdict, TurkuError):
            refused.append(SessionResult(address.name, _names(due), verdict))
            _log_error(verdict)
        else:
            trusted.append((verdict, due))
    return trusted, refused


def _names(sources: Sequence[SourceConfig]) -> list[str]:
    return [source.name for source in sources]


class _SessionThread(threading.Thread):
    """The session with one storage. Its child processes end with it."""

    def __init__(
        self,
        agent: AgentConfig,
        address: Address,
        sources: tuple[SourceConfig, ...],
        directory: Path,
        stop: threading.Event,
    ) -> None:
        self.storage_name = address.name
        super().__init__(name=f"storage {self.storage_name}")
        self._agent = agent
        self._address = address
        self._sources = sources
        self._directory = directory
        self._stop_event = stop
        self.failed = False
        self._error: TurkuError | None = None
        self._output: StorageOutput | None = None

    @property
    def result(self) -> SessionResult:
        """The result of the session, after its end. A backup that failed in it was reported by the storage."""
        return SessionResult(self.storage_name, _names(self._sources), self._error)

    def run(self) -> None:
        try:
            self._session()
        except PingEnded:
            self.failed = True
        except TurkuError as error:
            self.failed = True
            if getattr(error, "exit_code_there", None) != BackupFailed.exit_code:
                self._error = error
            _log_error(error, self._output)
        except Exception as error:
            # An internal error in one session must not end the others. The exit code reports it.
            self.failed = True
            self._error = TurkuError(f"internal error: {type(error).__name__}")
            _LOG.exception("internal error in the session with %s", self.storage_name)

    def _session(self) -> None:
        with ExitStack() as opened:
            own = own_paths.withheld(self._agent, self._sources)
            for name, reason in own.items():
                _LOG.error("source %s is not offered: %s", name, reason)
            withheld = {**excluded_paths.missing_mounts(self._sources), **own}
            modules = []
            for source in self._sources:
                if source.name in withheld:
                    continue
                try:
                    modules.append(self._module(source, opened))
                except InvalidValue as error:
                    withheld[source.name] = error.message[:_REASON_LENGTH]
                    _LOG.error("source %s is not offered: %s", source.name, error.message)
            self._output = StorageOutput(self.storage_name)
            self._directory.mkdir(mode=0o700)
            run(
                self._agent,
                self._address,
                modules,
                action="checkin",
                directory=self._directory,
                output=self._output,
                watch=lambda ssh, _port: wait_for_end(
                    ssh, timeout_seconds=self._agent.tunnel.session_timeout_seconds, stop=self._stop_event
                ),
                withheld=withheld,
            )
            names = ", ".join(module.name for module in modules)
            _LOG.info("the session with storage %s for %s is over", self.storage_name, names)

    def _module(self, source: SourceConfig, opened: ExitStack) -> Module:
        """Return the source as rsyncd offers it. A source of a profile is opened. Raises InvalidValue."""
        if not source.profile:
            return self._module_at(source, source.path)
        descriptor = opened.enter_context(accepted_path.opened(source))
        real = accepted_path.real_path(descriptor)
        return self._module_at(replace(source, path=real), accepted_path.served_path(descriptor))

    def _module_at(self, source: SourceConfig, path: str) -> Module:
        found = excluded_paths.find(self._agent, source)

        def served(directories: Iterable[Path]) -> tuple[Path, ...]:
            return tuple(Path(path) / each.relative_to(source.path) for each in directories)

        return Module(
            source.name,
            path,
            hidden=served(found.hidden),
            emptied=served(found.emptied),
            one_file_system=excluded_paths.stays_on_one_file_system(source),
            real_path=source.path,
        )


def _log_error(error: TurkuError, output: StorageOutput | None = None) -> None:
    _LOG.error("%s", error.message)
    for line in error.details.splitlines():
        if output is None or not output.has_shown(line):
            _LOG.error("  | %s", line)
    if error.hint:
        _LOG.error("  hint: %s", error.hint)
