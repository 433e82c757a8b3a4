"""Whatever happened to a source's history, every answer of its catalog is the one computed from the trees."""

import fnmatch
import random
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.random_history import BEGINNING, NAMES, Content, RandomHistory, State

from turku.storage import catalog
from turku.storage.catalog import Catalog, CatalogEntry
from turku.storage.disk.source_directory import SourceDirectory

SNAPSHOTS = 20
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@SLOW
@given(seed=st.integers(0, 2**32), comes_back=st.booleans())
def test_every_answer_is_that_of_the_trees(seed: int, comes_back: bool) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        place = SourceDirectory(Path(directory, "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"), "src")
        history = RandomHistory(place, chance, comes_back)
        for number in range(SNAPSHOTS):
            make(history, chance)
            happen(history, chance)
            if number % 5 == 4 or chance.random() < 0.1:
                ask(history, chance)


def make(history: RandomHistory, chance: random.Random) -> None:
    """One backup, and its entry in the catalog as it may come about."""
    base = history.newest
    if base is not None and len(history.states) > 1 and chance.random() < 0.1:
        # The newest was rejected.
        base = history.names[-2]
    name, _moment = history.new_name()
    if base is not None and chance.random() < 0.15:
        record(history, name, base, history.place.tree(base), chance, is_unchanged=True)
        history.commit_link(name, base)
        return
    tree = history.build(base, chance.randrange(1, 12))
    # Without checksums two files of the same time and size are two versions, unless they are one file.
    if history.comes_back or chance.random() < 0.8:
        record(history, name, base, tree, chance)
    if chance.random() < 0.1 and (history.comes_back is False):
        # Killed before the commit: the next run has another name.
        name, _moment = history.new_name()
    history.commit(name, tree)


def record(
    history: RandomHistory,
    name: str,
    base: str | None,
    tree: Path,
    chance: random.Random,
    *,
    is_unchanged: bool = False,
) -> None:
    if is_unchanged:
        changes = history.changes(base, tree, is_complete=True)
    else:
        changes = history.changes(base, tree, is_complete=chance.random() < 0.6)
    with changes:
        catalog.record(history.place, name=name, base=base, tree=tree, changes=changes, moment=BEGINNING, zone=UTC)


def happen(history: RandomHistory, chance: random.Random) -> None:
    """Do as retention and operators do between two backups."""
    while len(history.states) > 1 and chance.random() < 0.3:
        gone = chance.choice(history.names)
        history.delete(gone)
        if chance.random() < 0.5:
            catalog.forget(history.place, zone=UTC)
    if history.comes_back:
        # A tree that is read again has no checksums.
        return
    if len(history.states) > 1 and chance.random() < 0.2:
        history.trash(chance.choice(history.names))
    if history.trashed and chance.random() < 0.3:
        history.restore(chance.choice(sorted(history.trashed)))


def ask(history: RandomHistory, chance: random.Random) -> None:
    with catalog.open_catalog(history.place, zone=UTC) as opened:
        assert [each.name for each in opened.snapshots()] == history.names
        for name in history.names:
            ask_for_entries(opened, history, name)
        ask_for_histories(opened, history)
        ask_to_find(opened, history, chance)
        for _ in range(5):
            before, after = (chance.choice(history.names) for _ in range(2))
            ask_for_differences(opened, history, before, after)


def ask_for_entries(opened: Catalog, history: RandomHistory, name: str) -> None:
    expected = history.states[name]
    assert rows_of(history, opened.files(name)) == in_order(expected)
    for directory in [b"", *(path for path, content in expected.items() if content[0] == "directory")]:
        below = {path: content for path, content in expected.items() if parent(path) == directory}
        assert rows_of(history, opened.list(name, directory)) == in_order(below)
        within = {
            path: content
            for path, content in expected.items()
            if not directory or path == directory or path.startswith(directory + b"/")
        }
        assert rows_of(history, opened.files(name, directory)) == in_order(within)
    for entry in opened.files(name):
        run = next(run for run in runs(history, entry.path) if run[0] <= name <= run[1])
        assert (entry.first, entry.last) == run[:2]
        assert opened.entry(name, entry.path) == entry


def ask_for_histories(opened: Catalog, history: RandomHistory) -> None:
    for path in all_paths(history) | {b"never/there", b"a"}:
        found = [(entry.first, entry.last, content(history, entry)) for entry in opened.history(path)]
        assert found == list(runs(history, path))


def ask_to_find(opened: Catalog, history: RandomHistory, chance: random.Random) -> None:
    name = chance.choice(history.names)
    for pattern in (chance.choice(NAMES).replace(b"*", b"[*]"), b"*a*", b"*/a", b"[!a]*", b"0"):
        newest = {path: list(runs(history, path))[-1][2] for path in all_paths(history) if matches(pattern, path)}
        assert rows_of(history, opened.find(pattern)) == in_order(newest)
        there = {path: each for path, each in history.states[name].items() if matches(pattern, path)}
        assert rows_of(history, opened.find(pattern, snapshot=name)) == in_order(there)


def ask_for_differences(opened: Catalog, history: RandomHistory, before: str, after: str) -> None:
    old, new = history.states[before], history.states[after]
    expected = {
        path: (old.get(path), new.get(path)) for path in old.keys() | new.keys() if old.get(path) != new.get(path)
    }
    found = {
        each.path: (
            None if each.before is None else content(history, each.before),
            None if each.after is None else content(history, each.after),
        )
        for each in opened.diff(before, after)
    }
    assert found == expected
    assert list(found) == sorted(expected, key=order)


def content(history: RandomHistory, entry: CatalogEntry) -> Content:
    """As the trees have it: a checksum that nobody has computed is right."""
    expected = history.states[entry.first][entry.path][6]
    if entry.checksum is None and not history.comes_back:
        return (*entry.content[:6], expected, *entry.content[7:])  # type: ignore[return-value]
    return entry.content  # type: ignore[return-value]


def rows_of(history: RandomHistory, entries: Iterable[CatalogEntry]) -> list[tuple[bytes, Content]]:
    return [(entry.path, content(history, entry)) for entry in entries]


def in_order(state: State) -> list[tuple[bytes, Content]]:
    return sorted(state.items(), key=lambda item: order(item[0]))


def order(path: bytes) -> tuple[bytes, bytes]:
    """Directory by directory."""
    return parent(path), path.rpartition(b"/")[2]


def parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def all_paths(history: RandomHistory) -> set[bytes]:
    return {path for state in history.states.values() for path in state}


def runs(history: RandomHistory, path: bytes) -> Iterator[tuple[str, str, Content]]:
    """First and last snapshot, and what lay there, of each stretch in which the path did not change."""
    begin: str | None = None
    previous = ""
    lying: Content | None = None
    for name in history.names:
        there = history.states[name].get(path)
        if there != lying:
            if lying is not None and begin is not None:
                yield begin, previous, lying
            begin, lying = name, there
        previous = name
    if lying is not None and begin is not None:
        yield begin, previous, lying


def matches(pattern: bytes, path: bytes) -> bool:
    text = path if b"/" in pattern else path.rpartition(b"/")[2]
    if any(wild in pattern for wild in (b"*", b"?", b"[")):
        return fnmatch.fnmatchcase(text, pattern)
    return pattern in text
