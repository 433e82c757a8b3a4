"""The keys by which a program recognizes its coordinator: those configured, until the coordinator announces others.

An announcement counts only if it came over a connection to an accepted key and contains that key. So whoever cannot
answer as the coordinator cannot add a key, and no announcement locks the program out.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from turku.core import durable
from turku.protocol.certificate import FINGERPRINTS_LIMIT, Fingerprint

FILE: Final = "coordinator_keys.json"
"""In ``var_dir``: the announced keys, and the configured ones that they replace."""
_LIMIT_BYTES: Final = 64 * 1024
_LOG = logging.getLogger(__name__)


class _Announced(msgspec.Struct, frozen=True):
    configured: tuple[str, ...]
    accepted: Annotated[tuple[Fingerprint, ...], Meta(min_length=1, max_length=FINGERPRINTS_LIMIT)]


def accepted(configured: Sequence[str], var_dir: Path) -> tuple[str, ...]:
    """Return the accepted keys: the announced ones, unless the configuration was changed since, or names none."""
    if not configured:
        return ()
    try:
        content = durable.read_regular_file(var_dir / FILE, limit_bytes=_LIMIT_BYTES)
        announced = msgspec.json.decode(content, type=_Announced)
    except (OSError, UnicodeError, msgspec.MsgspecError):
        return tuple(configured)
    return announced.accepted if announced.configured == tuple(configured) else tuple(configured)


def learn(
    configured: Sequence[str],
    known: Sequence[str],
    announced: Sequence[str],
    *,
    seen_key: str,
    write: Callable[[str], None],
) -> bool:
    """Keep the announced keys in place of the ``known`` ones, and return True if they are others.

    ``seen_key`` is that of the connection. ``write`` writes the text durably to ``FILE`` in ``var_dir``.
    """
    if not configured or not announced or set(announced) == set(known):
        return False
    if seen_key not in announced:
        _LOG.warning(
            "the coordinator announces the keys %s without its own (%s): they are ignored",
            " and ".join(announced),
            seen_key,
        )
        return False
    write(msgspec.json.encode(_Announced(tuple(configured), tuple(announced))).decode() + "\n")
    _LOG.info("from now on the coordinator is recognized by %s", " or ".join(announced))
    return True
