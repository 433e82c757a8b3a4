"""Careful removal of machines' keys. An answer that lacks most machines counts only if a later one lacks them too.

A coordinator whose database was emptied, restored or compromised names few machines or none (threats C5). Admitted
machines then keep their keys until they have been missing for a while, in more than one answer.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from turku.core import durable
from turku.core.clock import Clock
from turku.storage.config.model import StorageConfig, StorageState

PAUSE_SECONDS: Final = 120.0
"""The time between the first answer that lacks a machine and the one that counts.

A login may cause an answer at any moment.
"""
_MOST_SHARE: Final = 0.5
_MOST_AT_ONCE: Final = 1
"""The number of machines that may be removed at once, however few there are."""
_FILE: Final = "keys_missing.json"
_LIMIT_BYTES: Final = 64 * 1024 * 1024
_SHOWN: Final = 5
_LOG = logging.getLogger(__name__)


class _Missing(msgspec.Struct, frozen=True):
    since: dict[str, float]
    """The time when each machine was first missing, by UUID, in Unix seconds."""
    present: int
    """The number of admitted machines at that time."""


class Removal:
    """The treatment of machines that an answer lacks. ``is_confirmed`` says that the operator confirmed the removal."""

    def __init__(self, configuration: StorageConfig, *, clock: Clock, is_confirmed: bool = False) -> None:
        self._path = configuration.state.var_dir / _FILE
        self._clock = clock
        self._is_confirmed = is_confirmed

    def held(self, current: Mapping[str, str], wanted: Sequence[str]) -> dict[str, str]:
        """Return the ``current`` machines that keep their keys although they are not ``wanted``.

        Both are by UUID. Raises DurableWriteFailed.
        """
        missing = sorted(set(current) - set(wanted))
        is_much = len(missing) > _MOST_AT_ONCE and len(missing) > _MOST_SHARE * len(current)
        known = _read(self._path)
        # The last step of a removal in several steps is not a small removal by itself.
        is_going_on = known is not None and bool(known.since.keys() & set(missing))
        if self._is_confirmed or not missing or not (is_much or is_going_on):
            self._path.unlink(missing_ok=True)
            return {}
        now = self._clock.now().timestamp()
        former = {} if known is None else known.since
        # After the clock was set back, the time begins anew.
        since = {uuid: min(former.get(uuid, now), now) for uuid in missing}
        held = {uuid: current[uuid] for uuid in missing if now - since[uuid] < PAUSE_SECONDS}
        if not held:
            self._path.unlink(missing_ok=True)
            _LOG.warning(
                "%d machines are no longer admitted: a second answer of the coordinator lacks them too", len(missing)
            )
            return {}
        present = len(current)
        durable.write_json(self._path, msgspec.to_builtins(_Missing({uuid: since[uuid] for uuid in held}, present)))
        shown = ", ".join([*sorted(held)[:_SHOWN], *(["..."] if len(held) > _SHOWN else [])])
        _LOG.error("%s: %s", _sentence(_Missing(since, present)), shown)
        return held


def fault(configuration: StorageState) -> str | None:
    """Return a sentence about the machines that keep their keys for now, or None if there are none."""
    known = _read(configuration.var_dir / _FILE)
    return None if known is None else _sentence(known)


def _sentence(missing: _Missing) -> str:
    first = datetime.fromtimestamp(min(missing.since.values()), UTC)
    return (
        f"since {first:%Y-%m-%d %H:%M:%S} UTC the coordinator lacks {len(missing.since)} of the {missing.present} "
        "machines that are let in here; they keep their keys until a later answer lacks them too, or 'turku-storage "
        "update-config --confirm-removals' is run"
    )


def _read(path: Path) -> _Missing | None:
    try:
        found = msgspec.json.decode(durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES), type=_Missing)
        return found if found.since else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        # Count as if nothing had been missing before: more answers are then needed, not fewer.
        _LOG.warning("%s is of no use: %s", path, error)
        return None
