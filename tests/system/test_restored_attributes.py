"""ACLs, attributes, hard links, holes and times come back with the files, and a file never comes back more open."""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine

from turku.core import command
from turku.core.command import CompletedProgram
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.storage.disk import snapshot_notes
from turku.storage.disk.source_directory import SourceDirectory

EVERYTHING = range(256)
PARTLY = 3
NOBODY = 65534
FRIEND = 12_345
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
DEFAULT_ACL = f"u:{FRIEND}:rwx"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root sets what only root may set")


def output(completed: CompletedProgram) -> str:
    return "\n".join((completed.stdout.decode(), *completed.last_lines))


def restore(machine: PrivateMachine, *words: str | Path, code: int = 0) -> str:
    arguments = ("--config-dir", machine.config_dir, "home", *words)
    completed = programs.run("turku-agent", "restore", *arguments, expected_codes=EVERYTHING)
    assert completed.exit_code == code, output(completed)
    return output(completed)


def acl(path: Path, *words: str) -> None:
    command.run(["setfacl", *words, path], timeout_seconds=30)


def make(tree: Path) -> None:
    """Files of which each has something that is more than content, owner, mode and time."""
    for name in ("friend", "plain", "attributes", "capable", "first", "sparse", "zeros"):
        (tree / name).write_text(name)
        (tree / name).chmod(0o640)
    (tree / "directory" / "inner").mkdir(parents=True)
    (tree / "directory" / "inner" / "file").write_text("file")
    os.link(tree / "first", tree / "directory" / "second")
    for name, size in (("sparse", 50 * 2**20), ("zeros", 3 * 2**20)):
        os.truncate(tree / name, 0 if name == "zeros" else 6)
        os.truncate(tree / name, size)
    (tree / "link").symlink_to("plain")
    os.mkfifo(tree / "pipe")


def equip(tree: Path) -> None:
    """Give them attributes that backups may not bring yet, and once more those that they had."""
    # The group may nothing, and the mask, which stands in the mode, says more.
    for name in ("friend", "directory/inner/file", "pipe"):
        acl(tree / name, "-m", f"u:{FRIEND}:rw,g::---,m::rw")
    acl(tree / "directory", "-m", f"u:{FRIEND}:rx,g::---,m::rx")
    acl(tree / "directory" / "inner", "-d", "-m", f"u:{FRIEND}:rw")
    os.setxattr(tree / "attributes", "user.origin", b"somewhere")
    os.setxattr(tree / "directory", "user.note", b"\0binary\xff")
    os.setxattr(tree / "capable", "security.capability", CAPABILITY)
    for number, path in enumerate(sorted(tree.rglob("*"))):
        moment = 1_500_000_000_123_456_789 + number
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    for path in (tree / "directory" / "inner", tree / "directory", tree):
        os.utime(path, ns=(1_400_000_000_987_654_321, 1_400_000_000_987_654_321))


def facts(tree: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[object, ...]]:
    """All of each entry that a restore brings back."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (tree, *sorted(tree.rglob("*"))):
        status = path.lstat()
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        found[str(path.relative_to(tree))] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            {name: value for name, value in attributes.items() if name not in without},
            path.read_bytes()[:100] if stat.S_ISREG(status.st_mode) else None,
            status.st_nlink if stat.S_ISREG(status.st_mode) else None,
        )
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "home"
    tree.mkdir()
    make(tree)
    equip(tree)
    return tree


def backed_up(fleet: Fleet, machine: PrivateMachine) -> None:
    """Back up, and have in the snapshot whatever a backup left out."""
    machine.ping()
    [snapshot] = fleet.snapshots(machine, "home")
    if not (snapshot / "directory" / "second").samefile(snapshot / "first"):
        (snapshot / "directory" / "second").unlink()
        os.link(snapshot / "first", snapshot / "directory" / "second")
    equip(snapshot)
    place = SourceDirectory(snapshot.parent.parent.resolve(), "home")
    snapshot_notes.change(place, snapshot.name, preserved=("acls", "attributes", "privileged"))


@pytest.fixture
def machine(fleet: Fleet, make_machine: MakeMachine, source: Path) -> PrivateMachine:
    machine = make_machine({"home": {"path": str(source)}})
    backed_up(fleet, machine)
    return machine


def test_everything_comes_back_into_a_directory_whose_default_acl_says_otherwise(
    machine: PrivateMachine, source: Path, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    acl(above, "-d", "-m", DEFAULT_ACL)
    printed = restore(machine, "--to", above / "new")
    assert facts(above / "new") == facts(source)
    assert "cannot be set" not in printed
    assert (above / "new" / "first").samefile(above / "new" / "directory" / "second")
    for name in ("sparse", "zeros"):
        assert (above / "new" / name).stat().st_blocks * 512 < 1024 * 1024

    # A directory that is there, with a default ACL of its own, which it keeps: it is the restored files' that count.
    there = tmp_path / "there"
    there.mkdir()
    acl(there, "-d", "-m", DEFAULT_ACL)
    restore(machine, "--to", there, "plain", "directory", "friend")
    ours, theirs = facts(source), facts(there)
    for name in ("plain", "directory", "directory/inner", "directory/inner/file", "friend"):
        assert theirs[name] == ours[name]


def test_existing_files_get_their_attributes_back(machine: PrivateMachine, source: Path, tmp_path: Path) -> None:
    was = facts(source)

    def changed() -> None:
        acl(source / "friend", "-b")
        (source / "friend").chmod(0o600)
        acl(source / "plain", "-m", f"u:{FRIEND}:rw")
        acl(source / "directory", "-b")
        acl(source / "directory" / "inner", "-k")
        acl(source / "directory" / "inner", "-m", f"u:{FRIEND}:rwx")
        acl(source / "pipe", "-b")
        os.setxattr(source / "attributes", "user.origin", b"elsewhere")
        os.setxattr(source / "plain", "user.more", b"more")
        os.removexattr(source / "directory", "user.note")
        os.removexattr(source / "capable", "security.capability")
        os.chown(source / "plain", 1, 2)

    changed()
    restore(machine, "--in-place", "--yes", "--overwrite", "never")
    assert facts(source) != was
    changed_facts = facts(source)
    restore(machine, "--in-place", "--yes", "--overwrite", "never")
    assert facts(source) == changed_facts

    restore(machine, "--in-place", "--yes")
    assert facts(source) == was
    # What the snapshot does not have keeps its own.
    (source / "mine").write_text("mine")
    (source / "ours").mkdir()
    for name in ("mine", "ours"):
        acl(source / name, "-m", f"u:{FRIEND}:rw")
        os.setxattr(source / name, "user.mine", b"mine")
    mine = facts(source)
    restore(machine, "--in-place", "--yes")
    now = facts(source)
    assert {name: now[name] for name in ("mine", "ours")} == {name: mine[name] for name in ("mine", "ours")}
    # A label of this machine is nothing to be removed.
    os.setxattr(source / "friend", "security.selinux", b"label")
    (source / "friend").chmod(0o600)
    restore(machine, "--in-place", "--yes")
    assert os.getxattr(source / "friend", "security.selinux") == b"label"
    os.removexattr(source / "friend", "security.selinux")
    assert facts(source)["friend"] == was["friend"]


def test_attributes_that_a_snapshot_was_not_made_with_stay(
    fleet: Fleet, make_machine: MakeMachine, source: Path
) -> None:
    machine = make_machine({"home": {"path": str(source)}})
    machine.ping()
    [snapshot] = fleet.snapshots(machine, "home")
    for path in (snapshot, *snapshot.rglob("*")):
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)
    equip(source)
    was = facts(source)
    snapshot_notes.change(SourceDirectory(snapshot.parent.parent.resolve(), "home"), snapshot.name, preserved=())
    restore(machine, "--in-place", "--yes")
    assert {name: each[4] for name, each in facts(source).items()} == {name: each[4] for name, each in was.items()}


@contextmanager
def skipped_attributes(directory: Path) -> Iterator[Path]:
    """A file system in memory that keeps neither ACLs nor attributes."""
    directory.mkdir()
    command.run(["mount", "-t", "ramfs", "none", directory], timeout_seconds=30)
    try:
        yield directory
    finally:
        command.run(["umount", "-l", directory], timeout_seconds=30)


def test_nobody_may_more_where_no_acl_can_be_set(machine: PrivateMachine, source: Path, tmp_path: Path) -> None:
    with skipped_attributes(tmp_path / "plain file system") as plain:
        printed = restore(machine, "--to", plain / "new", code=PARTLY)
        for name in ("friend", "directory", "directory/inner", "directory/inner/file", "pipe"):
            assert f"{name} is restored without its ACL" in printed, printed
        assert "1 file restored without the attribute user.origin" in printed
        assert "1 file restored without the attribute security.capability" in printed
        for name, mode in (("friend", 0o600), ("plain", 0o640), ("directory", 0o705), ("directory/inner/file", 0o604)):
            assert oct(stat.S_IMODE((plain / "new" / name).stat().st_mode)) == oct(mode), name
        # Once more over it, and a single file, whose directory has to be made.
        restore(machine, "--to", plain / "new", "--yes", code=PARTLY)
        assert stat.S_IMODE((plain / "new" / "friend").stat().st_mode) == 0o600
        printed = restore(machine, "directory/inner/file", "--to", plain / "one", code=PARTLY)
        assert "directory was created without its ACL" in printed
        assert stat.S_IMODE((plain / "one" / "directory").stat().st_mode) == 0o705

        # Such a file system mounted within the target.
        (source / "directory").rename(source / "former")
        (source / "directory").mkdir()
        command.run(["mount", "--bind", plain, source / "directory"], timeout_seconds=30)
        try:
            printed = restore(machine, "directory", "friend", "--in-place", "--yes", code=PARTLY)
            assert "directory/inner/file is restored without system.posix_acl_access" in printed
            assert stat.S_IMODE((source / "directory" / "inner" / "file").stat().st_mode) == 0o604
        finally:
            command.run(["umount", source / "directory"], timeout_seconds=30)


def test_an_ordinary_user_gets_what_that_user_may_set() -> None:
    # Where other users can get at it.
    directory = Path(tempfile.mkdtemp(prefix="turku-restored-"))
    try:
        directory.chmod(0o711)
        source = directory / "home"
        source.mkdir()
        make(source)
        equip(source)
        with Fleet(directory / "fleet") as fleet:
            fleet.directory.chmod(0o711)
            fleet.storage("primary")
            machine = fleet.machine("web-0", {"home": {"path": str(source)}})
            backed_up(fleet, machine)
            (directory / "target").mkdir()
            command.run(
                ["chown", "-R", f"{NOBODY}:{NOBODY}", directory / "fleet" / "web-0", directory / "target"],
                timeout_seconds=30,
            )
            agent = shutil.which("turku-agent", path=str(programs.DIRECTORY))
            assert agent is not None
            user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            words = ["restore", "home", "--to", f"{directory}/target/new", "--config-dir", str(machine.config_dir)]
            made = command.run([*user, agent, *words], timeout_seconds=120, check=False)
            printed = output(made)
            assert made.exit_code == 0, printed
            assert "1 file restored without the attribute security.capability" in printed
            ours, theirs = facts(source, without=("security.capability",)), facts(directory / "target" / "new")
            for name, (mode, _uid, _gid, *rest) in ours.items():
                assert (mode, *rest) == (theirs[name][0], *theirs[name][3:]), name
    finally:
        shutil.rmtree(directory)


def test_a_storage_that_keeps_them_in_attributes_of_rsyncs_own_gives_them_back(source: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path / "fleet") as fleet:
        fleet.storage("primary", fake_super=True)
        machine = fleet.machine("web-0", {"home": {"path": str(source)}})
        machine.ping()
        [snapshot] = fleet.snapshots(machine, "home")
        # As a storage without root receives them, twice, as rsync 3.5.0 forgets the ACL of a directory that it makes
        # where that has attributes too.
        options = ["-aAXH", "--sparse", "--ignore-times", "-M--fake-super", f"{source}/", f"{snapshot}/"]
        for _time in range(2):
            command.run(["rsync", *options], timeout_seconds=60)
        os.utime(snapshot, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
        place = SourceDirectory(snapshot.parent.parent.resolve(), "home")
        snapshot_notes.change(place, snapshot.name, preserved=("acls", "attributes", "privileged"))
        restore(machine, "--to", tmp_path / "new")
        assert facts(tmp_path / "new") == facts(source)
        with skipped_attributes(tmp_path / "plain") as plain:
            printed = restore(machine, "--to", plain / "new", code=PARTLY)
            assert "friend is restored without its ACL" in printed
            assert "1 file restored without the attribute security.capability" in printed
            assert "1 file restored without the attribute user.origin" in printed
            for name, mode in (("friend", 0o600), ("plain", 0o640), ("directory", 0o705)):
                assert oct(stat.S_IMODE((plain / "new" / name).stat().st_mode)) == oct(mode), name


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_target_that_a_restore_makes_becomes_what_the_source_is_also_where_nothing_is_overwritten(
    fleet: Fleet, machine: PrivateMachine, source: Path, tmp_path: Path, is_interrupted: bool
) -> None:
    target = tmp_path / "new"
    words = ("--to", target, "--overwrite", "never", "--yes")
    if is_interrupted:
        storage = fleet.storage_of(machine)
        broken = storage.config_dir / "config.d" / "zz-broken.json"
        broken.write_text(json.dumps({"rsync_command": ["sh", "-c", "exit 12"], "sandbox": "off"}))
        restore(machine, *words, code=4)
        broken.unlink()
        assert target.is_dir()
    restore(machine, *words)
    assert facts(target) == facts(source)
    # One that is there keeps what it has.
    (tmp_path / "there").mkdir(mode=0o711)
    restore(machine, "--to", tmp_path / "there", "--overwrite", "never", "--yes")
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o711


def test_labels_of_a_snapshot_come_back(make_machine: MakeMachine, source: Path, tmp_path: Path) -> None:
    for path in (source, *source.rglob("*")):
        os.setxattr(path, "security.selinux", b"system_u:object_r:etc_t:s0\0", follow_symlinks=False)
    was = facts(source)
    machine = make_machine({"home": {"path": str(source)}})
    machine.ping()
    printed = restore(machine, "--to", tmp_path / "new")
    assert "NOT" not in printed
    assert facts(tmp_path / "new") == was
    for path in (source / "friend", source / "link"):
        os.setxattr(path, "security.selinux", b"another", follow_symlinks=False)
    restore(machine, "--in-place", "--yes")
    assert facts(source) == was
