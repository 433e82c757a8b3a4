"""What the coordinator will not take, or not use, of a source: `turku-agent check` tells it beforehand."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turku.agent import expected_mounts, left_out, mount_points
from turku.agent.configuration import Source
from turku.errors import PolicyError
from turku.policy import bandwidth, compression, filters, one_file_system, retention, schedule

_FLAGS = (
    *("preserve_hard_links", "shared_service", "large_rotating_files", "large_modifying_files", "expects_mount"),
    one_file_system.OPTION,
)
_MODES = ("link-dest", "none", "btrfs", "reflink", "auto")


@dataclass(frozen=True)
class Remark:
    """A sentence about a source; ``is_problem`` when it keeps the source from being backed up as it is."""

    text: str
    is_problem: bool


def remarks(source: Source) -> list[Remark]:
    """All remarks. Filter sets are the coordinator's to know, so that ``merge NAME`` passes for any name."""
    found = []
    path = Path(source.path)
    if not path.is_dir():
        found.append(Remark("is not a directory" if path.exists() else "no such directory now", is_problem=False))
    if expected_mounts.is_missing(source):
        found.append(Remark("nothing is mounted there now, so that it would not be backed up", is_problem=False))
    mounts = mount_points.all_mounts()
    others = left_out.other_file_systems(source, mounts)
    if any(not mount.is_of_the_kernel for mount in others):
        found.append(Remark(left_out.sentence(others), is_problem=False))
    found += [
        Remark(f"{volume} is not backed up: it is a volume of the storage on this machine", is_problem=False)
        for volume in left_out.volumes_within(source, mounts)
    ]
    for key, value in source.options.items():
        if key not in _RULES:
            close = difflib.get_close_matches(key, _RULES, n=1)
            suggestion = f"; did you mean {close[0]}?" if close else ""
            found.append(Remark(f"{key}: unknown option, sent as it is{suggestion}", is_problem=False))
        elif value is not None:
            try:
                _RULES[key](value)
            except PolicyError as error:
                hint = f" ({error.hint})" if error.hint else ""
                found.append(Remark(f"{key}: {error.message}{hint}", is_problem=True))
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError("must be text")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise PolicyError("must be a list of texts")
    return value


def _filter(value: Any) -> None:
    filters.expand(_texts(value), lambda _name: ())


def _exclude(value: Any) -> None:
    for text in _texts(value):
        filters.parse_exclude(text)


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise PolicyError("must be true or false")


def _mode(value: Any) -> None:
    if value not in _MODES:
        raise PolicyError(f"must be one of: {', '.join(_MODES)}")


_RULES: dict[str, Callable[[Any], Any]] = {
    "path": _text,
    "comment": _text,
    "frequency": lambda value: schedule.parse(_text(value)),
    "retention": lambda value: retention.parse(_text(value)),
    "bwlimit": bandwidth.parse,
    "snapshot_mode": _mode,
    "compress": compression.parse,
    "filter": _filter,
    "exclude": _exclude,
    **dict.fromkeys(_FLAGS, _flag),
}
