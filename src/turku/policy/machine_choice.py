"""The choice of a machine on a command line: by UUID, the beginning of one, name, or the end of one."""

import re
from collections.abc import Iterable, Mapping

SHORTEST_UUID_DIGITS = 4
MACHINE_HELP = "a UUID or its first digits, a name or its last part"
_UUID_DIGITS = 32
_BOUNDARIES = "-_"


def chosen(text: str, machines: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the UUIDs of the machines that the text fits, of ``machines`` (UUID to its names), sorted.

    A whole UUID and a whole name win over the beginning of a UUID and the last parts of a name (``web/2`` of
    ``production-shop-web/2``), and these win over any other end of a name. A slash in a name may be written as an
    underscore, as in the links of storages. The caller refuses more than one machine.
    """
    wanted = _plain(text)
    if not wanted:
        return []
    digits = uuid_digits(text)
    names = {uuid: {_plain(name) for name in known} for uuid, known in machines.items()}
    ways = (
        lambda uuid: wanted in names[uuid] or uuid.replace("-", "") == digits,
        lambda uuid: (
            any(_ends_with_parts(name, wanted) for name in names[uuid])
            or (len(digits) >= SHORTEST_UUID_DIGITS and uuid.replace("-", "").startswith(digits))
        ),
        lambda uuid: any(name.endswith(wanted) for name in names[uuid]),
    )
    return next((found for way in ways if (found := sorted(filter(way, machines)))), [])


def uuid_digits(text: str) -> str:
    """Return the hexadecimal digits of a text that can begin a UUID, or an empty text."""
    digits = text.replace("-", "").lower()
    return digits if re.fullmatch(rf"[0-9a-f]{{1,{_UUID_DIGITS}}}", digits) else ""


def _plain(name: str) -> str:
    return name.replace("/", "_")


def _ends_with_parts(name: str, wanted: str) -> bool:
    return name.endswith(wanted) and name[-len(wanted) - 1 : -len(wanted)] in tuple(_BOUNDARIES)
