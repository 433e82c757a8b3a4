"""Rows of history from catalog and disk, sent to an agent or printed for the operator."""

from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo

from turku.protocol.restore_messages import DifferenceRow, FileRow, SnapshotRow, wire_path, wire_time
from turku.storage.catalog import Catalog, CatalogEntry, Difference
from turku.storage.disk import snapshot_notes
from turku.storage.disk.history import StoredSnapshot
from turku.storage.disk.source_directory import SourceDirectory


def snapshot_rows(
    place: SourceDirectory, snapshots: Sequence[StoredSnapshot], zone: tzinfo, *, now: datetime, has_stats: bool = True
) -> Iterator[SnapshotRow]:
    """Yield a row for each of these snapshots, with statistics if ``has_stats``."""
    for snapshot in snapshots:
        noted = snapshot_notes.read(place, snapshot.name)
        figures = noted.stats if has_stats else None
        moment = snapshot.moment
        yield SnapshotRow(
            place.source,
            snapshot.name,
            moment=None if moment is None else moment.astimezone(zone).isoformat(),
            files=None if figures is None else figures.files,
            size_bytes=None if figures is None else figures.size_bytes,
            is_held=snapshot.is_held,
            is_quarantined=noted.needs_review,
            is_rejected=not noted.is_good and not noted.needs_review,
            is_date_in_doubt=snapshot.is_date_in_doubt(now),
            unread_files=noted.incomplete.files if has_stats else 0,
        )


def directory_rows(opened: Catalog, snapshot: str, path: bytes, *, is_recursive: bool) -> Iterator[FileRow]:
    """Return the entries of a directory, or the single entry of another path.

    With ``is_recursive`` everything below is included.
    """
    entry = opened.entry(snapshot, path) if path and not is_recursive else None
    if is_recursive:
        entries = opened.files(snapshot, path)
    elif entry is not None and entry.kind != "directory":
        entries = iter([entry])
    else:
        entries = opened.list(snapshot, path)
    return map(file_row, entries)


def file_row(entry: CatalogEntry) -> FileRow:
    """Return the row of one version of a path, with the snapshots that have it."""
    return FileRow(
        wire_path(entry.path),
        entry.kind.value,
        size_bytes=entry.size,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        modified=wire_time(entry.mtime_ns),
        checksum=entry.checksum,
        link_target=None if entry.link_target is None else wire_path(entry.link_target),
        first=entry.first,
        last=entry.last,
        attributes=entry.attributes,
    )


def difference_row(difference: Difference) -> DifferenceRow:
    """Return the row of a path that differs between two snapshots."""
    return DifferenceRow(
        wire_path(difference.path),
        difference.kind,  # type: ignore[arg-type]
        before=None if difference.before is None else file_row(difference.before),
        after=None if difference.after is None else file_row(difference.after),
    )
