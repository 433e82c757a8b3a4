"""Attributes that real rsync brings are read alike from the machine, and from storages with root and without."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import rsync_programs

from turku.core import command
from turku.core.filesystem import extended_attributes
from turku.core.filesystem.directory_tree import DirectoryTree as PlainTree
from turku.core.filesystem.paths import split
from turku.storage.catalog.scan import SnapshotReader

NOBODY = 65534
NAMES = (b"plain", b"user", b"trusted", b"capability", b"acl", b"narrow", b"mask", b"directory", b"minimal", b"link")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set trusted and security attributes")


def run(*words: str | Path) -> None:
    command.run([str(word) for word in words], timeout_seconds=60)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree of a machine, whose attributes its own tools made."""
    source = tmp_path / "source"
    source.mkdir()
    for name in NAMES:
        path = source / os.fsdecode(name)
        if name == b"directory":
            path.mkdir()
        elif name == b"link":
            path.symlink_to("plain")
        else:
            path.write_bytes(name)
            path.chmod(0o640)
    run("setfattr", "-n", "user.comment", "-v", "a note", source / "user")
    run("setfattr", "-n", "trusted.overlay", "-v", "y", source / "trusted")
    run("setfattr", "-h", "-n", "trusted.overlay", "-v", "y", source / "link")
    run(
        "setfattr",
        "-n",
        "security.capability",
        "-v",
        "0x0100000200200000000000000000000000000000",
        source / "capability",
    )
    run("setfacl", "-m", "u:1234:rw,g:55:r", source / "acl")
    run("setfacl", "-m", "u:7:r,u:3:rwx,m::r", source / "narrow")
    run("setfacl", "-m", "g::r,m::rw", source / "mask")
    run("setfacl", "-m", "m::r", source / "minimal")
    run("setfacl", "-d", "-m", "u:9:rwx,g:55:r", source / "directory")
    return source


@contextmanager
def opened(tree: Path) -> Iterator[int]:
    with PlainTree(tree) as found:
        yield found.root


def of_machine(tree: Path) -> dict[bytes, bytes]:
    """Return the digests that the agent would send."""
    with opened(tree) as root:
        return {name: extended_attributes.digest_of(extended_attributes.path_of(root, name)) or b"" for name in NAMES}


def of_storage(tree: Path, *, has_attributes: bool = True) -> dict[bytes, bytes | None]:
    """Return the digests that get into a catalog."""
    digests = {}
    with SnapshotReader(tree, has_attributes=has_attributes) as kept:
        for name in NAMES:
            directory = kept.find_directory(split(name)[0])
            assert directory is not None
            found = kept.entry(directory, name)
            assert found is not None
            digests[name] = found.attributes
            if found.kind == 0:
                digests[name] = kept.content(directory, name, found.size, found.attributes)[1]
    return digests


def test_a_storage_with_root_keeps_the_machine_s_own(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(rsync_programs.chosen.storage, "-aAX", f"{source}/", f"{target}/")
    expected = of_machine(source)
    assert [name for name, digest in expected.items() if not digest] == [b"plain", b"minimal"]
    assert len(set(expected.values())) == len(NAMES) - 2
    assert of_machine(target) == expected
    assert of_storage(target) == of_storage(target, has_attributes=False) == expected


@pytest.mark.parametrize("is_root", [True, False])
def test_attributes_that_fake_super_keeps_are_read_as_the_machine_has_them(
    source: Path, tmp_path: Path, is_root: bool
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    os.chown(target, NOBODY, NOBODY)
    for each in (tmp_path, *list(tmp_path.parents)[:3]):
        each.chmod(each.stat().st_mode | 0o011)
    receiver = tmp_path / "receiver"
    drop = "" if is_root else f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
    receiver.write_text(f'#!/bin/sh\nshift 2\nexec {drop}{rsync_programs.chosen.storage} "$@"\n')
    receiver.chmod(0o755)
    run(
        *(rsync_programs.chosen.machine, "-aAX", "--remote-option=--fake-super", "-e", receiver),
        *(f"{source}/", f"host:{target}/"),
    )
    assert of_storage(target) == of_machine(source)
