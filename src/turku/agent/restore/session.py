"""A history session: one request to a storage about its history, and the answers line by line (restore_messages.py)."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from turku import errors
from turku.agent.config.model import AgentConfig
from turku.agent.state import var_dir
from turku.agent.tunnel import ssh_tunnel, trusted_storages
from turku.agent.tunnel.storage_output import StorageOutput
from turku.agent.tunnel.trusted_storages import Address, checked_address
from turku.core import command, lock
from turku.core.log import one_line
from turku.errors import CommandFailed, LockHeld, MalformedMessage, RestoreFailed, StorageNotTrusted, TurkuError
from turku.protocol import codec
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import ANSWER_LINE_LIMIT_BYTES, Answer, HistoryRequest, Refusal
from turku.protocol.session_framing import GO

_END_TIMEOUT_SECONDS = 30.0
_TEXT_LIMIT = 4000
_STALE_SECONDS = 3600.0
_OLD_STORAGE_HINT = (
    "a storage of an earlier release, or of the existing system, shows no history; turku-agent-ping --restore works "
    "with every one"
)
_PRINTED_LIMIT = 20
_PRINTED_LINE_BYTES = 500
_ANSWER_START = b'{"row":'
_LOG = logging.getLogger(__name__)


class HistorySession:
    """A running session. One thread reads its answers."""

    def __init__(self, address: Address, ssh: command.Child) -> None:
        self._address = address
        self._ssh = ssh
        self._has_answered = False
        self._printed: list[str] = []
        """Lines that the storage's login shell printed before the first answer."""

    def answers(self) -> Iterator[Answer]:
        """Yield the storage's answers to their end. Raises MalformedMessage, and the error of a refusal."""
        while line := self._ssh.stdout.readline(ANSWER_LINE_LIMIT_BYTES + 1):
            if not self._has_answered:
                printed, start, rest = line.partition(_ANSWER_START)
                if printed:
                    self._keep_printed(printed)
                if not start:
                    continue
                self._has_answered, line = True, start + rest
                self._log_printed()
            answer: Answer = codec.decode(line, Answer, limit_bytes=ANSWER_LINE_LIMIT_BYTES)  # type: ignore[arg-type]
            if isinstance(answer, Refusal):
                raise error_of(self._address, answer)
            yield answer

    def _keep_printed(self, printed: bytes) -> None:
        if len(self._printed) >= _PRINTED_LIMIT:
            raise MalformedMessage(
                f"storage {self._address.name} prints text, and does not answer", details="\n".join(self._printed)
            )
        if printed.strip():
            self._printed.append(one_line(printed.rstrip(b"\r\n")[:_PRINTED_LINE_BYTES]))

    def _log_printed(self) -> None:
        for number, line in enumerate(self._printed):
            if number == 0:
                name, hint = self._address.name, ssh_tunnel.SHELL_HINT
                _LOG.warning("storage %s printed before its answer: %s; %s", name, line, hint)
            else:
                _LOG.warning("  | %s", line)

    def release_storage(self) -> None:
        """Let the storage send its files. Raises RestoreFailed, and the error of a refusal."""
        try:
            self._ssh.stdin.write(GO + b"\n")
            self._ssh.stdin.flush()
        except OSError as error:
            # The storage's last answer may name the reason.
            for _answer in self.answers():
                pass
            raise RestoreFailed(f"storage {self._address.name} ended the session") from error

    def close(self) -> None:
        """Tell the storage that nothing more is wanted. The storage then ends the session."""
        self._ssh.stdin.close()

    def terminate(self) -> None:
        """End the connection. The answers end with it."""
        os.kill(self._ssh.pid, signal.SIGTERM)

    def require_end(self) -> None:
        """Return when the session has ended well. Raises RemotePortTaken, CommandFailed."""
        exit_code = self._ssh.wait(_END_TIMEOUT_SECONDS)
        try:
            ssh_tunnel.require_success(self._address, exit_code, self._ssh.last_lines)
        except ssh_tunnel.RemotePortTaken:
            raise
        except CommandFailed as error:
            error.hint = error.hint or _OLD_STORAGE_HINT
            raise

    def require_answer(self) -> None:
        """Raise RemotePortTaken or CommandFailed, because the session ended without an answer."""
        try:
            self.require_end()
        except ssh_tunnel.RemotePortTaken:
            raise
        except CommandFailed as error:
            error.details = "\n".join(part for part in (*self._printed, error.details) if part)
            raise
        if self._printed:
            raise CommandFailed(
                f"storage {self._address.name} did not answer, and printed something else",
                details="\n".join((*self._printed, *self._ssh.last_lines)),
                hint=f"either {ssh_tunnel.SHELL_HINT}; or {_OLD_STORAGE_HINT}",
            )
        raise CommandFailed(
            f"storage {self._address.name} did not answer",
            details="\n".join(self._ssh.last_lines),
            hint=_OLD_STORAGE_HINT,
        )


@contextmanager
def opened(
    agent: AgentConfig, address: Address, request: HistoryRequest, *, directory: Path, is_shown: bool = False
) -> Iterator[HistorySession]:
    """Open a session with this request for the length of the block.

    ``directory`` is private and has no known_hosts file yet. The storage's log is shown where ``is_shown``. Errors
    contain it in any case. Raises CommandFailed when ssh cannot be started.
    """
    output = StorageOutput(address.name, held_until_released=not is_shown)
    with ssh_tunnel.open_tunnel(
        agent,
        address,
        port=request.port,
        request=ssh_tunnel.ended_request(request),
        output=output,
        directory=directory,
        stdout=True,
    ) as ssh:
        yield HistorySession(address, ssh)


@contextmanager
def scratch(agent: AgentConfig, purpose: str) -> Iterator[Path]:
    """Give a private directory for one session. Unlike backups, several sessions may run at the same time.

    Directories that killed sessions of the same purpose left are removed.
    """
    base = var_dir.runtime_directory(agent.state)
    for left in base.glob(f"{purpose}-*"):
        with suppress(OSError, LockHeld):
            if time.time() - left.lstat().st_mtime > _STALE_SECONDS:
                with lock.exclusive_directory(left):
                    shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=base, ignore_cleanup_errors=True) as name,
        lock.exclusive_directory(Path(name)),
    ):
        yield Path(name)


def ask(
    agent: AgentConfig, address: Address, request: HistoryRequest, *, last: type[Answer], timeout_seconds: float
) -> Iterator[Answer]:
    """Yield the storage's answers to a request that needs no tunnel, to the one of the type ``last``.

    Raises CommandFailed, also where that one does not come, and a refusal's error.
    """
    with scratch(agent, "browse") as directory, opened(agent, address, request, directory=directory) as session:
        # Reading a line blocks, so a storage that sends none for so long is disconnected (threats S4).
        timer = threading.Timer(timeout_seconds, session.terminate)
        timer.daemon = True
        timer.start()
        answer: Answer | None = None
        try:
            for answer in session.answers():
                yield answer
        finally:
            timer.cancel()
        if answer is None:
            session.require_answer()
        session.close()
        session.require_end()
    if not isinstance(answer, last):
        raise incomplete_answer(address)


def incomplete_answer(address: Address) -> CommandFailed:
    """Return the error for a session that ended before its last answer."""
    return CommandFailed(f"storage {address.name} ended the session before its answer was complete")


def trusted_address(agent: AgentConfig, address: StorageAddress) -> Address:
    """Return the storage's address with the host keys that this machine trusts.

    Raises InvalidValue, StorageNotTrusted.
    """
    (verdict,) = trusted_storages.check_trust(agent, [checked_address(address)])
    if isinstance(verdict, StorageNotTrusted):
        raise verdict
    return verdict


def error_of(address: Address, refusal: Refusal) -> TurkuError:
    """Return the error that the storage named by its code, or RestoreFailed for a code that is not known here."""
    known = {
        kind.code: kind
        for kind in vars(errors).values()
        # A refusal of the storage by the coordinator is not an error of this machine.
        if isinstance(kind, type) and issubclass(kind, TurkuError) and not issubclass(kind, errors.ApiRefused)
    }
    kind = known.get(refusal.code, RestoreFailed)
    message, details, hint = (
        "\n".join(one_line(line) for line in text[:_TEXT_LIMIT].splitlines())
        for text in (refusal.message, refusal.details, refusal.hint)
    )
    return kind(f"storage {address.name}: {message}", details=details, hint=hint)
