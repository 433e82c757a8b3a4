"""Rows of history as the agent and the storage print them: the same tables for people, the same JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import tzinfo
from typing import Any

import msgspec

from turku.core.cli import listing, shell_words
from turku.core.cli.listing import Say
from turku.core.units import size
from turku.protocol.restore_messages import DifferenceRow, FileRow, SnapshotRow, WirePath, path_bytes

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


SNAPSHOT_HEADINGS = ("source", "snapshot", "made", "files", "size", "marks")
SNAPSHOT_RIGHT = ("files", "size")
SNAPSHOT_DROP = ("made", "files", "size")
"""What ``snapshot_cells`` has, which columns are figures, and which are left out where there is no room for them: a
snapshot's name says when it was made."""


def snapshot_object(row: SnapshotRow) -> dict[str, Any]:
    """The snapshot for programs."""
    return {
        "source": row.source,
        "snapshot": row.name,
        "moment": row.moment,
        "files": row.files,
        "size_bytes": row.size_bytes,
        "is_held": row.is_held,
        "is_quarantined": row.is_quarantined,
        "is_date_in_doubt": row.is_date_in_doubt,
        "unread_files": row.unread_files,
    }


def snapshot_cells(row: SnapshotRow) -> tuple[str, str, str, str, str, str]:
    """The snapshot for people: source, name, moment, files, size, and what is to be known of it."""
    marks = (
        ("held", row.is_held),
        ("suspicious", row.is_quarantined),
        ("date in doubt", row.is_date_in_doubt),
        ("incomplete", row.unread_files > 0),
    )
    return (
        row.source,
        row.name,
        row.moment or "",
        "" if row.files is None else f"{row.files:,}",
        "" if row.size_bytes is None else size(row.size_bytes),
        ", ".join(word for word, holds in marks if holds),
    )


def show_files(rows: Iterable[FileRow], say: Say, *, zone: tzinfo, is_json: bool) -> None:
    """Print what a directory had in it."""
    if is_json:
        listing.array(map(_file_object, rows), say)
        return
    listing.show(
        ("mode", "owner", "size", "changed", "path"),
        (
            (
                listing.mode(row.kind, row.mode),
                f"{row.uid}:{row.gid}",
                _size(row),
                listing.moment(row.modified_ns, zone),
                _shown(row.path, row.link_target),
            )
            for row in rows
        ),
        say,
        right=("size",),
        drop=("owner", "mode", "changed", "size"),
    )


def show_versions(
    rows: Iterable[FileRow],
    say: Say,
    *,
    zone: tzinfo,
    is_json: bool,
    snapshot_name: Callable[[str], str] = str,
) -> None:
    """Print versions of paths, with the snapshots that have them."""
    if is_json:
        listing.array(map(_file_object, rows), say)
        return
    listing.show(
        ("mode", "size", "changed", "checksum", "attributes", "first snapshot", "last snapshot", "path"),
        (
            (
                listing.mode(row.kind, row.mode),
                _size(row),
                listing.moment(row.modified_ns, zone),
                "" if row.checksum is None else row.checksum.hex(),
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


def show_differences(rows: Iterable[DifferenceRow], say: Say, *, is_json: bool) -> None:
    """Print what two snapshots do not have alike."""
    if is_json:
        listing.array(map(_difference_object, rows), say)
        return
    listing.show(
        ("", "size before", "size", "what changed", "path"),
        ((_SIGNS[row.change], _size(row.before), _size(row.after), _changed(row), _shown(row.path)) for row in rows),
        say,
        right=("size before", "size"),
        drop=("size before", "size"),
    )


def _what_changed(row: DifferenceRow) -> list[str]:
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
        "time": before.modified_ns != after.modified_ns,
        "attributes": None not in (before.attributes, after.attributes) and before.attributes != after.attributes,
    }
    return [part for part, differs in found.items() if differs]


def _changed(row: DifferenceRow) -> str:
    return ", ".join(_what_changed(row))


def _difference_object(row: DifferenceRow) -> dict[str, Any]:
    return {
        "path": _wire(row.path),
        "change": row.change,
        "what_changed": _what_changed(row),
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
        "mtime_ns": row.modified_ns,
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
