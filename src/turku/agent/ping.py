"""A run of turku-agent-ping: go/no-go program, checkin, and a session with each storage that has something to do."""

import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC

from msgspec import UNSET, Raw

from turku.agent import checkin
from turku.agent.checkin import CheckinResult
from turku.agent.config.model import AgentConfig
from turku.agent.state import var_dir
from turku.core import lock
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import LockHeld, TurkuError

LOCK_NAME = "turku-agent-ping"
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
                if waiting.has_other_profiles:
                    agent, waiting = _with_other_profiles(agent, waiting)
                if waiting.restores is not UNSET:
                    restores.start(waiting.restores)
                if not waiting.storages:
                    _LOG.debug("nothing is due")
                    _tell_person(agent)
                    return
                # Imported here, because a run with nothing due does not need it.
                from turku.agent import backup_session
                from turku.agent.state import last_storages

                last_storages.remember(
                    agent.state, {source.name: due.address for due in waiting.storages for source in due.sources}
                )
                backup_session.back_up(agent, waiting.storages)
        except LockHeld:
            if agent.restore.remote_restore:
                # A backup may take a day, and a restore must not wait for its end.
                restores.start_beside_backup()
            raise


def _tell_person(agent: AgentConfig) -> None:
    """Say what failed and what is next, where somebody looks on. A timer's run stays quiet."""
    if not (sys.stdout is not None and sys.stdout.isatty()):
        return
    from turku.agent import coordinator_status

    try:
        status = coordinator_status.ask(agent)
    except TurkuError as error:
        _LOG.debug("cannot ask the coordinator: %s", error.message)
        status = None
    zone = SYSTEM_CLOCK.now().astimezone().tzinfo or UTC
    print("nothing due" if status is None else coordinator_status.idle_sentence(status.answer, zone))  # noqa: T201


def _with_other_profiles(agent: AgentConfig, waiting: CheckinResult) -> tuple[AgentConfig, CheckinResult]:
    """Take the coordinator's profiles, and check in again for what is due then. A failure delays no backup."""
    from turku.agent import registration

    try:
        present = registration.take_profiles(agent)
        return present, checkin.check_in(present)
    except TurkuError as error:
        _LOG.warning("cannot take the coordinator's profiles now: %s", error.message)
        return agent, waiting


class _Restores:
    """The restores of this run, beside its backups.

    With the end of the block they are over, or postponed where the run was ended.
    """

    def __init__(self, agent: AgentConfig) -> None:
        self._agent = agent
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "_Restores":
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
    from turku.core.program_output.bounded_log import bounded_log

    with (
        bounded_log(_LOG, program[0], level=logging.INFO, shown=_GONOGO_LINES) as log,
        command.start(program, on_line=log) as child,
    ):
        exit_code = child.wait(_GONOGO_TIMEOUT_SECONDS)
    if exit_code != 0:
        _LOG.info("no backup now: the go/no-go program %s ended with exit code %d", program[0], exit_code)
    return exit_code == 0
