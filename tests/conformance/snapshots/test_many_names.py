"""A file with as many names as its file system allows: each snapshot has them all, and its content a few times at most."""

import os

import pytest
from tests.support.backed_up_machine import BackedUpMachine

from turku.storage.snapshots import MODES, SnapshotMode

MOST_NAMES = 65_000
"""The most names of a file that ext4 allows."""


@pytest.fixture
def mode() -> type[SnapshotMode]:
    return MODES["link-dest"]


def test_a_file_with_as_many_names_as_ext4_allows(machine: BackedUpMachine) -> None:
    source = machine.source_dir
    (source / "0").write_text("content of all")
    try:
        for number in range(1, MOST_NAMES):
            os.link(source / "0", source / str(number))
    except OSError:
        pytest.skip("this file system allows fewer names")
    assert machine.back_up().success
    (source / "other").write_text("another file")
    # A further name of a file that has all that it can have.
    (source / "4711").unlink()
    os.link(source / "0", source / "another")
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy == "incremental", outcome.strategy_reason
    tree = machine.newest_tree()
    names = [entry for entry in os.scandir(tree) if entry.name != "other"]
    assert len(names) == MOST_NAMES
    # The full file's names cannot be further ones of it.
    assert len({entry.inode() for entry in names}) <= 3
    assert (tree / "12345").read_text() == (tree / "another").read_text() == "content of all"
    assert not (tree / "4711").exists()
