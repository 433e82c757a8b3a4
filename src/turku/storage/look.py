"""A machine looks at history: rows out of the catalog, one a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from turku.core.clock import Clock
from turku.errors import NotInHistory, PolicyError
from turku.policy import names
from turku.protocol.restore_messages import (
    DifferenceRow,
    FileRow,
    LookEnd,
    LookRequest,
    SnapshotRow,
    path_bytes,
    wire_path,
)
from turku.storage import catalog, history, kept_tree
from turku.storage.answers import Answers
from turku.storage.catalog import Catalog, Difference, Entry
from turku.storage.configuration import Storage
from turku.storage.permit import Permitted
from turku.storage.snapshots import notes
from turku.storage.snapshots.place import SourcePlace

_ROWS_AT_ONCE = 500


def show(configuration: Storage, permitted: Permitted, request: LookRequest, answers: Answers, *, clock: Clock) -> None:
    """Send what is asked for. Raises NotInHistory, PolicyError, CatalogUnusable, NoVolume."""
    place = kept_tree.place_of(configuration, permitted)
    if request.what == "snapshots":
        rows: Iterable[Any] = _snapshots(configuration, place)
        _send(rows, LookEnd(), request.limit, answers)
        return
    path = names.path_inside(path_bytes(request.path))
    with catalog.open_catalog(place, zone=configuration.zone) as opened:
        if request.what in ("files", "history"):
            permitted.require_path(path)
        elif permitted.paths:
            raise NotInHistory("the coordinator's permission is for some paths of this source only")
        end = LookEnd()
        if request.what == "history":
            rows = _history(opened, path)
        elif request.what == "find":
            rows = _find(configuration, place, opened, request, clock)
        else:
            permitted.require_snapshot(request.snapshot)
            chosen = kept_tree.choose(configuration, place, request.snapshot, clock=clock).name
            end = LookEnd(snapshot=chosen)
            if request.what == "files":
                rows = _files(opened, chosen, path, is_recursive=request.is_recursive)
            else:
                other = kept_tree.choose(configuration, place, request.other, clock=clock).name
                end = LookEnd(snapshot=chosen, other=other)
                rows = map(_difference, opened.diff(chosen, other))
        _send(rows, end, request.limit, answers)


def _send(rows: Iterable[Any], end: LookEnd, limit: int, answers: Answers) -> None:
    remaining = iter(rows)
    limited = itertools.islice(remaining, limit)
    while batch := list(itertools.islice(limited, _ROWS_AT_ONCE)):
        answers.send_many(batch)
    is_cut = next(remaining, None) is not None
    answers.send(LookEnd(is_cut=is_cut, snapshot=end.snapshot, other=end.other))


def _snapshots(configuration: Storage, place: SourcePlace) -> Iterator[SnapshotRow]:
    for snapshot in history.stored_snapshots(place, configuration.zone):
        noted = notes.read(place, snapshot.name)
        moment = snapshot.moment
        yield SnapshotRow(
            place.source,
            snapshot.name,
            moment=None if moment is None else moment.astimezone(configuration.zone).isoformat(),
            files=None if noted.figures is None else noted.figures.files,
            size_bytes=None if noted.figures is None else noted.figures.size_bytes,
            is_held=snapshot.is_held,
            is_suspicious=not noted.is_good,
        )


def _files(opened: Catalog, snapshot: str, path: bytes, *, is_recursive: bool) -> Iterator[FileRow]:
    if is_recursive:
        yield from map(row, opened.files(snapshot, path))
        return
    entry = opened.entry(snapshot, path) if path else None
    if entry is not None and entry.kind != "directory":
        yield row(entry)
        return
    yield from map(row, opened.list(snapshot, path))


def _history(opened: Catalog, path: bytes) -> Iterator[FileRow]:
    if not path:
        raise PolicyError("the source itself has no history of versions", hint="turku-agent snapshots shows its own")
    found = opened.history(path)
    if not found:
        raise NotInHistory(
            f"{kept_tree.shown(path)} was in no snapshot that is kept", hint="turku-agent find searches all of them"
        )
    yield from map(row, found)


def _find(
    configuration: Storage, place: SourcePlace, opened: Catalog, request: LookRequest, clock: Clock
) -> Iterator[FileRow]:
    choice = request.snapshot
    snapshot = None
    if choice.name is not None or choice.at is not None:
        snapshot = kept_tree.choose(configuration, place, choice, clock=clock).name
    pattern = path_bytes(request.pattern)
    if not pattern:
        raise PolicyError("the pattern is empty")
    return map(row, opened.find(pattern, snapshot=snapshot, ignore_case=request.ignores_case))


def row(entry: Entry) -> FileRow:
    """One version of a path, as it is sent."""
    return FileRow(
        wire_path(entry.path),
        entry.kind.value,
        size_bytes=entry.size,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_ns,
        checksum=entry.checksum,
        link_target=None if entry.link_target is None else wire_path(entry.link_target),
        first=entry.first,
        last=entry.last,
    )


def _difference(difference: Difference) -> DifferenceRow:
    return DifferenceRow(
        wire_path(difference.path),
        difference.kind,  # type: ignore[arg-type]
        before=None if difference.before is None else row(difference.before),
        after=None if difference.after is None else row(difference.after),
    )
