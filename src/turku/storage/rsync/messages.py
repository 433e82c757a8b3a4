"""Parser of rsync's messages about single entries, as releases 3.2.7 and 3.5.0 print them.

A message of the machine's daemon comes from the network: it can name any path and give any reason. Its length is
bounded, its escapes are undone, and a path that leads out of the tree is dropped.
"""

import errno
import re
from dataclasses import dataclass
from enum import StrEnum

from turku.core.filesystem.paths import is_entry_path
from turku.core.log import one_line
from turku.core.program_output import bounded_log
from turku.storage.rsync.change_log import unescape

LINE_LIMIT_BYTES = 16 * 1024
"""A longer line is ignored. rsync writes each of a path's 4,096 bytes as four at most, and never all of them."""
PATH_LIMIT_BYTES = 4096
REASON_LIMIT = 200
SHOWN_PATH_LIMIT = 500


class MessageKind(StrEnum):
    """The kind of error in a message, in words for a list of counts."""

    UNREADABLE_FILE = "unreadable file"
    UNREADABLE_DIRECTORY = "unreadable directory"
    UNREADABLE_ENTRY = "unreadable entry"
    READ_ERROR = "read error"
    TRUNCATED = "file that became shorter while it was read"
    VANISHED = "vanished file or directory"
    NAME_TOO_LONG = "name or path that is too long"
    NOT_REGULAR = "device, socket or FIFO that is not kept"
    NOT_VERIFIED = "file whose content did not match its checksum"
    WRITE = "file that could not be written"
    DIRECTORY = "directory that could not be made"
    SPECIAL_FILE = "device, socket or FIFO that could not be made"
    SYMLINK = "symbolic link that could not be made"
    HARD_LINK = "hard link that could not be made"
    OWNER = "owner or group that could not be set"
    PERMISSIONS = "permissions that could not be set"
    TIMES = "times that could not be set"
    ATTRIBUTE = "extended attribute that could not be read or set"
    ACL = "ACL that could not be read or set"
    DELETION = "file or directory that could not be deleted"
    DELETION_SKIPPED = "run that deleted nothing"
    CONTENTS_SKIPPED = "directory whose contents were skipped"
    RETRIED = "file that is sent again"

    @property
    def is_missing_entry(self) -> bool:
        """True if the entry, or its current content on the sending side, did not arrive."""
        return self not in _PRESENT


_PRESENT = frozenset(
    {
        MessageKind.OWNER,
        MessageKind.PERMISSIONS,
        MessageKind.TIMES,
        MessageKind.ATTRIBUTE,
        MessageKind.ACL,
        MessageKind.DELETION,
        MessageKind.DELETION_SKIPPED,
        MessageKind.RETRIED,
    }
)
"""Kinds of errors of entries that arrived, or that should not exist."""


class Side(StrEnum):
    """The part of rsync that prints a message."""

    SENDER = "sender"
    RECEIVER = "receiver"
    GENERATOR = "generator"


@dataclass(frozen=True)
class Message:
    """A message about one entry."""

    kind: MessageKind
    side: Side
    path: bytes | None
    """Path relative to the tree, as the file system has it. None if the message does not have exactly one path.

    While rsync replaces a file, this is its temporary name (``.NAME.Ab3dE9``).
    """
    shown_path: str
    """The path for people, printable and bounded. Empty if the message has none."""
    reason: str
    """The error text of the system or of rsync, printable and bounded."""


_QUOTED = rb'"(?P<path>.*)"(?: \(in (?P<module>[^"/]*)\))?'
_BARE = rb"(?P<path>.*)"
_ROLE = rb"rsync: (?:\[(?P<role>sender|receiver|generator)\] )?"
_ERROR = rb": (?P<reason>[^\n]*) \((?P<number>\d{1,5})\)"


def _error(kind: MessageKind, side: Side, text: bytes) -> tuple[MessageKind, Side, re.Pattern[bytes]]:
    """Return the rule for a failed system call. Such a message ends with the error's text and number."""
    return kind, side, re.compile(_ROLE + text + _ERROR, re.DOTALL)


def _plain(kind: MessageKind, side: Side, text: bytes) -> tuple[MessageKind, Side, re.Pattern[bytes]]:
    return kind, side, re.compile(text, re.DOTALL)


_SENDER, _RECEIVER, _GENERATOR = Side.SENDER, Side.RECEIVER, Side.GENERATOR
_RULES = (
    _error(MessageKind.UNREADABLE_FILE, _SENDER, rb"send_files failed to open " + _QUOTED),
    _error(MessageKind.UNREADABLE_DIRECTORY, _SENDER, rb"(?:opendir|change_dir(?:#\d)?) " + _QUOTED + rb" failed"),
    _error(MessageKind.UNREADABLE_DIRECTORY, _SENDER, rb"readdir\(" + _QUOTED + rb"\)(?: failed)?"),
    _error(MessageKind.UNREADABLE_ENTRY, _SENDER, rb"(?:link_stat|fstat) " + _QUOTED + rb" failed"),
    _error(MessageKind.UNREADABLE_ENTRY, _SENDER, rb"readlink_stat\(" + _QUOTED + rb"\) failed"),
    _error(MessageKind.READ_ERROR, _SENDER, rb"read errors mapping " + _QUOTED),
    _plain(MessageKind.VANISHED, _SENDER, rb"(?P<reason>(?:file|directory) has vanished): " + _QUOTED),
    _plain(MessageKind.NAME_TOO_LONG, _SENDER, rb"(?P<reason>filename overflows max-path len by \d+): " + _BARE),
    _plain(MessageKind.NAME_TOO_LONG, _SENDER, rb"(?P<reason>skipping overly long name|path too long): " + _BARE),
    _plain(MessageKind.NAME_TOO_LONG, _RECEIVER, rb"(?P<reason>temporary filename too long): " + _BARE),
    _plain(MessageKind.NOT_REGULAR, _GENERATOR, rb'(?P<reason>skipping non-regular file) "' + _BARE + rb'"'),
    _plain(
        MessageKind.NOT_REGULAR, _GENERATOR, rb"(?P<reason>skipping socket \(creation unsupported here\)): " + _BARE
    ),
    _plain(
        MessageKind.NOT_VERIFIED,
        _RECEIVER,
        rb"ERROR: " + _BARE + rb" (?P<reason>failed verification -- update [a-z -]+)\.",
    ),
    _plain(
        MessageKind.RETRIED,
        _RECEIVER,
        rb"WARNING: " + _BARE + rb" (?P<reason>failed verification -- update [a-z -]+.*)\.",
    ),
    _error(MessageKind.WRITE, _RECEIVER, rb"(?:mkstemp|open) " + _QUOTED + rb" failed"),
    _error(MessageKind.WRITE, _RECEIVER, rb"(?:write|ftruncate|fsync|close) failed on " + _QUOTED),
    _error(MessageKind.DIRECTORY, _GENERATOR, rb"recv_generator: mkdir " + _QUOTED + rb" failed"),
    _error(MessageKind.UNREADABLE_ENTRY, _GENERATOR, rb"recv_generator: failed to stat " + _QUOTED),
    _error(MessageKind.SPECIAL_FILE, _GENERATOR, rb"mknod " + _QUOTED + rb" failed"),
    _error(
        MessageKind.SYMLINK,
        _GENERATOR,
        rb'symlink "(?P<path>.*)"(?: \(in (?P<module>[^"/]*)\))? -> "(?P<other>.*)" failed',
    ),
    _error(
        MessageKind.HARD_LINK,
        _GENERATOR,
        rb'link "(?P<path>.*)"(?: \(in (?P<module>[^"/]*)\))? => (?P<other>.*) failed',
    ),
    _error(
        MessageKind.WRITE, _RECEIVER, rb'rename "(?P<path>.*)"(?: \(in (?P<module>[^"/]*)\))? -> "(?P<other>.*)" failed'
    ),
    _error(MessageKind.OWNER, _GENERATOR, rb"(?:chown|chgrp) " + _QUOTED + rb" failed"),
    _error(MessageKind.PERMISSIONS, _GENERATOR, rb"failed to (?:set|modify) permissions on " + _QUOTED),
    _error(MessageKind.TIMES, _GENERATOR, rb"failed to set times on " + _QUOTED),
    _error(
        MessageKind.ATTRIBUTE,
        _RECEIVER,
        rb"(?:rsync_xal_set|copy_xattrs|set_xattr_acl|get_xattr_data): "
        rb"[lf]?(?:set|get|remove)xattr\(" + _QUOTED + rb',"[^"]*"(?:,\d+)?\) failed',
    ),
    _error(MessageKind.ATTRIBUTE, _RECEIVER, rb"get_xattr_names: [lf]?listxattr\(" + _QUOTED + rb",\d+\) failed"),
    _error(MessageKind.ATTRIBUTE, _RECEIVER, rb"failed to (?:read|re-read|write) xattr [^ ]+ for " + _QUOTED),
    _error(MessageKind.ATTRIBUTE, _RECEIVER, rb"delete of stat xattr failed for " + _QUOTED),
    _error(MessageKind.ACL, _RECEIVER, rb"[sg]et_acl: (?:sys_acl_[sg]et_file|xacl_[sg]et)\(" + _BARE + rb", [A-Z_]+\)"),
    _error(MessageKind.ACL, _RECEIVER, rb"set_acl: sys_acl_delete_def_file\(" + _BARE + rb"\)"),
    _error(MessageKind.DELETION, _GENERATOR, rb"delete_file: (?:unlink|rmdir)\(" + _BARE + rb"\) failed"),
    _plain(
        MessageKind.DELETION, _GENERATOR, rb"(?P<reason>cannot delete (?:non-empty directory|mount point)): " + _BARE
    ),
    _plain(MessageKind.DELETION_SKIPPED, _GENERATOR, rb"(?P<reason>IO error encountered -- skipping file deletion)"),
    _plain(
        MessageKind.CONTENTS_SKIPPED,
        _GENERATOR,
        rb"(?P<reason>\*\*\* Skipping any contents from this failed directory \*\*\*)",
    ),
)
_NOT_REGULAR = ("skipping non-regular file ", "skipping socket (creation unsupported here): ")
_ESCAPED = re.compile(rb"<[89a-f][0-9a-f]>|\\[xuUtrn]")
"""The escapes of ``one_line`` for unprintable characters, which a name itself may contain as well."""


def parse(line: str | bytes, *, directory: bytes | None = None) -> Message | None:
    """Return the message in a line about one entry. None for any other line.

    ``line`` is printed by rsync with ``--8-bit-output``, or made printable by ``one_line``. Then names that are not
    UTF-8 cannot be distinguished from escapes and come without ``path``. ``directory`` is the absolute working
    directory of this side's rsync, as rsync sees it. Without it, absolute paths of the receiver come without ``path``.
    """
    text = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line.rstrip(b"\r\n")
    if len(text) > LINE_LIMIT_BYTES:
        return None
    for kind, usual_side, pattern in _RULES:
        match = pattern.fullmatch(text)
        if match is not None:
            return _message(kind, usual_side, match, is_exact=isinstance(line, bytes), directory=directory)
    return None


def is_not_regular(line: str) -> bool:
    """Return True for rsync's message about a skipped entry that is no file, directory or link."""
    return line.startswith(_NOT_REGULAR)


def kind_of(line: str) -> str:
    """Return the kind under which a line of rsync's log is counted."""
    found = parse(line)
    return bounded_log.kind_of(line) if found is None else f"{found.kind} ({found.reason})"


def _message(
    kind: MessageKind, usual_side: Side, match: re.Match[bytes], *, is_exact: bool, directory: bytes | None
) -> Message:
    groups = match.groupdict()
    role, printed = groups.get("role"), groups.get("path")
    side = Side(role.decode("ascii")) if role else usual_side
    number = int(groups["number"]) if groups.get("number") else None
    path = None
    if printed is not None and not _is_ambiguous(match) and (is_exact or not _ESCAPED.search(printed)):
        path = _relative(unescape(printed), is_of_daemon=groups.get("module") is not None, directory=directory)
    return Message(
        kind=_by_number(kind, number),
        side=side,
        path=path,
        shown_path=_shown(path if path is not None else printed or b"", SHOWN_PATH_LIMIT),
        reason=_shown(groups.get("reason") or b"", REASON_LIMIT),
    )


def _by_number(kind: MessageKind, number: int | None) -> MessageKind:
    if number == errno.ENAMETOOLONG and kind.is_missing_entry and kind is not MessageKind.SYMLINK:
        return MessageKind.NAME_TOO_LONG
    if kind is MessageKind.READ_ERROR and number == errno.ENODATA:
        # rsync's own choice for a file that ends before its former size.
        return MessageKind.TRUNCATED
    return kind


def _is_ambiguous(match: re.Match[bytes]) -> bool:
    """Return True if the path may end earlier, because names may contain rsync's separators of two names."""
    printed, other = match.groupdict().get("path"), match.groupdict().get("other")
    return other is not None and any(mark in part for mark in (b'" => ', b'" -> ') for part in (printed or b"", other))


def _relative(path: bytes, *, is_of_daemon: bool, directory: bytes | None) -> bytes | None:
    """Return the path relative to the tree. None if it is not certainly inside."""
    if path.startswith(b"/"):
        if is_of_daemon:
            # A daemon with a changed root prints absolute paths inside its module.
            path = path[1:]
        elif directory is not None and path.startswith(directory.rstrip(b"/") + b"/"):
            path = path[len(directory.rstrip(b"/")) + 1 :]
        else:
            return None
    path = path.removesuffix(b"/.") or b"."
    if len(path) > PATH_LIMIT_BYTES or (path != b"." and not is_entry_path(path)):
        return None
    return path


def _shown(text: bytes, limit: int) -> str:
    shown = one_line(text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
