"""Rows of history as the agent and the storage print them: the same tables for people, the same JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import tzinfo
from typing import Any

import msgspec

from turku.core import listing, shell_words
from turku.core.listing import Say
from turku.protocol.restore_messages import DifferenceRow, FileRow, SnapshotRow, WirePath, path_bytes

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def snapshot_object(row: SnapshotRow) -> dict[str, Any]:
    """The snapshot for programs."""
    return {
        "source": row.source,
        "snapshot": row.name,
        "moment": row.moment,
        "files": row.files,
        "size_bytes": row.size_bytes,
        "is_held": row.is_held,
        "is_suspicious": row.is_suspicious,
    }


def snapshot_cells(row: SnapshotRow) -> tuple[str, str, str, str, str, str]:
    """The snapshot for people: source, name, moment, files, size, and what is to be known of it."""
    marks = (("held", row.is_held), ("suspicious", row.is_suspicious))
    return (
        row.source,
        row.name,
        row.moment or "",
        "" if row.files is None else f"{row.files:,}",
        "" if row.size_bytes is None else listing.size(row.size_bytes),
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
                listing.moment(row.mtime_ns, zone),
                _shown(row.path, row.link_target),
            )
            for row in rows
        ),
        say,
        right=("size",),
    )


def show_versions(
    rows: Iterable[FileRow],
    say: Say,
    *,
    zone: tzinfo,
    is_json: bool,
    checksum_digits: int | None = None,
    snapshot_name: Callable[[str], str] = str,
) -> None:
    """Print versions of paths, with the snapshots that have them; of checksums so many digits (None: all)."""
    if is_json:
        listing.array(map(_file_object, rows), say)
        return
    listing.show(
        ("mode", "size", "changed", "checksum", "first snapshot", "last snapshot", "path"),
        (
            (
                listing.mode(row.kind, row.mode),
                _size(row),
                listing.moment(row.mtime_ns, zone),
                "" if row.checksum is None else row.checksum.hex()[:checksum_digits],
                snapshot_name(row.first or ""),
                snapshot_name(row.last or ""),
                _shown(row.path, row.link_target),
            )
            for row in rows
        ),
        say,
        right=("size",),
    )


def show_differences(rows: Iterable[DifferenceRow], say: Say, *, is_json: bool) -> None:
    """Print what two snapshots do not have alike."""
    if is_json:
        listing.array(map(_difference_object, rows), say)
        return
    listing.show(
        ("", "size before", "size", "path"),
        ((_SIGNS[row.change], _size(row.before), _size(row.after), _shown(row.path)) for row in rows),
        say,
        right=("size before", "size"),
    )


def _difference_object(row: DifferenceRow) -> dict[str, Any]:
    return {
        "path": _wire(row.path),
        "change": row.change,
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
        "mtime_ns": row.mtime_ns,
        "checksum": None if row.checksum is None else row.checksum.hex(),
        "link_target": None if row.link_target is None else _wire(row.link_target),
        "first": row.first,
        "last": row.last,
    }


def _wire(path: WirePath) -> Any:
    return msgspec.to_builtins(path)


def _shown(path: WirePath, link_target: WirePath | None = None) -> str:
    shown = shell_words.path_word(path_bytes(path))
    return shown if link_target is None else f"{shown} -> {shell_words.word(path_bytes(link_target))}"


def _size(row: FileRow | None) -> str:
    return listing.size(row.size_bytes) if row is not None and row.kind == "file" else ""
