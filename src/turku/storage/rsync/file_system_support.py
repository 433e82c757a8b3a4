"""The properties of files that a volume's file system can store, given our privileges."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from turku.core.filesystem import posix_acl
from turku.storage.config.model import StorageConfig
from turku.storage.containment import capabilities
from turku.storage.fs import tree as fs


@dataclass(frozen=True)
class FileSystemSupport:
    """The properties of files that can be stored."""

    fake_super: bool = False
    """Ownership, devices and special modes are stored in extended attributes."""
    devices: bool = False
    """Device nodes are made. This takes root and ``keep_devices``."""
    acls: bool = False
    """POSIX ACLs can be stored, possibly in attributes."""
    attributes: bool = False
    """Extended attributes can be stored, at least those of users."""
    privileged_attributes: tuple[str, ...] = ()
    """Patterns of rsync's filter for attributes that only root can set and that are stored here."""
    nanoseconds: bool = False
    """Times are stored to the nanosecond, so that two times within one second differ."""
    opens_read_only_files: bool = True
    """True if files without write permission for their owner can be written: for root, and with fake_super."""


def probe_file_system(configuration: StorageConfig, machine_dir: Path) -> FileSystemSupport:
    """Return what can be stored in the directory. Raises OSError if that cannot be determined."""
    is_root = os.geteuid() == 0
    has_attributes, has_acls, has_nanoseconds = _probe(machine_dir)
    fake_super = configuration.receiving.fake_super
    if fake_super == "auto":
        fake_super = not is_root and has_attributes
    privileged: tuple[str, ...] = ()
    if is_root and not fake_super and has_attributes:
        privileged = capabilities.privileged_attributes(configuration)
    return FileSystemSupport(
        fake_super=fake_super,
        # Other users than root cannot make devices, and each failure would make the run incomplete.
        devices=configuration.receiving.keep_devices and is_root,
        acls=has_attributes if fake_super else has_acls,
        attributes=has_attributes,
        privileged_attributes=privileged,
        nanoseconds=has_nanoseconds,
        opens_read_only_files=fake_super or is_root,
    )


def _probe(directory: Path) -> tuple[bool, bool, bool]:
    """Return whether user attributes, ACLs and nanoseconds can be stored, tried with a file without a name.

    Raises OSError for errors that do not answer the question. A run that mistook a full disk for a file system
    without attributes would lose the owners of all files.
    """
    moment = 1_000_000_000_123_456_789
    has_attributes = has_acls = has_nanoseconds = False
    with _ignore_unsupported():
        descriptor = fs.create_unnamed_file(directory)
        try:
            with _ignore_unsupported():
                os.utime(descriptor, ns=(moment, moment))
                has_nanoseconds = os.fstat(descriptor).st_mtime_ns == moment
            with _ignore_unsupported():
                os.setxattr(descriptor, "user.turku.probe", b"1")
                has_attributes = True
            with _ignore_unsupported():
                os.setxattr(descriptor, posix_acl.ACCESS, posix_acl.SAMPLE)
                has_acls = True
        finally:
            os.close(descriptor)
    return has_attributes, has_acls, has_nanoseconds


@contextmanager
def _ignore_unsupported() -> Iterator[None]:
    """End the block if the file system refuses an operation. Other errors are raised."""
    try:
        yield
    except OSError as error:
        if error.errno in (*fs.SAYS_NOTHING, errno.ENOSPC, errno.EDQUOT):
            raise
