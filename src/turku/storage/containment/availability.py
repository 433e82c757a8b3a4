"""The availability of the sandbox on this host, tried once per process."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turku.core import command
from turku.errors import BackupFailed, CommandFailed, ConfigurationError
from turku.storage.containment import bubblewrap

if TYPE_CHECKING:
    from turku.storage.config.model import LimitsConfig

_PROBE_TIMEOUTS_SECONDS = (10.0, 30.0)
"""Limits of each attempt. A busy host gets more time before a session is given up."""
_CANNOT_START = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC)
_SIGNAL_CODES = 128
_SCARCITY = ("Resource temporarily unavailable", "Cannot allocate memory", "Too many open files")
"""bubblewrap's messages for conditions that pass in a moment."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SandboxAvailability:
    """The result of the probe: receivers run contained, or the reason against it."""

    is_used: bool
    reason: str
    options: tuple[str, ...] = ()
    """Options of bubblewrap that only some releases know."""


class SandboxProbeFailed(BackupFailed):
    """The sandbox could not be tried: the probe was killed, or did not end in time."""


def sandbox_availability(configuration: LimitsConfig) -> SandboxAvailability:
    """Return True with ``is_used`` if the configuration asks for the sandbox and this host can provide it.

    Raises SandboxProbeFailed.
    """
    if configuration.sandbox == "off":
        return SandboxAvailability(is_used=False, reason="sandbox is off in the configuration")
    return _probe(os.geteuid() == 0)


def is_contained(configuration: LimitsConfig) -> bool:
    """Return True if receivers run contained. Return False with a warning if ``auto`` finds that they cannot.

    Raises ConfigurationError if the sandbox is ``required`` and not available, SandboxProbeFailed if that is unknown.
    """
    found = sandbox_availability(configuration)
    if found.is_used or configuration.sandbox == "off":
        return found.is_used
    if configuration.sandbox == "required":
        raise ConfigurationError(
            f"sandbox: required, but {found.reason}",
            hint="install bubblewrap and allow it user namespaces, or run as root; see turku-storage check",
        )
    _LOG.warning("the receiving rsync runs without a sandbox: %s", found.reason)
    return False


@functools.lru_cache(maxsize=2)
def _probe(is_root: bool) -> SandboxAvailability:  # noqa: FBT001
    """Return the result of a trial run. Nothing is remembered if it raises SandboxProbeFailed."""
    if shutil.which(bubblewrap.PROGRAM, path=command.environment()["PATH"]) is None:
        return SandboxAvailability(is_used=False, reason="bubblewrap (bwrap) is not installed")
    reason = ""
    # Without root, the sandbox's own user namespace is the last one if bubblewrap (0.8) can enforce that.
    for options in ((),) if is_root else (("--disable-userns",), ()):
        refusal = _refusal(options, is_root=is_root)
        if refusal is None:
            return SandboxAvailability(is_used=True, reason="bubblewrap works", options=tuple(options))
        reason = refusal
    return SandboxAvailability(is_used=False, reason=f"bubblewrap does not work here: {reason}")


def _refusal(options: Sequence[str], *, is_root: bool) -> str | None:
    """Return bubblewrap's reason not to start with these options, None if it starts.

    Raises SandboxProbeFailed: a signal, a timeout or a lack of memory is no refusal.
    """
    reason = ""
    for timeout_seconds in _PROBE_TIMEOUTS_SECONDS:
        with ExitStack() as stack:
            filter_options, descriptors = bubblewrap.syscall_filter(stack)
            argv = bubblewrap.wrap(
                ["true"], writable={}, capabilities=() if is_root else None, options=(*options, *filter_options)
            )
            try:
                child = stack.enter_context(command.start(argv, pass_descriptors=descriptors))
            except CommandFailed as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in _CANNOT_START:
                    return error.message
                reason = error.message
                continue
            try:
                code = child.wait(timeout_seconds)
            except CommandFailed as error:
                reason = error.message
                continue
            if code == 0:
                return None
            reason = "; ".join(child.last_lines)
            if code > _SIGNAL_CODES:
                reason = f"it was ended by signal {code - _SIGNAL_CODES}"
            elif not any(text in reason for text in _SCARCITY):
                return reason
    raise SandboxProbeFailed(
        f"whether rsync can be contained could not be tried: bubblewrap: {reason}",
        hint="nothing was transferred without a sandbox; is this host out of memory or overloaded? "
        "'sandbox: off' does without one",
    )
