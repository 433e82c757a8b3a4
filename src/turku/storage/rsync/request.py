"""The request for one rsync run: from which daemon, what, into which directory, and with which options."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from turku.core.secret import Secret
from turku.errors import InvalidValue
from turku.policy import bandwidth, compression
from turku.storage.disk.snapshot_notes import Notes

LIST_FIRST_LIMIT_FILES = 200_000
"""Up to this many files are listed first: each takes about 100 bytes of memory on both sides."""
SILENCE_TIMEOUT_SECONDS = 1800
CONNECT_TIMEOUT_SECONDS = 60
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class RsyncDaemon:
    """The machine's rsync daemon at the end of the tunnel."""

    port: int
    module: str
    username: str
    password: Secret


@dataclass(frozen=True)
class TransferOptions:
    """The options of a transfer. Filter rules are rsync's own and were checked by policy."""

    rules: tuple[str, ...] = ()
    hard_links: bool = True
    acls: bool = True
    attributes: bool = True
    holes: bool = True
    bandwidth_kib_per_second: int | None = None
    bandwidth_limits: bandwidth.Limits = field(default_factory=bandwidth.Limits)
    """Limits by time of day (``bandwidth_windows.py``)."""
    stop_after_minutes: int | None = None
    """rsync ends itself after this time and leaves its files for the next rsync."""
    keep_partial_files: bool = False
    """A partly transferred file takes its place when rsync ends, so that the next rsync continues it."""
    compress: bool = False
    one_file_system: bool = False
    """The machine's rsync enters no directory on which another file system is mounted."""
    unreadable_paths: tuple[bytes, ...] = ()
    """Paths below which the machine's rsync can see nothing. Nothing there counts as deleted."""
    compare_contents: bool = False
    """Every file is read on both sides, for the case that sizes and times cannot be trusted."""


@dataclass(frozen=True)
class TransferScope:
    """The part of the source that a run covers. By default a run covers all of it."""

    is_dry_run: bool = False
    """Nothing is transferred or changed. rsync reports the differences."""
    files_from: Path | None = None
    """A file with the paths of the only entries to transfer, NUL after each, directories without their content.

    Listed entries that no longer exist on the machine are removed.
    """
    compares_attributes: bool = True
    """ACLs and extended attributes are read on both sides. For unchanged files this takes as long as all other work."""
    lists_first: bool = False
    """The machine's rsync lists everything before it compares the first entry (``--no-inc-recursive``).

    Otherwise it waits for an answer every few thousand files. Over a line with delay this waiting takes most of the
    time, but both sides need less memory.
    """


WHOLE_SOURCE = TransferScope()


def should_list_first(files: int | None) -> bool:
    """Return True if a run over this number of files should list all of them first. None means unknown."""
    return files is not None and files <= LIST_FIRST_LIMIT_FILES


def should_compress(choice: compression.Compression, earlier: Notes) -> bool:
    """Return True if this session compresses its transfers.

    ``earlier`` are the notes of the base snapshot, or of the snapshot to restore.
    """
    return compression.is_worth_it(
        choice, ssh_connection=os.environ.get("SSH_CONNECTION", ""), bytes_per_second=earlier.bytes_per_second
    )


def require_valid_username(username: str) -> str:
    """Return the one-time user name. Raises InvalidValue for one that would change the daemon's address."""
    if not _USERNAME.fullmatch(username):
        raise InvalidValue("the machine's one-time user name has other characters than letters, digits and - _ .")
    return username


@dataclass(frozen=True)
class Workspace:
    """The directory that rsync writes to and the trees that it may read. It reaches nothing else of the machine."""

    directory: Path
    basis: tuple[Path, ...] = ()
    """Trees that rsync may copy from instead of asking the machine (``--copy-dest``)."""
    is_new: bool = False
    """True where the directory is empty and there is no basis."""
    writes_in_place: bool = False
    """True where rsync changes blocks of existing files. No snapshot has these files."""
    block_bytes: int | None = None
    """The size of the blocks by which rsync compares files. None leaves the choice to rsync."""
    is_resumed: bool = False
    """True where an earlier run has transferred a part of the source into the directory."""
