"""Comparison of stored files with the machine's, while its tunnel is open: a sample of those that did not change.

rsync takes a file of the same size and time for unchanged. If its content differs all the same, somebody set its time
back, or a disk changed it on either side. That is a finding.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from turku.core import durable, sampling
from turku.core.cancellation import NEVER, Cancellation
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.log import one_line
from turku.core.program_output.line_reading import lines_of
from turku.errors import BackupFailed, TurkuError
from turku.policy import names
from turku.protocol.integrity_messages import DamagedFile, SourceIntegrity
from turku.storage import catalog
from turku.storage.catalog import CatalogEntry, EntryKind
from turku.storage.config.model import ReceivingConfig, StorageConfig, StorageState
from turku.storage.containment import capabilities, limits, sandbox, watchdog
from turku.storage.disk import snapshot_notes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.fs.stored_content import RateLimiter, checksum
from turku.storage.integrity import damage, report
from turku.storage.rsync import change_log
from turku.storage.rsync.file_system_support import FileSystemSupport, probe_file_system
from turku.storage.rsync.request import (
    CONNECT_TIMEOUT_SECONDS,
    SILENCE_TIMEOUT_SECONDS,
    RsyncDaemon,
    require_valid_username,
)
from turku.storage.snapshots.sharing import find_other_names

ASKED_PERCENT = 100.0
"""The share that ``verify --against-source`` requests."""
FILES_LIMIT = 10_000
BYTES_LIMIT = 4 * 1024**3
"""Both limits are for one comparison. The machine has to read as much."""
TIMEOUT_SECONDS = 3600.0
_READ_TIMEOUT_SECONDS = 5.0
_SUFFIX = ".compare"
_SHOWN = 5
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonResult:
    """The result of a comparison."""

    files: int
    size_bytes: int
    altered: tuple[bytes, ...]
    """Files whose content differs from the stored file, which is undamaged and of the same size and time."""


def request(configuration: StorageState, place: SourceDirectory) -> None:
    """Request a comparison after the source's next backup."""
    path = _request_file(configuration, place)
    durable.make_private_directory(path.parent)
    durable.write_json(path, {"percent": ASKED_PERCENT})


def percent(configuration: StorageConfig, place: SourceDirectory) -> float:
    """Return the percentage of unchanged files to compare now, or 0 for no comparison."""
    try:
        content = json.loads(durable.read_regular_file(_request_file(configuration.state, place), limit_bytes=4096))
        asked = float(content["percent"])
    except (OSError, ValueError, TypeError, KeyError):
        asked = 0.0
    return max(asked, configuration.integrity.compare_with_source_percent)


def after_backup(
    configuration: StorageConfig,
    place: SourceDirectory,
    daemon: RsyncDaemon,
    snapshot: str,
    *,
    cancellation: Cancellation = NEVER,
) -> tuple[str, ...]:
    """Compare a sample if one is due, and return the findings about the new snapshot. They are recorded with it.

    A failure is a warning, as the backup is made.
    """
    share = percent(configuration, place)
    if not share:
        return ()
    try:
        compared = compare(configuration, place, daemon, snapshot, share=share, cancellation=cancellation)
        _request_file(configuration.state, place).unlink(missing_ok=True)
    except (TurkuError, OSError) as error:
        _LOG.warning("%s: not compared with the machine: %s", place.source, error)
        return ()
    _LOG.info(
        "%s: %d unchanged files (%d bytes) compared with the machine, %d differ",
        place.source,
        compared.files,
        compared.size_bytes,
        len(compared.altered),
    )
    if not compared.altered:
        return ()
    try:
        # If one name of a file is not trusted, none is.
        others = find_other_names(place.tree(snapshot), compared.altered) or ()
        damage.note_altered(place, [*compared.altered, *others])
    except (TurkuError, OSError) as error:
        _LOG.warning("%s: the next backup does not know which files to fetch anew: %s", place.source, error)
    shown = ", ".join(one_line(path) for path in compared.altered[:_SHOWN])
    sign = (
        f"{len(compared.altered)} of {compared.files} files differ from the machine's, though size and time are alike: "
        f"{shown}"
    )
    noted = snapshot_notes.read(place, snapshot)
    snapshot_notes.change(place, snapshot, findings=(*noted.findings, sign))
    alarms = [
        DamagedFile(path=one_line(path)[:4000], kind="source", state="alarm", snapshots=[snapshot], snapshot_count=1)
        for path in compared.altered
    ]
    report.send(configuration, place.machine_dir.name, {place.source: SourceIntegrity(damages=alarms)})
    return (sign,)


def compare(
    configuration: StorageConfig,
    place: SourceDirectory,
    daemon: RsyncDaemon,
    snapshot: str,
    *,
    share: float,
    cancellation: Cancellation = NEVER,
) -> ComparisonResult:
    """Compare a sample of files that the last backup did not transfer, and return those that differ on the machine.

    Raises BackupFailed, CommandFailed, CatalogUnusable, OSError, and what ``cancellation`` raises.
    """
    with catalog.open_catalog(place, zone=configuration.state.timezone) as known:
        sample = _sample(known, snapshot, share)
        if not sample:
            return ComparisonResult(0, 0, ())
        tree = place.tree(snapshot)
        by_path = {entry.path: entry for entry in sample}
        looked_at, differing = _differing(configuration, place, daemon, tree, list(by_path), cancellation=cancellation)
        compared = [entry for entry in sample if entry.path in looked_at]
        altered = []
        for path in differing:
            cancellation.check()
            if path in by_path and _is_as_written(tree, by_path[path]):
                altered.append(path)
    return ComparisonResult(len(compared), sum(entry.size for entry in compared), tuple(altered))


def _sample(known: catalog.Catalog, snapshot: str, share: float) -> list[CatalogEntry]:
    candidates = (
        entry
        for entry in known.files(snapshot, b"")
        # rsync itself compared what the backup has just transferred.
        if entry.kind is EntryKind.FILE and entry.first != snapshot and entry.size
    )
    drawn = sampling.draw(sampling.share(candidates, share), FILES_LIMIT)
    return list(sampling.within(drawn, BYTES_LIMIT, lambda entry: entry.size))


def _differing(
    configuration: StorageConfig,
    place: SourceDirectory,
    daemon: RsyncDaemon,
    tree: Path,
    paths: Sequence[bytes],
    *,
    cancellation: Cancellation,
) -> tuple[set[bytes], list[bytes]]:
    """Return the paths that were compared, and those that differ although size and time are equal.

    Files that are gone or unreadable on the machine are not compared.
    """
    looked_at: set[bytes] = set()
    found: list[bytes] = []
    listing = place.fetch_list
    with os.fdopen(fs.create_file(listing), "wb") as file:
        # A name that begins with a '#' or a semicolon would be a comment.
        file.write(b"".join(b"./" + path + b"\0" for path in paths))
    try:
        bounds = limits.run_limits(configuration, place.machine_dir)
        bounds = replace(bounds, seconds=min(bounds.seconds or TIMEOUT_SECONDS, TIMEOUT_SECONDS))
        system = probe_file_system(configuration, place.machine_dir)
        with sandbox.contained_rsync(
            lambda seen: _arguments(configuration.receiving, daemon, seen(listing), system),
            configuration=configuration,
            port=daemon.port,
            password=daemon.password,
            capabilities=capabilities.of_receiver(configuration.receiving, fake_super=system.fake_super),
            directory=tree,
            readable=[listing],
        ) as child:
            watch = watchdog.Watchdog(bounds, process=child.pid, tree=place.machine_dir, is_new_tree=False)
            with watchdog.output_reader(
                child, lambda stream: _read(stream, looked_at, found), timeout_seconds=_READ_TIMEOUT_SECONDS
            ):
                code = watchdog.wait_for(child, watch, cancellation)
            lines = child.last_lines
        # 23 and 24: some files vanished or could not be read, which says nothing of the others.
        if code not in (0, 23, 24):
            raise BackupFailed(f"rsync ended with exit code {code}", details="\n".join(lines))
    finally:
        fs.unlink(listing)
    return looked_at, found


def _arguments(
    configuration: ReceivingConfig, daemon: RsyncDaemon, listing: str, system: FileSystemSupport
) -> list[str]:
    user = require_valid_username(daemon.username)
    return [
        *configuration.rsync_command,
        "--dry-run",
        "--checksum",
        "--times",
        "--from0",
        f"--files-from={listing}",
        # Twice, so that equal files are named too.
        "--itemize-changes",
        "--itemize-changes",
        f"--out-format={change_log.OUT_FORMAT}",
        "--no-motd",
        "--8-bit-output",
        f"--timeout={SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={CONNECT_TIMEOUT_SECONDS}",
        *(["--modify-window=-1"] if system.nanoseconds else []),
        "--",
        f"rsync://{user}@127.0.0.1:{daemon.port}/{daemon.module}/",
        "./",
    ]


def _read(stream: IO[bytes], looked_at: set[bytes], found: list[bytes]) -> None:
    for raw in lines_of(stream, limit_bytes=change_log.LINE_LIMIT_BYTES):
        line = change_log.parse(raw.rstrip(b"\r\n"))
        if line is None or len(looked_at) >= 2 * FILES_LIMIT:
            continue
        looked_at.add(line.path)
        # ``>fc........``: the content differs, and neither size nor time does.
        if raw.startswith(b":>fc..") and len(found) < FILES_LIMIT:
            found.append(line.path)


def _is_as_written(tree: Path, entry: CatalogEntry) -> bool:
    """Return True if the stored file is undamaged. A scrub finds damage, and it is not a finding here."""
    if entry.checksum is None:
        return True
    with DirectoryTree(tree) as opened:
        descriptor = opened.open_file(entry.path)
        try:
            return checksum(descriptor, RateLimiter()) == entry.checksum
        finally:
            os.close(descriptor)


def _request_file(configuration: StorageState, place: SourceDirectory) -> Path:
    source = names.source_name(place.source)
    return configuration.var_dir / "compare" / place.machine_dir.name / f"{source}{_SUFFIX}"
