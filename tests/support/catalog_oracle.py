"""The comparison of a catalog with the tree of each snapshot, for a source with names of all kinds."""

import os
from pathlib import Path

from tests.support.backed_up_machine import BackedUpMachine
from tests.support.random_history import NAMES, state

from turku.storage import catalog


def make_tree(source: Path) -> None:
    for number, name in enumerate(NAMES):
        path = os.path.join(os.fsencode(source), name)
        if number % 3 == 0:
            os.mkdir(path)
            path = os.path.join(path, name)
        with open(path, "wb") as stream:
            stream.write(name * number)
        if number % 4 == 0:
            os.setxattr(path, "user.number", b"%d" % number)
            os.setxattr(os.path.dirname(path), "user.number", b"%d" % number)
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")


def change(source: Path, number: int) -> None:
    (source / "grows").write_text("x" * number)
    (source / f"new {number}").write_text(f"{number}")
    (source / f"new {number - 2}").unlink(missing_ok=True)
    (source / "-option").chmod(0o600 + number)
    os.setxattr(source / "a b", "user.number", b"changed %d" % number)
    directory = source / "below" / str(number)
    directory.mkdir(parents=True)
    (directory / "file").write_text("text")
    if number == 3:
        (source / "below" / "2" / "file").unlink()
        (source / "below" / "2").rmdir()
        (source / "below" / "2").write_text("was a directory")


def assert_agrees(machine: BackedUpMachine, *, with_checksums: bool = True) -> None:
    """Assert that every row is as the trees are, and that every checksum that is there is right."""
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
        assert [each.name for each in opened.snapshots()] == machine.snapshots()
        for name in machine.snapshots():
            expected = state(machine.place.tree(name))
            found = {entry.path: entry for entry in opened.files(name)}
            assert found.keys() == expected.keys()
            for path, entry in found.items():
                if entry.checksum is None and not with_checksums:
                    assert (*entry.content[:6], expected[path][6], *entry.content[7:]) == expected[path]
                elif path == b"-option" and entry.checksum is None:
                    # Its mode changed and nothing was sent: where it is another file then, its content is not known.
                    assert entry.content[:6] == expected[path][:6]
                else:
                    assert entry.content == expected[path], path
