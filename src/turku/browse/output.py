"""Rows of history as tables for people and as JSON for programs."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import tzinfo
from typing import Any, TypeVar

import msgspec

from turku.core.cli import listing, shell_words
from turku.core.cli.listing import Say
from turku.core.units import size
from turku.protocol.restore_messages import DifferenceRow, FileRow, SnapshotRow, WirePath, path_bytes, time_ns

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_Row = TypeVar("_Row")


@contextmanager
def limited(rows: Iterable[_Row], limit: int | None) -> Iterator[Iterator[_Row]]:
    """Yield the first rows, or all without a limit. At the end of the block, warn if there are more."""
    remaining = iter(rows)
    yield itertools.islice(remaining, limit)
    if limit is not None and next(remaining, None) is not None:
        warn_of_more(limit)


def warn_of_more(limit: int) -> None:
    """Say on standard error that the limit left rows out."""
    print(f"there are more rows; --limit shows more than {limit:,}", file=sys.stderr)  # noqa: T201


def show(
    what: str, rows: Iterable[Any], say: Say, *, zone: tzinfo, is_json: bool, snapshot_name: Callable[[str], str] = str
) -> None:
    """Print the rows of ``ls``, ``versions``, ``find`` or ``diff``.

    ``snapshot_name`` gives the short name of a snapshot for the tables of ``versions`` and ``find``.
    """
    if is_json:
        listing.array(map(_difference_object if what == "diff" else _file_object, rows), say)
    elif what == "diff":
        listing.show(
            ("", "size before", "size", "what changed", "path"),
            (
                (_SIGNS[row.change], _size(row.before), _size(row.after), ", ".join(_changed(row)), _shown(row.path))
                for row in rows
            ),
            say,
            right=("size before", "size"),
            drop=("size before", "size"),
            empty="no differences",
        )
    elif what == "ls":
        listing.show(
            ("mode", "owner", "size", "changed", "path"),
            (
                (
                    listing.mode(row.kind, row.mode),
                    f"{row.uid}:{row.gid}",
                    _size(row),
                    listing.moment(time_ns(row.modified), zone),
                    _shown(row.path, row.link_target),
                )
                for row in rows
            ),
            say,
            right=("size",),
            drop=("owner", "mode", "changed", "size"),
        )
    else:
        listing.show(
            ("mode", "size", "changed", "checksum", "attributes", "first snapshot", "last snapshot", "path"),
            (
                (
                    listing.mode(row.kind, row.mode),
                    _size(row),
                    listing.moment(time_ns(row.modified), zone),
                    (row.checksum or b"").hex(),
                    (row.attributes or b"").hex(),
                    snapshot_name(row.first or ""),
                    snapshot_name(row.last or ""),
                    _shown(row.path, row.link_target),
                )
                for row in rows
            ),
            say,
            right=("size",),
            drop=("mode", "attributes", "checksum", "first snapshot", "size", "changed"),
        )


def show_snapshots(
    rows: Iterable[tuple[str, SnapshotRow]], say: Say, *, owner: str, is_json: bool, known: Sequence[str] = ()
) -> None:
    """Print snapshots. ``owner`` names the first value of each row: ``machine`` or ``storage``.

    A snapshot's name tells when it was made, so that the column ``made`` may go where there is no room for it.
    ``known`` is as in ``listing.show``.
    """
    if is_json:
        listing.array(({owner: name, **_snapshot_object(row)} for name, row in rows), say)
        return
    listing.show(
        (owner, "source", "snapshot", "made", "files", "size", "marks"),
        ((name, *_snapshot_cells(row)) for name, row in rows),
        say,
        right=("files", "size"),
        drop=(*(["storage"] if owner == "storage" else []), "made", "files", "size"),
        known=known,
        empty="no snapshots",
    )


def _snapshot_object(row: SnapshotRow) -> dict[str, Any]:
    return {
        "source": row.source,
        "snapshot": row.name,
        "moment": row.moment,
        "files": row.files,
        "size_bytes": row.size_bytes,
        "is_held": row.is_held,
        "is_quarantined": row.is_quarantined,
        "is_rejected": row.is_rejected,
        "is_date_in_doubt": row.is_date_in_doubt,
        "unread_files": row.unread_files,
    }


def _snapshot_cells(row: SnapshotRow) -> tuple[str, str, str, str, str, str]:
    """Return the cells of a snapshot: source, name, moment, files, size and marks."""
    marks = (
        ("held", row.is_held),
        ("quarantined", row.is_quarantined),
        ("rejected", row.is_rejected),
        ("date in doubt", row.is_date_in_doubt),
        ("incomplete", row.unread_files > 0),
    )
    return (
        row.source,
        row.name,
        listing.iso_moment(row.moment or ""),
        "" if row.files is None else f"{row.files:,}",
        "" if row.size_bytes is None else size(row.size_bytes),
        ", ".join(word for word, holds in marks if holds),
    )


def _changed(row: DifferenceRow) -> list[str]:
    """Return the parts in which the two sides differ, as far as both are known."""
    before, after = row.before, row.after
    if before is None or after is None:
        return []
    is_known = before.checksum is not None and after.checksum is not None
    found = {
        "kind": before.kind != after.kind,
        "content": before.size_bytes != after.size_bytes or (is_known and before.checksum != after.checksum),
        "target": before.link_target != after.link_target,
        "mode": before.mode != after.mode,
        "owner": (before.uid, before.gid) != (after.uid, after.gid),
        "time": before.modified != after.modified,
        "attributes": None not in (before.attributes, after.attributes) and before.attributes != after.attributes,
    }
    return [part for part, differs in found.items() if differs]


def _difference_object(row: DifferenceRow) -> dict[str, Any]:
    return {
        "path": _wire(row.path),
        "change": row.change,
        "what_changed": _changed(row),
        "before": None if row.before is None else _file_object(row.before),
        "after": None if row.after is None else _file_object(row.after),
    }


def _file_object(row: FileRow) -> dict[str, Any]:
    return {
        "path": _wire(row.path),
        "kind": row.kind,
        "size_bytes": row.size_bytes,
        "mode": row.mode,
        "uid": row.uid,
        "gid": row.gid,
        "mtime_ns": time_ns(row.modified),
        "checksum": None if row.checksum is None else row.checksum.hex(),
        "link_target": None if row.link_target is None else _wire(row.link_target),
        "attributes": None if row.attributes is None else row.attributes.hex(),
        "first": row.first,
        "last": row.last,
    }


def _wire(path: WirePath) -> Any:
    return msgspec.to_builtins(path)


def _shown(path: WirePath, link_target: WirePath | None = None) -> str:
    shown = shell_words.path_word(path_bytes(path))
    return shown if link_target is None else f"{shown} -> {shell_words.word(path_bytes(link_target))}"


def _size(row: FileRow | None) -> str:
    return size(row.size_bytes) if row is not None and row.kind == "file" else ""
