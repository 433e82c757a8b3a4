"""The version of the storage's rsync, and the refusal of releases that a compromised machine can attack."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turku.core import command
from turku.errors import CommandFailed, ConfigurationError

if TYPE_CHECKING:
    from turku.storage.config.model import ReceivingConfig

_TIMEOUT_SECONDS = 10.0
_FIRST_LINE = re.compile(r"\Arsync\s+version\s+v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(pre\d*|dev|rc\d*)?", re.ASCII)
REASON = (
    "releases before 3.5.0 have known faults by which the sending side, here a machine that may be compromised, "
    "writes outside the tree, reads or crashes the receiver; 3.5.0 fixed 33 of them"
)
HINT = (
    "install rsync 3.5.0 or newer and name it in rsync_command; allow_old_rsync: true accepts this one, for a "
    "distribution that keeps an older number and fixes it"
)


@dataclass(frozen=True, order=True)
class RsyncVersion:
    """A release of rsync. A pre-release sorts before its release."""

    numbers: tuple[int, int, int]
    is_release: bool = True

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers)) + ("" if self.is_release else " (pre-release)")

    @property
    def is_old(self) -> bool:
        """True for a release with known faults."""
        return self < MINIMUM


MINIMUM = RsyncVersion((3, 5, 0))


def parse(output: bytes | str) -> RsyncVersion | None:
    """Return the version that ``rsync --version`` printed. None for a program that is not this rsync."""
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
    match = _FIRST_LINE.match(text)
    if match is None:
        return None
    major, minor, patch, mark = match.groups()
    return RsyncVersion((int(major), int(minor), int(patch or 0)), is_release=mark is None)


@functools.lru_cache(maxsize=8)
def _ask(rsync_command: tuple[str, ...]) -> RsyncVersion | None:
    return parse(command.run([*rsync_command, "--version"], timeout_seconds=_TIMEOUT_SECONDS).stdout)


def installed(rsync_command: Sequence[str]) -> RsyncVersion | None:
    """Return the version of the program, asked once per process. None if it is not this rsync.

    Raises CommandFailed if it cannot be started, or was killed or too slow twice.
    """
    try:
        return _ask(tuple(rsync_command))
    except CommandFailed:
        return _ask(tuple(rsync_command))


def require_supported(configuration: "ReceivingConfig") -> None:
    """Check that the configured rsync may receive. Raises ConfigurationError with the reason if it may not."""
    if configuration.allow_old_rsync:
        return
    program = " ".join(configuration.rsync_command)
    try:
        version = installed(configuration.rsync_command)
    except CommandFailed as error:
        raise ConfigurationError(
            f"rsync_command: {error.message}", details=error.details, hint=error.hint or "is rsync installed?"
        ) from error
    if version is None:
        raise ConfigurationError(f"rsync_command: {program} does not say which rsync it is: {REASON}", hint=HINT)
    if version.is_old:
        raise ConfigurationError(f"rsync_command: {program} is rsync {version}: {REASON}", hint=HINT)
