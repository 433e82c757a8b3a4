"""A run of turku-agent-ping: go/no-go program, checkin, and a session with each storage that has something to do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET, Raw

from turku.agent import checkin
from turku.agent.checkin import DueStorage
from turku.agent.config.model import AgentConfig
from turku.agent.config.sources import SourceConfig
from turku.agent.state import var_dir
from turku.core import lock
from turku.core.log import one_line
from turku.errors import BackupFailed, LockHeld, TurkuError

if TYPE_CHECKING:
    from turku.agent.tunnel.storage_output import StorageOutput
    from turku.agent.tunnel.trusted_storages import Address

LOCK_NAME = "turku-agent-ping"
_PURPOSE = "ping"
_GONOGO_TIMEOUT_SECONDS = 3600.0
_GONOGO_LINES = 200
_LOG = logging.getLogger(__name__)


def ping(agent: AgentConfig) -> None:
    """Let the storages back up what is due, and run the restores that were requested at the coordinator.

    The results of restores are reported to the coordinator and logged. Raises LockHeld while another run is active,
    BackupFailed when a session failed while the others went on, and the errors of ``checkin.check_in``.
    """
    with _Restores(agent) as restores:
        try:
            with lock.exclusive(var_dir.lock_directory(agent.state), LOCK_NAME):
                if agent.backup.gonogo_program is not None and not _says_go(agent.backup.gonogo_program):
                    return
                waiting = checkin.check_in(agent)
                if waiting.restores is not UNSET:
                    restores.start(waiting.restores)
                if not waiting.storages:
                    _LOG.debug("nothing is due")
                    return
                _back_up(agent, waiting.storages)
        except LockHeld:
            if agent.restore.remote_restore:
                # A backup may take a day, and a restore must not wait for its end.
                restores.start_beside_backup()
            raise


class _Restores:
    """The restores of this run, beside its backups.

    With the end of the block they are over, or postponed where the run was ended.
    """

    def __init__(self, agent: AgentConfig) -> None:
        self._agent = agent
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Restores:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if self._thread is None:
            return
        try:
            if kind is None or issubclass(kind, TurkuError):
                self._thread.join()
        finally:
            self._stop.set()
            self._thread.join()

    def start(self, answer: Raw) -> None:
        from turku.agent.restore import remote_restore

        orders = remote_restore.decode_orders(answer)
        if orders:
            arguments = (self._agent, orders, self._stop)
            self._thread = threading.Thread(target=remote_restore.run, args=arguments, name="restores")
            self._thread.start()

    def start_beside_backup(self) -> None:
        from turku.agent.restore import remote_restore

        try:
            answer = remote_restore.waiting_orders(self._agent)
        except TurkuError as error:
            _LOG.warning("cannot ask the coordinator for restores: %s", error.message)
        else:
            self.start(answer)


def _says_go(program: Sequence[str]) -> bool:
    from turku.core import command
    from turku.core.bounded_log import bounded_log

    with (
        bounded_log(_LOG, program[0], level=logging.INFO, shown=_GONOGO_LINES) as log,
        command.start(program, on_line=log) as child,
    ):
        exit_code = child.wait(_GONOGO_TIMEOUT_SECONDS)
    if exit_code != 0:
        _LOG.info("no backup now: the go/no-go program %s ended with exit code %d", program[0], exit_code)
    return exit_code == 0


def _back_up(agent: AgentConfig, storages: Sequence[DueStorage]) -> None:
    # Imported here, because a run with nothing due does not need it.
    from turku.agent.state import runtime_directory

    with runtime_directory.fresh(agent, _PURPOSE) as directory:
        stop = threading.Event()
        trusted, refused = _trusted(storages, agent)
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
    failed = refused + [run.storage_name for run in runs if run.failed]
    if failed:
        raise BackupFailed(f"the session with {', '.join(failed)} failed; what was due there stays due")


def _trusted(
    storages: Sequence[DueStorage], agent: AgentConfig
) -> tuple[list[tuple[Address, tuple[SourceConfig, ...]]], list[str]]:
    """Return the trusted storages with their due sources, and the names of the others, each of which is logged."""
    from turku.agent.tunnel import trusted_storages
    from turku.agent.tunnel.trusted_storages import checked_address

    refused: list[str] = []
    addresses, sources = [], []
    for storage in storages:
        try:
            addresses.append(checked_address(storage.address))
            sources.append(storage.sources)
        except TurkuError as error:
            refused.append(one_line(storage.address.name)[:255])
            _log_error(error)
    trusted = []
    for verdict, address, due in zip(trusted_storages.check_trust(agent, addresses), addresses, sources, strict=True):
        if isinstance(verdict, TurkuError):
            refused.append(address.name)
            _log_error(verdict)
        else:
            trusted.append((verdict, due))
    return trusted, refused


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
        self._output: StorageOutput | None = None

    def run(self) -> None:
        from turku.agent.backup_session import PingEnded

        try:
            self._session()
        except PingEnded:
            self.failed = True
        except TurkuError as error:
            self.failed = True
            _log_error(error, self._output)
        except Exception:
            # An internal error in one session must not end the others. The exit code reports it.
            self.failed = True
            _LOG.exception("internal error in the session with %s", self.storage_name)

    def _session(self) -> None:
        from turku.agent import backup_session
        from turku.agent.capture import excluded_paths
        from turku.agent.rsyncd.config_text import Module
        from turku.agent.tunnel.storage_output import StorageOutput

        def module(source: SourceConfig) -> Module:
            found = excluded_paths.find(self._agent.state, source)
            return Module(
                source.name,
                source.path,
                hidden=found.hidden,
                emptied=found.emptied,
                one_file_system=excluded_paths.stays_on_one_file_system(source),
            )

        withheld = excluded_paths.missing_mounts(self._sources)
        offered = [source for source in self._sources if source.name not in withheld]
        self._output = StorageOutput(self.storage_name)
        self._directory.mkdir(mode=0o700)
        backup_session.run(
            self._agent,
            self._address,
            [module(source) for source in offered],
            action="checkin",
            directory=self._directory,
            output=self._output,
            watch=lambda ssh, _port: backup_session.wait_for_end(
                ssh, timeout_seconds=self._agent.tunnel.session_timeout_seconds, stop=self._stop_event
            ),
            withheld=withheld,
        )
        names = ", ".join(source.name for source in offered)
        _LOG.info("the session with storage %s for %s is over", self.storage_name, names)


def _log_error(error: TurkuError, output: StorageOutput | None = None) -> None:
    _LOG.error("%s", error.message)
    for line in error.details.splitlines():
        if output is None or not output.has_shown(line):
            _LOG.error("  | %s", line)
    if error.hint:
        _LOG.error("  hint: %s", error.hint)
