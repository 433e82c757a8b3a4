"""A restore by way of a staging directory gives the same as rsync would have made in the target itself.

It does not, on purpose, where rsync would have changed a file that has another name outside of the restored paths, and
where it would have gone by way of a symbolic link.
"""

import os
import random
import shutil
import struct
from collections.abc import Collection
from pathlib import Path

import pytest
from tests.support.landed_restore import TEMPORARY_NAME, LandedRestore, rsync
from tests.support.trees import differences

from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.agent.restore.file_metadata import EVERY_KIND
from turku.core import command
from turku.core.filesystem import posix_acl
from turku.errors import CommandFailed
from turku.protocol.restore_messages import Overwrite, Settable

NAMES = [b"a", b"b", b"c d", b"\xff\xfe", b"two\nlines", b"-x"]
ROUNDS = 6
NO_ID = 0xFFFFFFFF
MOMENTS = [1_600_000_000_000_000_000 + number * 10_000_000_001 for number in range(4)]


@pytest.fixture
def agent(tmp_path: Path) -> AgentConfig:
    directory = tmp_path / "configuration"
    (directory / "config.d").mkdir(parents=True)
    (directory / "config.d" / "config.json").write_text(
        f'{{"api_url": "https://turku.example.com/v1", "var_dir": "{tmp_path / "var"}"}}'
    )
    return configuration.load(directory)


def entry(chance: random.Random, path: bytes, files: list[bytes], depth: int) -> None:
    """Make something at the path."""
    kind = chance.choices(["file", "directory", "link", "fifo", "hard link"], [8, 5, 2, 1, 2])[0]
    if kind == "directory" and depth < 3:
        os.mkdir(path)
        for name in chance.sample(NAMES, chance.randrange(len(NAMES))):
            entry(chance, path + b"/" + name, files, depth + 1)
        if os.geteuid() == 0:
            os.chown(path, chance.choice([0, 65534]), chance.choice([0, 65534]))
        os.chmod(path, chance.choice([0o755, 0o700, 0o2775]))
    elif kind == "link":
        os.symlink(chance.choice([b"..", b"a", b"/etc", b"nowhere"]), path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "hard link" and files:
        os.link(chance.choice(files), path)
        return
    else:
        with open(path, "wb") as stream:
            stream.write(chance.choice([b"", b"x", b"content", b"CONTENT", b"\0" * 5000, b"long" * 3000]))
        if os.geteuid() == 0:
            os.chown(path, chance.choice([0, 65534]), chance.choice([0, 65534]))
        os.chmod(path, chance.choice([0o644, 0o600, 0o4755]))
        files.append(path)
    moment = chance.choice(MOMENTS)
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


def tree(chance: random.Random, root: Path) -> None:
    root.mkdir()
    files: list[bytes] = []
    for name in NAMES:
        if chance.random() < 0.8:
            entry(chance, os.fsencode(root) + b"/" + name, files, 0)


def changed(chance: random.Random, snapshot: Path, target: Path) -> None:
    """Make a target that has some of the snapshot, some of it changed, and some of its own."""
    command.run(["cp", "-a", snapshot, target], timeout_seconds=60)
    paths = [
        os.path.join(directory, name)
        for directory, directories, files in os.walk(os.fsencode(target))
        for name in [*directories, *files]
    ]
    own: list[bytes] = []
    for path in chance.sample(paths, len(paths) // 3):
        if not os.path.lexists(path):
            continue
        what = chance.choice(["remove", "replace", "time", "mode", "nothing"])
        if what in ("remove", "replace"):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
            own = [each for each in own if os.path.lexists(each)]
            if what == "replace":
                entry(chance, path, own, 1)
        elif what == "time":
            moment = chance.choice(MOMENTS)
            os.utime(path, ns=(moment, moment), follow_symlinks=False)
        elif what == "mode" and not os.path.islink(path):
            os.chmod(path, 0o640 if not os.path.isdir(path) else 0o711)


def decorate(chance: random.Random, root: Path) -> None:
    """Give some of the entries ACLs and attributes. Times stay."""
    for path in [root, *sorted(root.rglob("*"))]:
        if path.is_symlink():
            continue
        for name, value in (
            (posix_acl.ACCESS, acl(chance)),
            ("user.color", b"red" * chance.randrange(1, 3)),
            ("trusted.color", b"green" * chance.randrange(1, 3)),
            *([(posix_acl.DEFAULT, acl(chance))] if path.is_dir() else []),
        ):
            # A pipe has no attributes of users.
            if chance.random() < 0.3 and (path.is_dir() or path.is_file() or not name.startswith("user.")):
                os.setxattr(path, name, value)


def acl(chance: random.Random) -> bytes:
    """An ACL for one user more, in which the mask may be wider than what the group is allowed."""
    group, user, mask = (chance.randrange(8) for _ in range(3))
    entries = (
        (1, 7, NO_ID),
        (2, user, chance.choice([1234, 5678])),
        (4, group, NO_ID),
        (16, mask, NO_ID),
        (32, 4, NO_ID),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def without_kept_directories(found: list[str], overwrite: str) -> list[str]:
    """Leave out what differs on purpose: rsync changes a directory that is there also where nothing is to be."""
    return [line for line in found if overwrite != "never" or not line.startswith(".d")]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
@pytest.mark.parametrize("hard_links", [False, True], ids=["single", "hard links"])
@pytest.mark.parametrize("kinds", [(), EVERY_KIND], ids=["plain", "attributes"])
@pytest.mark.parametrize("delete", [False, True], ids=["keep", "delete"])
@pytest.mark.parametrize("overwrite", ["always", "older", "never"])
def test_the_target_is_as_rsync_would_have_left_it(
    agent: AgentConfig,
    tmp_path: Path,
    overwrite: Overwrite,
    delete: bool,
    hard_links: bool,
    kinds: Collection[Settable],
) -> None:
    compared = ["-AX"] if kinds else []
    options = [*(["-H"] if hard_links else []), *compared, *(["--sparse"] if kinds else [])]
    for number in range(ROUNDS):
        chance = random.Random(f"{overwrite} {delete} {hard_links} {number}")
        snapshot, target, oracle = (tmp_path / f"{name} {number}" for name in ("snapshot", "target", "oracle"))
        tree(chance, snapshot)
        changed(chance, snapshot, target)
        if kinds:
            decorate(chance, snapshot)
            decorate(chance, target)
        command.run(["cp", "-a", target, oracle], timeout_seconds=60)
        top = [os.fsencode(path.name) for path in snapshot.iterdir()]
        inner = [
            os.fsencode(path.relative_to(snapshot)) for path in snapshot.glob("*/*") if not path.parent.is_symlink()
        ]
        paths = tuple(sorted(chance.sample(top + inner, min(2, len(top))))) if number % 3 == 2 and top else ()
        if overwrite == "never" and any(
            path.is_dir() and not path.is_symlink() and not is_directory(target / path.relative_to(snapshot))
            for path in snapshot.rglob("*")
        ):
            # What is there stays, and rsync cannot make what belongs below it.
            continue
        try:
            for path in paths:
                (oracle / os.fsdecode(path)).parent.mkdir(exist_ok=True)
            (oracle / TEMPORARY_NAME).mkdir()
            rsync(snapshot, oracle, *options, paths=paths, overwrite=overwrite, delete=delete)
            status = oracle.stat()
            (oracle / TEMPORARY_NAME).rmdir()
            os.utime(oracle, ns=(status.st_atime_ns, status.st_mtime_ns))
        except (CommandFailed, FileExistsError, NotADirectoryError):
            # rsync does not come to its end: a directory that is not empty is in the way, or a file is above a path.
            continue
        with LandedRestore(agent, target, paths=paths, overwrite=overwrite, delete=delete, kinds=kinds) as landed:
            landed.rsync(snapshot, *options)
            placement = landed.place()
        assert placement.problems.named == [], number
        if paths:
            # What belongs to the paths is compared: times of directories above them are told by the storage.
            for path in paths:
                expected, placed = oracle / os.fsdecode(path), target / os.fsdecode(path)
                assert expected.is_dir() == placed.is_dir()
                if is_directory(expected):
                    found = differences(expected, placed, "--no-hard-links", "--omit-dir-times", *compared)
                    assert without_kept_directories(found, overwrite) == [], number
        else:
            found = differences(oracle, target, *compared, *([] if hard_links else ["--no-hard-links"]))
            assert without_kept_directories(found, overwrite) == [], number
        for each in (snapshot, target, oracle):
            shutil.rmtree(each)


def is_directory(path: Path) -> bool:
    return (path.is_dir() and not path.is_symlink()) or not os.path.lexists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
def test_zeros_that_arrive_are_not_taken_for_what_stood_where_their_inode_was(
    agent: AgentConfig, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_bytes(b"mine")
    with LandedRestore(agent, target) as landed:
        stood = (landed.tree / "old").stat().st_ino
        (landed.tree / "fresh").write_bytes(b"arrived")
        (landed.tree / "fresh").rename(landed.tree / "old")
        names = [f"zeros-{number}" for number in range(200)]
        for name in names:
            with (landed.tree / name).open("wb") as stream:
                stream.truncate(4096)
        if all((landed.tree / name).stat().st_ino != stood for name in names):
            pytest.skip("this file system gives no inode's number twice")
        placement = landed.place()
    assert placement.problems.named == []
    assert (target / "old").read_bytes() == b"arrived"
    assert {(target / name).read_bytes() for name in names} == {b"\0" * 4096}


def test_a_default_acl_of_the_target_opens_nothing_where_no_acls_are_sent(agent: AgentConfig, tmp_path: Path) -> None:
    # As by a storage that does not know of them.
    snapshot, target = tmp_path / "snapshot", tmp_path / "target"
    (snapshot / "directory").mkdir(parents=True)
    for path in (snapshot / "file", snapshot / "directory" / "file"):
        path.write_text("secret")
        path.chmod(0o640)
    target.mkdir()
    os.setxattr(target, posix_acl.DEFAULT, posix_acl.SAMPLE)
    for name in ("whole", "entry by entry"):
        with LandedRestore(agent, target) as landed:
            landed.rsync(snapshot)
            if name != "whole":
                (landed.tree / "directory" / "unnamed").write_text("keeps the directory from being moved whole")
            named = {b"file", b"directory/file"}
            landed.place(is_named=named.__contains__)
        for path in (target / "file", target / "directory", target / "directory" / "file"):
            assert not any(each.startswith("system.") for each in os.listxattr(path)), (name, path)
        shutil.rmtree(target / "directory")
        (target / "file").unlink()
