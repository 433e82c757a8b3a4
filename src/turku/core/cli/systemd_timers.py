"""The state of systemd's timers and of the services that they start."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from turku.core import command
from turku.errors import CommandFailed

_BOOTED_DIRECTORY = Path("/run/systemd/system")
"""Exists where systemd is this host's init (sd_booted(3))."""
_TIMEOUT_SECONDS = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Timer:
    """A timer with its service of the same name."""

    name: str
    """The name without ``.timer``."""
    is_installed: bool = False
    is_active: bool = False
    next_at: datetime | None = None
    last_at: datetime | None = None
    is_service_running: bool = False
    has_service_failed: bool = False


class _ListedTimer(msgspec.Struct):
    """An element of ``systemctl list-timers --output=json``. Times are microseconds since 1970, or 0 or null."""

    unit: str | None = None
    next: int | None = None
    last: int | None = None


def is_booted() -> bool:
    """Return True where systemd is this host's init, so that timers can run."""
    return _BOOTED_DIRECTORY.is_dir()


def read(names: Sequence[str]) -> tuple[Timer, ...]:
    """Return the timers with these names (without ``.timer``). Empty where systemd does not run or does not answer."""
    if not is_booted():
        return ()
    units = [f"{name}.{kind}" for name in names for kind in ("timer", "service")]
    properties = "--property=Id,LoadState,ActiveState"
    try:
        # Without the answer of a systemd that hangs, a screen is shown all the same.
        shown = command.run(["systemctl", "show", properties, *units], timeout_seconds=_TIMEOUT_SECONDS).stdout
        timers = [f"{name}.timer" for name in names]
        listed = command.run(
            ["systemctl", "list-timers", "--all", "--output=json", *timers], timeout_seconds=_TIMEOUT_SECONDS
        ).stdout
        return tuple(_timers(names, shown.decode(), msgspec.json.decode(listed, type=list[_ListedTimer])))
    except (CommandFailed, msgspec.DecodeError, ValueError):
        return ()


def _timers(names: Sequence[str], shown: str, listed: Sequence[_ListedTimer]) -> Iterator[Timer]:
    states = {block["Id"]: block for block in map(_block, shown.split("\n\n")) if "Id" in block}
    moments = {each.unit: each for each in listed}
    for name in names:
        timer, service = states.get(f"{name}.timer", {}), states.get(f"{name}.service", {})
        times = moments.get(f"{name}.timer", _ListedTimer())
        yield Timer(
            name,
            is_installed=timer.get("LoadState") == "loaded",
            is_active=timer.get("ActiveState") == "active",
            next_at=_moment(times.next),
            last_at=_moment(times.last),
            is_service_running=service.get("ActiveState") in ("activating", "active", "deactivating"),
            has_service_failed=service.get("ActiveState") == "failed",
        )


def _block(text: str) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _moment(microseconds: int | None) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=microseconds) if microseconds else None
    except OverflowError:
        # systemd's "infinity".
        return None
