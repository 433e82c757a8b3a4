"""One session with a storage about its history: a request, and answers line by line (protocol/restore_messages.py)."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from turku import errors
from turku.agent import runtime_directory, ssh_tunnel, trusted_storages
from turku.agent.config.model import AgentConfig
from turku.agent.ssh_tunnel import Address
from turku.agent.storage_output import StorageOutput
from turku.core import command, lock
from turku.core.log import one_line
from turku.errors import (
    CommandFailed,
    LockHeld,
    MalformedMessage,
    RestoreFailed,
    StorageNotTrusted,
    TurkuError,
)
from turku.protocol import codec
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import ANSWER_LINE_LIMIT_BYTES, GO, Answer, HistoryRequest, Refusal

_END_TIMEOUT_SECONDS = 30.0
_TEXT_LIMIT = 4000
_STALE_SECONDS = 3600.0
_OLD_STORAGE_HINT = (
    "a storage of an earlier release, or of the existing system, shows no history; turku-agent-ping --restore works "
    "with every one"
)


_PRINTED_LIMIT = 20
_PRINTED_LINE_BYTES = 500
_FIRST_WORD = b'{"row":'
"""What every answer begins with."""
_LOG = logging.getLogger(__name__)


def _split_answer(line: bytes) -> tuple[bytes, bytes]:
    """Return what of a line was printed before the storage's answer, and the answer; either may be empty."""
    before, found, rest = line.partition(_FIRST_WORD)
    return before, found + rest


class HistorySession:
    """A running session; its answers are read by one thread."""

    def __init__(self, address: Address, ssh: command.Child) -> None:
        self._address = address
        self._ssh = ssh
        self._printed: list[str] | None = []
        """What came before the first answer; None from then on."""

    def answers(self) -> Iterator[Answer]:
        """What the storage answers, to its end. Raises MalformedMessage, and what the storage refused it with."""
        while line := self._ssh.stdout.readline(ANSWER_LINE_LIMIT_BYTES + 1):
            if self._printed is not None:
                printed, line = _split_answer(line)
                if printed:
                    self._keep_printed(printed)
                if not line:
                    continue
                self._log_printed(self._printed)
                self._printed = None
            answer: Answer = codec.decode(line, Answer, limit_bytes=ANSWER_LINE_LIMIT_BYTES)  # type: ignore[arg-type]
            if isinstance(answer, Refusal):
                raise error_of(self._address, answer)
            yield answer

    def _keep_printed(self, printed: bytes) -> None:
        if self._printed is None or len(self._printed) >= _PRINTED_LIMIT:
            raise MalformedMessage(
                f"storage {self._address.name} prints, and does not answer", details=self._printed_details
            )
        if printed.strip():
            self._printed.append(one_line(printed.rstrip(b"\r\n")[:_PRINTED_LINE_BYTES]))

    def _log_printed(self, printed: Sequence[str]) -> None:
        if printed:
            _LOG.warning(
                "storage %s printed before its answer: %s; %s", self._address.name, printed[0], ssh_tunnel.SHELL_HINT
            )
            for line in printed[1:]:
                _LOG.warning("  | %s", line)

    @property
    def _printed_details(self) -> str:
        return "\n".join(self._printed or ())

    def release_storage(self) -> None:
        """Let the storage write."""
        try:
            self._ssh.stdin.write(GO + b"\n")
            self._ssh.stdin.flush()
        except OSError as error:
            # Its last answer may say why.
            for _answer in self.answers():
                pass
            raise RestoreFailed(f"storage {self._address.name} ended the session") from error

    def close(self) -> None:
        """Say that nothing more is wanted; the storage ends the session."""
        self._ssh.stdin.close()

    def terminate(self) -> None:
        """Let the storage go: its answers end here."""
        os.kill(self._ssh.pid, signal.SIGTERM)

    def require_end(self) -> None:
        """Return when the session ended well. Raises RemotePortTaken, CommandFailed."""
        exit_code = self._ssh.wait(_END_TIMEOUT_SECONDS)
        try:
            ssh_tunnel.require_success(self._address, exit_code, self._ssh.last_lines)
        except ssh_tunnel.RemotePortTaken:
            raise
        except CommandFailed as error:
            raise CommandFailed(error.message, details=error.details, hint=error.hint or _OLD_STORAGE_HINT) from error

    def require_answer(self) -> None:
        """Raise CommandFailed: the session ended, well or not, without the answer that it was for."""
        try:
            self.require_end()
        except ssh_tunnel.RemotePortTaken:
            raise
        except CommandFailed as error:
            error.details = "\n".join(part for part in (self._printed_details, error.details) if part)
            raise
        if self._printed:
            raise CommandFailed(
                f"storage {self._address.name} did not answer, and printed something else",
                details="\n".join((self._printed_details, *self._ssh.last_lines)),
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
    """A session that asks for this; ended with the block. ``directory`` is private and has no known_hosts yet.

    What the storage logs is shown where ``is_shown``; it is in the errors in any case.
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
    """A private directory for one session: other than backups, several may go on at the same time.

    What killed ones left is removed.
    """
    base = runtime_directory.base(agent)
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


def ask(agent: AgentConfig, address: Address, request: HistoryRequest, *, timeout_seconds: float) -> Iterator[Answer]:
    """What the storage answers to a request without a tunnel. Raises CommandFailed, and what it was refused with."""
    with scratch(agent, "browse") as directory, opened(agent, address, request, directory=directory) as session:
        # Whoever reads a line waits for it; a storage that sends none for so long is given up (threats S4).
        timer = threading.Timer(timeout_seconds, session.terminate)
        timer.daemon = True
        timer.start()
        count = 0
        try:
            for answer in session.answers():
                count += 1
                yield answer
        finally:
            timer.cancel()
        if not count:
            session.require_answer()
        session.close()
        session.require_end()


def trusted_address(agent: AgentConfig, told: StorageAddress) -> Address:
    """The storage's address with the host keys that this machine trusts. Raises InvalidValue, StorageNotTrusted."""
    (verdict,) = trusted_storages.check_trust(agent, [ssh_tunnel.checked_address(told)])
    if isinstance(verdict, StorageNotTrusted):
        raise verdict
    return verdict


def error_of(address: Address, answer: Refusal) -> TurkuError:
    """The error that the storage named, by its code; RestoreFailed for one that this program does not know."""
    known = {
        kind.code: kind
        for kind in vars(errors).values()
        # A refusal of the storage by the coordinator is none of this machine.
        if isinstance(kind, type) and issubclass(kind, TurkuError) and not issubclass(kind, errors.ApiRefused)
    }
    kind = known.get(answer.code, RestoreFailed)
    message, details, hint = (
        "\n".join(one_line(line) for line in text[:_TEXT_LIMIT].splitlines())
        for text in (answer.message, answer.details, answer.hint)
    )
    return kind(f"storage {address.name}: {message}", details=details, hint=hint)
