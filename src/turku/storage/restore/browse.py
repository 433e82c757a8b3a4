"""Browsing for a machine: rows from its view of history, one a line."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from turku.core.log import one_line
from turku.errors import InvalidValue, NotInHistory
from turku.policy import names
from turku.protocol.jsonlines import JsonLines
from turku.protocol.restore_messages import (
    REMARK_LIMIT,
    REMARKS_LIMIT,
    BrowseEnd,
    BrowseRequest,
    FileRow,
    SnapshotChoice,
    path_bytes,
)
from turku.storage.catalog import Catalog
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.restore import history_rows, recorded_entries, snapshot_lookup
from turku.storage.restore.history_view import HistoryView
from turku.storage.restore.snapshot_lookup import SnapshotTree

_ROWS_AT_ONCE = 500


def show(view: HistoryView, request: BrowseRequest, answers: JsonLines) -> None:
    """Send the requested rows. Raises NotInHistory, InvalidValue, CatalogUnusable."""
    if request.listing == "snapshots":
        _send(view.snapshots(), BrowseEnd(), request.limit, answers)
        return
    path = names.path_inside(path_bytes(request.path))
    if request.listing == "ls" and not (snapshot := view.choose(request.snapshot)).is_snapshot:
        # No catalog has this tree.
        with SnapshotReader(snapshot.path) as tree:
            rows_of_tree = (
                history_rows.file_row(entry)
                for entry in recorded_entries.in_tree(tree, path, is_recursive=request.is_recursive)
                if view.scope.has_path(entry.path)
            )
            _send(rows_of_tree, BrowseEnd(snapshot=snapshot.name), request.limit, answers)
        return
    chosen: list[SnapshotTree] = []

    def choose(choice: SnapshotChoice) -> str:
        chosen.append(view.choose(choice))
        return chosen[-1].name

    with view.catalog() as opened:
        rows = catalog_rows(opened, request, choose)
        end = BrowseEnd()
        if request.listing in ("ls", "diff"):
            remarks = [one_line(remark)[:REMARK_LIMIT] for remark in chosen[0].remarks][:REMARKS_LIMIT]
            other = chosen[1].name if request.listing == "diff" else None
            end = BrowseEnd(snapshot=chosen[0].name, other=other, remarks=remarks)
        _send(rows, end, request.limit, answers)


def catalog_rows(opened: Catalog, request: BrowseRequest, choose: Callable[[SnapshotChoice], str]) -> Iterator[Any]:
    """Return the rows that answer a request about one source, out of its catalog.

    ``choose`` returns the name of the snapshot that is meant. Raises NotInHistory and InvalidValue, and what ``choose``
    raises.
    """
    path = names.path_inside(path_bytes(request.path))
    if request.listing == "versions":
        return _versions(opened, path)
    if request.listing == "find":
        return _find(opened, request, choose)
    chosen = choose(request.snapshot)
    if request.listing == "ls":
        return history_rows.directory_rows(opened, chosen, path, is_recursive=request.is_recursive)
    return map(history_rows.difference_row, opened.diff(chosen, choose(request.other)))


def _send(rows: Iterable[Any], end: BrowseEnd, limit: int, answers: JsonLines) -> None:
    remaining = iter(rows)
    limited = itertools.islice(remaining, limit)
    while batch := list(itertools.islice(limited, _ROWS_AT_ONCE)):
        answers.send_many(batch)
    is_cut = next(remaining, None) is not None
    answers.send(msgspec.structs.replace(end, is_cut=is_cut))


def _versions(opened: Catalog, path: bytes) -> Iterator[FileRow]:
    if not path:
        raise InvalidValue("the source itself has no versions", hint="'snapshots' shows when it was backed up")
    found = opened.history(path)
    if not found:
        raise NotInHistory(
            f"{snapshot_lookup.shown(path)} was in no snapshot that is kept",
            hint="'find' searches all snapshots for a name",
        )
    return map(history_rows.file_row, found)


def _find(opened: Catalog, request: BrowseRequest, choose: Callable[[SnapshotChoice], str]) -> Iterator[FileRow]:
    pattern = path_bytes(request.pattern)
    if not pattern:
        raise InvalidValue("the pattern is empty")
    choice = request.snapshot
    snapshot = None if choice.name is None and choice.at is None else choose(choice)
    return map(history_rows.file_row, opened.find(pattern, snapshot=snapshot, ignore_case=request.ignores_case))
