"""Checks of names from the network. No name becomes part of a path, a module or an address without them.

A source's name is a directory on the storage, a module of the agent's rsyncd and a part of an rsync URL, so it must be
valid as each of them. Every function returns the name, and raises InvalidValue for a name that is not valid.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from turku.errors import InvalidValue
from turku.policy.characters import code_point, is_misleading, shown, size_bytes

SOURCE_NAME_LIMIT_BYTES = 175
"""Leaves room in 200 bytes for ``<name>_<YYYYmmdd-HHMMSS>_<4 hex>``, and in the 255 of a file name for additions."""
NAME_LIMIT = 200
USER_NAME_LIMIT = 100
_FILE_NAME_LIMIT_BYTES = 255
_PATH_LIMIT_BYTES = 4096
TARGET_LIMIT_BYTES = 4000

_PUNCTUATION = frozenset(" -_.,:+=@~()^")
"""ASCII characters without a special meaning to rsync, rsyncd.conf or a shell."""
_SNAPSHOTS_SUFFIX = ".snapshots"
_RSYNCD_SECTIONS = ("global",)

HOLD_WORD = "save"
"""A snapshot with this word in its name is never removed by retention."""

_STAMP = "%Y%m%d-%H%M%S"
_SUFFIX = re.compile(r"[0-9a-f]{4}", re.ASCII)
_TAIL = re.compile(r"_(\d{8}-\d{6})_[0-9a-f]{4}", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d:\d\d|Z)?", re.ASCII)
_UNIX_SECONDS = re.compile(r"\d{1,11}(\.\d{1,9})?", re.ASCII)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
_USER = re.compile(r"[a-z_][a-z0-9_.@+-]*\$?", re.ASCII | re.IGNORECASE)


def machine_uuid(text: str) -> str:
    """Return the UUID in its usual form: lower case, with hyphens."""
    if not _UUID.fullmatch(text):
        raise InvalidValue(
            f"{shown(text)} is not a UUID", hint="a UUID looks like 9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
        )
    return text.lower()


def is_machine_uuid(text: str) -> bool:
    """Return True if the text is a UUID in its usual form, as directories of machines have it."""
    return _UUID.fullmatch(text) is not None and text == text.lower()


def source_name(text: str) -> str:
    """Return the name of a source."""
    _require_safe(text, limit_bytes=SOURCE_NAME_LIMIT_BYTES)
    folded = fold(text)
    if folded.endswith(_SNAPSHOTS_SUFFIX):
        raise InvalidValue(f"{shown(text)} ends with {_SNAPSHOTS_SUFFIX!r}, which is where a source's history lies")
    if folded in _RSYNCD_SECTIONS:
        raise InvalidValue(f"{shown(text)} has a meaning of its own in rsyncd.conf; choose another name")
    return text


def source_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of sources, of which no two are the same to a file system (case, Unicode forms)."""
    seen: dict[str, str] = {}
    for name in names:
        folded = fold(source_name(name))
        if seen.get(folded) == name:
            raise InvalidValue(f"{shown(name)} is named twice")
        if folded in seen:
            raise InvalidValue(
                f"{shown(seen[folded])} and {shown(name)} differ only by case or spelling: they could share a directory"
            )
        seen[folded] = name
    return tuple(seen.values())


def fold(text: str) -> str:
    """Return the text without differences of case and Unicode form, as a file system may compare names."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def storage_name(text: str) -> str:
    """Return the name of a storage."""
    _require_safe(text, limit_bytes=NAME_LIMIT)
    return text


def _require_safe(text: str, *, limit_bytes: int) -> None:
    if not text:
        raise InvalidValue("is empty", hint="give a name such as 'etc'")
    size = size_bytes(text)
    if size > limit_bytes:
        raise InvalidValue(f"is {size} bytes long; a name has at most {limit_bytes}")
    for character in text:
        if not (character in _PUNCTUATION or _is_letter_or_digit(character)):
            raise InvalidValue(
                f"{shown(text)} has the character {code_point(character)}, which a name must not have",
                hint="letters, digits, single blanks inside and - _ . , : + = @ ~ ( ) ^ are allowed",
            )
    if text[0] != "_" and not unicodedata.category(text[0]).startswith(("L", "N")):
        raise InvalidValue(f"{shown(text)} does not begin with a letter, a digit or an underscore")
    if text.endswith(" ") or "  " in text:
        # rsyncd.conf drops blanks at the end of a module's name and joins several inside it.
        raise InvalidValue(f"{shown(text)} has a blank at its end or several in a row")


def _is_letter_or_digit(character: str) -> bool:
    if character.isascii():
        return character.isalnum()
    return unicodedata.category(character)[0] in "LMN"


def label(text: str, *, kind: str) -> str:
    """Return an informational text without blanks around it. ``kind`` names it in messages ("unit name")."""
    size_bytes(text)
    bad = next((character for character in text if is_misleading(character)), None)
    if bad is not None:
        raise InvalidValue(f"{shown(text)} has the character {code_point(bad)}: a {kind} is one line of plain text")
    stripped = text.strip()
    if len(stripped) > NAME_LIMIT:
        raise InvalidValue(f"is {len(stripped)} characters long; a {kind} has at most {NAME_LIMIT}")
    return stripped


def path_inside(path: bytes) -> bytes:
    """Return a path relative to its tree, without empty and ``.`` parts. The tree itself is empty.

    Any bytes that a file system takes are valid. A path that leads out of the tree is not.
    """
    if path.startswith(b"/"):
        raise InvalidValue(f"{_shown(path)} is an absolute path", hint="name it relative to the source's directory")
    if b"\0" in path or len(path) > _PATH_LIMIT_BYTES:
        raise InvalidValue(f"{_shown(path)} is not a valid path: it has a NUL, or more than {_PATH_LIMIT_BYTES} bytes")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise InvalidValue(f"{_shown(path)} has '..' in it, which could lead out of the source")
    if max(map(len, parts), default=0) > _FILE_NAME_LIMIT_BYTES:
        raise InvalidValue(f"{_shown(path)} has a part of more than {_FILE_NAME_LIMIT_BYTES} bytes")
    return b"/".join(parts)


def target_directory(text: str) -> str:
    """Return the absolute directory, without needless slashes.

    Raises InvalidValue, also for a directory with ``..`` in it, because its meaning depends on links.
    """
    if size_bytes(text) > TARGET_LIMIT_BYTES:
        raise InvalidValue(f"is longer than {TARGET_LIMIT_BYTES} bytes")
    bad = next((character for character in text if is_misleading(character)), None)
    if bad is not None:
        raise InvalidValue(f"{shown(text)} has the character {code_point(bad)}, which a directory here must not have")
    if not text.startswith("/"):
        raise InvalidValue(f"{shown(text)} is not an absolute directory", hint="such as /var/restored/etc")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidValue(f"{shown(text)} has '..' in it", hint="name the directory that is meant")
    return f"/{'/'.join(parts)}"


def _shown(path: bytes) -> str:
    return shown(path[:NAME_LIMIT].decode("utf-8", "replace"))


def host_name(text: str) -> str:
    """Return the DNS name or IP address of a host."""
    if len(text) > NAME_LIMIT:
        raise InvalidValue(f"is {len(text)} characters long; a host name has at most {NAME_LIMIT}")
    if not (_is_address(text) or _is_dns_name(text)):
        raise InvalidValue(
            f"{shown(text)} is neither a host name nor an IP address",
            hint="such as storage.example.com, 192.0.2.1 or 2001:db8::1; international names in their xn-- form",
        )
    return text


def _is_address(text: str) -> bool:
    address, percent, scope = text.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or parsed.version == 6


def _is_dns_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    # Programs read a name that ends with a number as an address, malformed or not.
    return all(_HOST_LABEL.fullmatch(part) for part in labels) and not labels[-1].isdigit()


def port(number: int) -> int:
    """Return the TCP port."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 65535:
        raise InvalidValue("a port is a whole number from 1 to 65535")
    return number


def user_name(text: str) -> str:
    """Return the name of a system user."""
    if len(text) > USER_NAME_LIMIT or not _USER.fullmatch(text):
        raise InvalidValue(
            f"{shown(text)} is not a user name",
            hint=f"letters, digits and - _ . @ +, beginning with a letter, at most {USER_NAME_LIMIT} characters",
        )
    return text


def machine_link_name(*, environment_name: str | None, service_name: str | None, unit_name: str | None) -> str | None:
    """Return ``[<environment>-][<service>-]<unit>``, with underscores for slashes (contract, "On the storage's disk").

    Return None without a unit name, or if the result is unsafe or looks like the UUID of a machine.
    """
    if not (unit_name or "").strip():
        return None
    parts = [part.strip() for part in (environment_name, service_name, unit_name) if part and part.strip()]
    name = "-".join(parts).replace("/", "_")
    if name.startswith((".", "-")) or _UUID.fullmatch(name):
        return None
    if any(is_misleading(character) for character in name) or size_bytes(name) > _FILE_NAME_LIMIT_BYTES:
        return None
    return name


@dataclass(frozen=True)
class SnapshotName:
    """The information in the name of a snapshot."""

    name: str
    moment: datetime | None
    """The moment at which it was made, in UTC, or None if the name has none in a known form."""
    is_held: bool
    """True when somebody marked it to be kept."""


def new_snapshot_name(source: str, moment: datetime, suffix: str) -> str:
    """Return ``<source>_<YYYYmmdd-HHMMSS>_<suffix>``, with the time in the moment's own zone and 4 hex digits.

    Raises InvalidValue for a source name that is not valid.
    """
    if moment.tzinfo is None:
        raise ValueError("the moment has no zone")
    if not _SUFFIX.fullmatch(suffix):
        raise ValueError(f"{shown(suffix)} is not 4 lower-case hex digits")
    # %Y does not pad years before 1000 on every system, and the form has four digits.
    return f"{source_name(source)}_{moment.year:04d}{moment.strftime(_STAMP.removeprefix('%Y'))}_{suffix}"


def parse_snapshot_name(name: str, *, source: str, zone: tzinfo) -> SnapshotName:
    """Return the information in the name. A name of an unknown form has no moment.

    Times without a zone are local to ``zone``. Of two moments after a clock was set back, the first counts. The word
    ``save`` in the name of the source itself does not hold its snapshots.
    """
    tail = name.removeprefix(source) if name.startswith(f"{source}_") else name
    ours = _TAIL.fullmatch(tail) if tail is not name else None
    return SnapshotName(name, _moment(name, ours[1] if ours else None, zone), HOLD_WORD in tail)


def _moment(name: str, stamp: str | None, zone: tzinfo) -> datetime | None:
    try:
        if stamp is not None:
            moment = datetime.strptime(stamp, _STAMP).replace(tzinfo=zone)
        elif _ISO.fullmatch(name):
            moment = datetime.fromisoformat(name)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        elif _UNIX_SECONDS.fullmatch(name):
            moment = datetime.fromtimestamp(float(name), UTC)
        else:
            return None
        return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
