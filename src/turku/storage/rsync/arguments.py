"""rsync's command line for receiving a source from a machine's daemon.

rsync makes no hard link into a snapshot and writes to no file that a snapshot shares. ACLs, extended attributes, hard
links and holes are kept unless the source excludes them. Attributes that only the kernel's administrator may set
(``trusted.*``, ``security.*``) need more capabilities than owners do (``containment/capabilities.py``). A storage
without root keeps all of them in attributes of rsync's own.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from turku.core.filesystem import extended_attributes
from turku.protocol.restore_messages import Settable
from turku.storage.rsync import change_log
from turku.storage.rsync.file_system_support import FileSystemSupport
from turku.storage.rsync.request import (
    CONNECT_TIMEOUT_SECONDS,
    SILENCE_TIMEOUT_SECONDS,
    WHOLE_SOURCE,
    RsyncDaemon,
    TransferOptions,
    TransferScope,
    Workspace,
    require_valid_username,
)


def arguments(
    rsync_command: Sequence[str],
    daemon: RsyncDaemon,
    options: TransferOptions,
    workspace: Workspace,
    support: FileSystemSupport,
    *,
    scope: TransferScope = WHOLE_SOURCE,
    path_in_sandbox: Callable[[Path], str] = str,
    marker: bytes = change_log.MARKER,
) -> list[str]:
    """Return the argument list, without the password. rsync is to run in the workspace's directory.

    ``path_in_sandbox`` maps a path of ours to the path at which rsync sees it. ``marker`` begins each line about an
    entry. Raises InvalidValue for a user name that would change the daemon's address.
    """
    require_valid_username(daemon.username)
    return [
        *rsync_command,
        "--archive",
        "--numeric-ids",
        # A snapshot's own tree is only ever compared.
        *(["--dry-run"] if scope.is_dry_run else []),
        *_scope_options(scope, workspace, path_in_sandbox),
        "--stats",
        f"--out-format={change_log.out_format(marker, has_targets=scope.is_dry_run)}",
        "--no-human-readable",
        "--no-motd",
        # Names are bytes: rsync passes them on unchanged, and our log makes them printable.
        "--8-bit-output",
        f"--timeout={SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={CONNECT_TIMEOUT_SECONDS}",
        # By the method that both sides like best: zstd or lz4, zlib with an old one.
        *(["--compress"] if options.compress else []),
        *(["--checksum"] if options.compare_contents else []),
        *(["--hard-links"] if options.hard_links else []),
        *(["--sparse"] if options.holes else []),
        *(attribute_options(options, support) if scope.compares_attributes else []),
        *(["--one-file-system"] if options.one_file_system else []),
        *(["--fake-super"] if support.fake_super else []),
        # A device node of a machine would lead to the storage's own device (threats M9).
        *([] if support.devices or support.fake_super else ["--no-devices"]),
        # Without this option rsync takes a file of the same size and second for unchanged.
        *(["--modify-window=-1"] if support.nanoseconds else []),
        *([f"--bwlimit={options.bandwidth_kib_per_second}"] if options.bandwidth_kib_per_second else []),
        *([f"--stop-after={options.stop_after_minutes}"] if options.stop_after_minutes else []),
        *(["--partial"] if options.keep_partial_files else []),
        *_in_place_options(workspace, support),
        *_protect_rules(options.unreadable_paths),
        *(f"--filter={rule}" for rule in options.rules),
        # Absolute: an rsync with the fix for CVE-2024-12086 refuses to open a basis file through '..', and a file that
        # changed in part then fails its verification (RsyncProject/rsync issue 928, seen with Debian's 3.2.7).
        *(f"--copy-dest={path_in_sandbox(basis)}" for basis in workspace.basis),
        "--",
        f"rsync://{daemon.username}@127.0.0.1:{daemon.port}/{daemon.module}/",
        # Relative to its working directory, so that the volume's path does not shorten rsync's longest path.
        "./",
    ]


def _scope_options(scope: TransferScope, workspace: Workspace, path_in_sandbox: Callable[[Path], str]) -> list[str]:
    if scope.files_from is None:
        return [*("--delete", "--delete-excluded"), *(["--no-inc-recursive"] if scope.lists_first else [])]
    # What a failed run left may contain entries that are gone meanwhile, or a directory where a file is to be. rsync
    # 3.2.7 aborts when --delete-missing-args meets a missing entry, so the option is not used without need.
    missing = "--delete-missing-args" if workspace.is_resumed else "--ignore-missing-args"
    return [f"--files-from={path_in_sandbox(scope.files_from)}", "--from0", missing, "--force"]


def attribute_options(options: TransferOptions, support: FileSystemSupport) -> list[str]:
    """Return the rsync options that keep the wanted attributes which the file system can store."""
    result = ["--acls"] if options.acls and support.acls else []
    if options.attributes and support.attributes:
        result += ["--xattrs", *_attribute_filter(support)]
    return result


def preserved_properties(options: TransferOptions, support: FileSystemSupport) -> tuple[Settable, ...]:
    """Return the properties of files kept beside owner, mode and times, as a restore message names them."""
    found: list[Settable] = ["acls"] if options.acls and support.acls else []
    if options.attributes and support.attributes:
        found.append("attributes")
        if support.fake_super or {"trusted.*", "security.*"} <= set(support.privileged_attributes):
            found.append("privileged")
    return tuple(found)


def _attribute_filter(support: FileSystemSupport) -> list[str]:
    """Return the filter rules for names of attributes, each for both sides.

    rsync's ``--delete-excluded`` would make them rules for the sender alone. The receiver would then remove ACLs as
    attributes that the sender does not have.
    """
    if support.fake_super:
        # Without a rule of ours rsync removes the ACL that it stored for a new directory a moment before.
        raw = [extended_attributes.LABEL] if extended_attributes.are_labelled_here() else []
        return [f"--filter=-xsr {name}" for name in ("system.*", "user.rsync.%*", *raw)]
    if os.geteuid() != 0:
        return ["--filter=-xsr! user.*"]
    kept = ("user.*", *support.privileged_attributes)
    return [
        # The attributes in which a machine itself keeps owners are content like any other.
        "--xattrs",
        # XFS shows an ACL to root as an attribute, too. A file system's own names, such as ``btrfs.compression``,
        # cannot be set on another file system.
        "--filter=-xsr trusted.SGI_ACL_*",
        *(f"--filter=+xsr {name}" for name in kept),
        "--filter=-xsr *",
    ]


def _protect_rules(unreadable_paths: Sequence[bytes]) -> list[str]:
    """Return the options that make rsync delete in spite of read errors, except at these paths and below them.

    By itself rsync deletes nothing after a single error.
    """
    if not unreadable_paths:
        return []
    rules = []
    for path in unreadable_paths:
        # A backslash stands for itself in a pattern without any of the other three.
        escaped = re.sub(rb"([\\*?\[])", rb"\\\1", path)
        exact = escaped if re.search(rb"[*?\[]", path) else path
        rules += [f"--filter=P /{os.fsdecode(exact)}", f"--filter=P /{os.fsdecode(escaped)}/***"]
    return ["--ignore-errors", *rules]


def _in_place_options(workspace: Workspace, support: FileSystemSupport) -> list[str]:
    if workspace.is_new:
        # There is nothing to replace, so rsync needs no temporary names and no renames.
        return ["--inplace", "--whole-file"]
    if not (workspace.writes_in_place and support.opens_read_only_files):
        return []
    # Unchanged blocks are not written again, so that earlier snapshots go on sharing them.
    return [
        "--inplace",
        "--no-whole-file",
        *([f"--block-size={workspace.block_bytes}"] if workspace.block_bytes else []),
    ]
