"""Gathering what failed runs left: the newer wins, nothing is followed, everything is kept once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from turku.errors import BackupFailed
from turku.storage.snapshots import tree_removal, unfinished
from turku.storage.snapshots.place import SourcePlace


@pytest.fixture
def place(tmp_path: Path) -> SourcePlace:
    place = SourcePlace(tmp_path, "etc")
    place.snapshots_dir.mkdir()
    return place


def leave(place: SourcePlace, *names: str, content: str) -> None:
    """A run that broke off having brought over ``names``, gathered."""
    for name in names:
        path = place.working_tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    unfinished.gather(place.working_tree, place)


def test_nothing_left_over_is_nothing_gathered(place: SourcePlace) -> None:
    unfinished.gather(place.working_tree, place)
    assert list(place.snapshots_dir.iterdir()) == []


def test_two_runs_make_one_tree_the_newer_winning(place: SourcePlace) -> None:
    leave(place, "a/one", "a/both", "b/deep/er/two", content="older")
    leave(place, "a/both", "a/three", "c/four", content="newer")
    assert not place.working_tree.exists()
    contents = {
        str(path.relative_to(place.unfinished)): path.read_text()
        for path in place.unfinished.rglob("*")
        if path.is_file()
    }
    assert contents == {
        "a/one": "older",
        "a/both": "newer",
        "a/three": "newer",
        "b/deep/er/two": "older",
        "c/four": "newer",
    }


def test_a_file_that_became_a_directory_and_back_stops_nothing(place: SourcePlace) -> None:
    leave(place, "x", "y/inner", "z", content="older")
    leave(place, "x/inner", "y", "z", content="newer")
    assert (place.unfinished / "x").read_text() == "older"
    assert (place.unfinished / "y" / "inner").read_text() == "older"
    assert (place.unfinished / "z").read_text() == "newer"


def test_a_link_in_the_tree_is_not_followed(place: SourcePlace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    place.working_tree.mkdir()
    (place.working_tree / "a").symlink_to(outside)
    unfinished.gather(place.working_tree, place)
    leave(place, "a/file", content="hostile")
    assert (outside / "file").read_text() == "untouched"


def test_deep_trees_do_not_run_out_of_descriptors_or_path(place: SourcePlace) -> None:
    component, depth = "d" * 100, 200
    for _ in range(2):
        place.working_tree.mkdir()
        directory = os.open(place.working_tree, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(component, dir_fd=directory)
            inner = os.open(component, os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = inner
        os.mknod("leaf", dir_fd=directory)
        os.close(directory)
        unfinished.gather(place.working_tree, place)
    tree_removal.remove_tree(place.unfinished)
    for entry in place.snapshots_dir.iterdir():
        tree_removal.remove_tree(entry)
    assert list(place.snapshots_dir.iterdir()) == []


def test_a_working_tree_that_is_a_link_is_refused(place: SourcePlace, tmp_path: Path) -> None:
    place.working_tree.symlink_to(tmp_path)
    with pytest.raises(BackupFailed, match="is not a directory"):
        unfinished.gather(place.working_tree, place)


def test_hard_links_into_a_snapshot_stay_what_they_are(place: SourcePlace) -> None:
    snapshot = place.snapshot("etc_20260131-120000_0a1b")
    snapshot.mkdir()
    (snapshot / "file").write_text("content")
    for _ in range(2):
        place.working_tree.mkdir()
        os.link(snapshot / "file", place.working_tree / "file")
        unfinished.gather(place.working_tree, place)
    assert (place.unfinished / "file").stat().st_ino == (snapshot / "file").stat().st_ino
