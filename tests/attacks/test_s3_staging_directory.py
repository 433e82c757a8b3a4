"""S3, the staging directory of a restore: whatever is brought into it, by whatever means, a storage reaches the names that
were asked for, and what is below them, and nothing else.

Most attacks here do by hand what an attacker could do who runs code of his choice in rsync's receiver: that is more than
any option or stream can make rsync do.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.conftest import StartPing
from tests.attacks.test_s3_restore import END, MODULE, PLAN, Opened, manifest, opened
from tests.integration.agent.conftest import Machine, wait_for
from tests.support.hostile_storage import HostileStorage, identity, roots_of_rsyncd
from tests.support.landed_restore import LandedRestore
from tests.support.trees import differences

from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.core import command
from turku.errors import RestoreFailed
from turku.protocol.restore_messages import Overwrite

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes devices, and files of other users")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home directory, of which ``docs`` is to be restored."""
    home = tmp_path / "home"
    for name in ("docs/file", "docs/deep/inner", "root/.ssh/authorized_keys", "other/file", "passwd"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("mine")
    (home / "docs" / "out").symlink_to("../other")
    os.link(home / "other" / "file", home / "docs" / "shared")
    yield home
    # Deeper than Python's own removal goes.
    command.run(["rm", "-rf", "--", home], timeout_seconds=60)


@pytest.fixture
def agent(tmp_path: Path) -> AgentConfig:
    directory = tmp_path / "configuration"
    (directory / "config.d").mkdir(parents=True)
    content = {"api_url": "https://turku.example.com/v1", "var_dir": str(tmp_path / "var")}
    (directory / "config.d" / "config.json").write_text(json.dumps(content))
    return configuration.load(directory)


def around(home: Path) -> dict[str, tuple[Any, ...]]:
    """Everything of the home directory but ``docs``, and staging directories."""
    found = {}
    top = [path for path in home.iterdir() if path.name != "docs" and not path.name.startswith(".turku-restore-")]
    for path in [*top, *(inner for each in top for inner in each.rglob("*"))]:
        status = path.lstat()
        content = path.read_text() if path.is_file() else ""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino, content)
    return found


def links_then_through(tree: Path) -> None:
    (tree / "docs" / "x").symlink_to("../root/.ssh")
    (tree / "docs" / "absolute").symlink_to(tree.parent.parent / "other")
    (tree / "root" / ".ssh").mkdir(parents=True)
    (tree / "docs" / "x" / "authorized_keys").write_text("PLANTED")


def directory_over_a_link(tree: Path) -> None:
    (tree / "docs" / "out").unlink(missing_ok=True)
    (tree / "docs" / "out").mkdir()
    (tree / "docs" / "out" / "file").write_text("PLANTED")


def link_over_the_path(tree: Path) -> None:
    shutil.rmtree(tree / "docs")
    (tree / "docs").symlink_to("root/.ssh")


def links_above(tree: Path) -> None:
    for name in ("root", "other"):
        (tree / name).symlink_to("docs")


def basis_files_written(tree: Path) -> None:
    for path in (tree / "docs").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_text("PLANTED")
            path.chmod(0o6777)
            os.utime(path, (1, 1))


def basis_files_of_others(tree: Path) -> None:
    for path in (tree / "docs").rglob("*"):
        if path.is_file() and not path.is_symlink() and os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(0o777)


def basis_files_linked_and_renamed(tree: Path) -> None:
    (tree / "other").mkdir()
    os.link(tree / "docs" / "file", tree / "other" / "file")
    os.link(tree / "docs" / "shared", tree / "docs" / "again")
    (tree / "docs" / "file").rename(tree / "docs" / "deep" / "inner")


def names_not_asked_for(tree: Path) -> None:
    for name in ("passwd", "other/file", "root/.ssh/authorized_keys", "new", "docs more"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("PLANTED")


def everything_removed(tree: Path) -> None:
    shutil.rmtree(tree / "docs")


def endless_depth(tree: Path) -> None:
    # As deep as a path can be named. Each step is a level that recursion, or a descriptor a level, would end at.
    descriptor = os.open(tree / "docs", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def times_out_of_range(tree: Path) -> None:
    # As far as file systems go: beyond what 64 bits of nanoseconds hold.
    (tree / "docs" / "new").mkdir()
    for path in (tree / "docs" / "new", tree / "docs" / "deep", tree / "docs" / "file", tree / "docs"):
        os.utime(path, (15_000_000_000, 15_000_000_000))


def special_files(tree: Path) -> None:
    os.mkfifo(tree / "docs" / "pipe")
    if os.geteuid() == 0:
        (tree / "docs" / "file").unlink()
        os.mknod(tree / "docs" / "file", 0o020666, os.makedev(1, 3))


ATTACKS: list[Callable[[Path], None]] = [
    links_then_through,
    directory_over_a_link,
    link_over_the_path,
    links_above,
    basis_files_written,
    basis_files_of_others,
    basis_files_linked_and_renamed,
    names_not_asked_for,
    everything_removed,
    endless_depth,
    times_out_of_range,
    special_files,
]


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "broken"])
@pytest.mark.parametrize("delete", [True, False], ids=["delete", "keep"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_s3_whatever_is_in_the_staging_directory_nothing_around_is_touched(
    agent: AgentConfig, home: Path, attack: Callable[[Path], None], delete: bool, is_whole: bool
) -> None:
    before = around(home)
    with LandedRestore(agent, home, paths=(b"docs",), delete=delete) as landed:
        attack(landed.tree)
        landed.place(is_whole=is_whole)
    assert around(home) == before


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_s3_nor_by_the_names_of_a_manifest(agent: AgentConfig, home: Path, attack: Callable[[Path], None]) -> None:
    before = around(home)
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        attack(landed.tree)
        placement = landed.place(is_named=lambda path: False)
    assert around(home) == before
    found = command.run(["find", home / "docs", "!", "-type", "d", "-printf", "%f\n"], timeout_seconds=60).stdout
    new = set(found.decode().split()) - {"file", "inner", "out", "shared"}
    assert new <= {"again"}, "what no manifest names is not restored"
    assert attack is not special_files or placement.problems.count


def test_s3_a_basis_file_shares_nothing_with_the_user_s_file(agent: AgentConfig, home: Path) -> None:
    with LandedRestore(agent, home) as landed:
        mine = {path.lstat().st_ino for path in home.rglob("*") if landed.tree not in path.parents}
        basis_files = [path for path in landed.tree.rglob("*") if path.is_file()]
        assert basis_files
        assert not mine & {path.lstat().st_ino for path in basis_files}
        assert [path.read_bytes() for path in basis_files if path.read_bytes().strip(b"\0")] == []
        assert not any(path.is_symlink() for path in landed.tree.rglob("*"))
        assert landed.tree.parent.stat().st_mode & 0o7777 == 0o700


def test_s3_a_basis_file_is_never_restored_over_the_user_s_file(agent: AgentConfig, home: Path) -> None:
    # The number of an inode comes again: what arrives gets one that stood for another file, or for the same one.
    for number in range(300):
        (home / "docs" / f"f{number}").write_text(f"mine {number}")
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        for number in range(0, 300, 2):
            path = landed.tree / "docs" / f"f{number}"
            path.unlink()
            path.write_text(f"arrived {number}")
        landed.place()
    for number in range(300):
        assert (home / "docs" / f"f{number}").read_text() == f"{'mine' if number % 2 else 'arrived'} {number}"


def test_s3_a_link_that_comes_into_the_target_meanwhile_is_not_followed(agent: AgentConfig, home: Path) -> None:
    before = around(home)
    with LandedRestore(agent, home, paths=(b"docs/deep",)) as landed:
        (landed.tree / "docs" / "deep" / "authorized_keys").write_text("PLANTED")
        # Another user of this machine, in a directory that is his.
        shutil.rmtree(home / "docs")
        (home / "docs").symlink_to("root")
        placement = landed.place()
    assert around(home) == before
    assert placement.problems.count
    with pytest.raises(RestoreFailed, match="symbolic link"), LandedRestore(agent, home / "docs" / ".ssh"):
        pass


def test_s3_a_staging_directory_that_is_moved_away_is_still_the_one_that_is_written(
    agent: AgentConfig, home: Path
) -> None:
    with LandedRestore(agent, home) as landed:
        landed.tree.parent.rename(home / "elsewhere")
        landed.tree.parent.symlink_to("root")
        Path(landed.staging.module_path, "docs", "new").write_text("arrived")
        assert not (home / "root" / "docs").exists()
        assert (home / "elsewhere" / "tree" / "docs" / "new").read_text() == "arrived"
        landed.place(is_whole=False, is_named=lambda path: True)
    assert (home / "docs" / "new").read_text() == "arrived"


@ROOT
def test_s3_attributes_go_to_no_other_name_of_the_user_s_file(agent: AgentConfig, home: Path) -> None:
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        (landed.tree / "docs" / "shared").chmod(0o4777)
        os.chown(landed.tree / "docs" / "shared", 65534, 65534)
        landed.place()
    assert (home / "other" / "file").stat().st_mode & 0o7777 == 0o644
    assert (home / "other" / "file").stat().st_uid == 0
    assert (home / "docs" / "shared").read_text() == "mine"
    assert (home / "docs" / "shared").stat().st_uid == 65534


@ROOT
def test_s3_nor_where_the_file_has_several_names_inside(agent: AgentConfig, home: Path) -> None:
    os.link(home / "docs" / "shared", home / "docs" / "deep" / "shared too")
    before = (home / "other" / "file").stat()
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        os.chown(landed.tree / "docs" / "shared", 65534, 65534)
        (landed.tree / "docs" / "shared").chmod(0o4755)
        landed.place()
    after = (home / "other" / "file").stat()
    assert (after.st_mode, after.st_uid, after.st_ino) == (before.st_mode, before.st_uid, before.st_ino)
    names = [(home / "docs" / "shared").stat(), (home / "docs" / "deep" / "shared too").stat()]
    assert [status.st_uid for status in names] == [65534, 65534]
    # They are one file still, of their own.
    assert names[0].st_ino == names[1].st_ino != before.st_ino
    assert names[0].st_nlink == 2


@ROOT
@pytest.mark.parametrize("overwrite", ["never", "older", "always"])
def test_s3_a_file_that_is_not_to_be_overwritten_keeps_its_attributes_too(
    agent: AgentConfig, home: Path, overwrite: Overwrite
) -> None:
    (home / "docs" / "file").chmod(0o600)
    (home / "docs" / "deep").chmod(0o700)
    with LandedRestore(agent, home, paths=(b"docs",), overwrite=overwrite) as landed:
        (landed.tree / "docs" / "new").mkdir()
        for name, mode in (("file", 0o4777), ("deep", 0o2777), ("new", 0o2750)):
            os.chown(landed.tree / "docs" / name, 65534, 65534)
            (landed.tree / "docs" / name).chmod(mode)
            os.utime(landed.tree / "docs" / name, (1, 1))
        landed.place()
    found = {}
    for name in ("file", "deep", "new"):
        status = (home / "docs" / name).stat()
        found[name] = (status.st_mode & 0o7777, status.st_uid, status.st_mtime == 1)
    is_kept = overwrite == "never"
    assert found == {
        "file": (0o600, 0, False) if is_kept else (0o4777, 65534, True),
        "deep": (0o700, 0, False) if is_kept else (0o2777, 65534, True),
        # What was not there gets its own.
        "new": (0o2750, 65534, True),
    }


@ROOT
@pytest.mark.parametrize("kind", ["pipe", "link", "file"])
def test_n4_the_owner_of_a_directory_on_another_file_system_swaps_nothing(
    agent: AgentConfig, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # The file system's boundary, and the user who is quick, are played.
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    rename, utime, chmod = os.rename, os.utime, os.chmod
    swapped: list[str] = []

    def across(source: Any, target: Any, **where: Any) -> None:
        if where.get("src_dir_fd") is not None and source == target == b"new" and not swapped:
            swapped.append("boundary")
            raise OSError(errno.EXDEV, "across")
        rename(source, target, **where)

    def swap(*_arguments: Any, **_options: Any) -> None:
        # The owner of docs replaces what is made there under a name of ours, but nothing in a directory of root's.
        for path in (home / "docs").iterdir():
            if "turku" in path.name and not path.is_dir():
                path.unlink()
                path.symlink_to(secret)
                swapped.append(path.name)

    monkeypatch.setattr(os, "rename", across)
    monkeypatch.setattr(os, "chmod", lambda *a, **o: (swap(), chmod(*a, **o))[1])
    monkeypatch.setattr(os, "utime", lambda *a, **o: (swap(), utime(*a, **o))[1])
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        new = landed.tree / "docs" / "new"
        makers: dict[str, Callable[[Path], object]] = {
            "pipe": os.mkfifo,
            "link": lambda path: path.symlink_to("file"),
            "file": lambda path: path.write_text("x"),
        }
        makers[kind](new)
        if kind != "link":
            chmod(new, 0o666)
        os.chown(new, 65534, 65534, follow_symlinks=False)
        landed.place()
    assert swapped[:1] == ["boundary"]
    status = secret.stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o600, 0)
    placed = (home / "docs" / "new").lstat()
    assert placed.st_uid == 65534
    assert [path.name for path in (home / "docs").iterdir() if "turku" in path.name] == []


@pytest.mark.parametrize("delete", [False, True])
def test_s3_a_directory_of_the_user_s_that_is_not_empty_stays(agent: AgentConfig, home: Path, *, delete: bool) -> None:
    with LandedRestore(agent, home, paths=(b"docs",), delete=delete) as landed:
        # Made while the files come: nothing stands for it.
        (home / "docs" / "new").mkdir()
        (home / "docs" / "new" / "kept").write_text("mine")
        (landed.tree / "docs" / "new").write_text("arrived")
        placement = landed.place()
    # Unless deleting was asked for.
    assert (home / "docs" / "new").is_file() == delete
    assert delete or (home / "docs" / "new" / "kept").read_text() == "mine"
    assert placement.problems.count == (0 if delete else 1)


def test_s3_a_directory_where_a_file_arrived_bars_no_later_run(agent: AgentConfig, home: Path) -> None:
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        landed.basis_files.remove(landed.staging.tree)
        landed.staging.record_basis_files(are_there=False)
        (landed.tree / "docs" / "new").write_text("arrived")
    (home / "docs" / "new" / "inner").mkdir(parents=True)
    with LandedRestore(agent, home, paths=(b"docs",)) as landed:
        assert landed.staging.is_resumed
        assert (landed.tree / "docs" / "new").read_text() == "arrived"
        assert landed.place(is_whole=False).problems.count == 1
    assert (home / "docs" / "new" / "inner").is_dir()


def test_s3_leftovers_have_no_links_that_a_later_storage_could_go_by(agent: AgentConfig, home: Path) -> None:
    empty = home / "empty"
    with LandedRestore(agent, empty) as landed:
        (landed.tree / "way").symlink_to(home / "root")
        os.mkfifo(landed.tree / "pipe")
        (landed.tree / "file").write_text("arrived")
    with LandedRestore(agent, empty) as landed:
        assert landed.staging.is_resumed
        assert [path.name for path in landed.tree.iterdir() if path.name[0] != "."] == ["file"]
        landed.place()
    assert sorted(path.name for path in empty.iterdir()) == ["file"]


def test_s3_leftovers_of_another_restore_are_removed_and_not_used(agent: AgentConfig, home: Path) -> None:
    empty = home / "empty"
    with LandedRestore(agent, empty) as landed:
        (landed.tree / "file").write_text("of another snapshot")
    with LandedRestore(agent, empty, order="another") as landed:
        assert not landed.staging.is_resumed
        assert len(list(empty.iterdir())) == 1
        landed.place()
    assert list(empty.iterdir()) == []


# --- one session with real programs, in which everything is tried


@ROOT
def test_s3_s4_a_hostile_storage_tries_everything_in_one_restore(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, home: Path, tmp_path: Path
) -> None:
    machine.source("etc", home)
    machine.api.due = set()
    open_session("--version").wait(timeout=30)
    key = (machine.var_dir / "ssh_key.pub").read_text().strip()
    machine.sshd.authorized_keys.write_text(hostile.line(key, "restore"))
    before = around(home)
    names = ["docs/new", "docs/setuid", "docs/y/file", "passwd", "../passwd", "/etc/shadow", "docs/x/authorized_keys"]
    sent = [manifest(*names[:4], "docs/x/authorized_keys", **{"docs/x": "../root/.ssh"})]
    sent += [manifest(name) for name in names[4:6]] + [{"row": "deleted", "paths": ["passwd", "../x"]}, END]
    # It says that little comes: what comes beyond it is not taken.
    parents = [["root", 0o777, 65534, 65534, [0, 0]]]
    hostile.will_say([{**PLAN, "files": 12, "size_bytes": 1000, "parents": parents}], sent)
    process = machine.start("turku-agent", "restore", "etc", "docs", "--in-place", "--yes")
    wait_for(lambda: hostile.has_go or process.poll() is not None)
    assert hostile.has_go, process.communicate()
    restore = Opened(process, hostile)
    tree = tmp_path / "loot"
    for name in ("docs/new", "docs/y/file", "passwd", "other/file", "root/.ssh/authorized_keys", "docs/out/file"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("PLANTED")
    (tree / "docs" / "x").symlink_to("../root/.ssh")
    (tree / "docs" / "setuid").write_text("#!/bin/sh")
    (tree / "docs" / "setuid").chmod(0o6777)
    os.mknod(tree / "docs" / "device", 0o020666, os.makedev(1, 3))
    os.link(tree / "docs" / "new", tree / "docs" / "linked")
    with (tree / "docs" / "huge").open("wb") as stream:
        stream.truncate(3 * 10**9)
    # Links, devices, setuid, hard links, directories over links, names outside, deletes, and a file without an end, slowly.
    sender = restore.hostile.start_rsync(
        *("-aH", "--ignore-times", "--keep-dirlinks", "--inplace", "--force", "--whole-file", "--bwlimit=200000"),
        f"{tree}/",
        f"rsync://{{}}/{MODULE}/",
    )
    wait_for(lambda: roots_of_rsyncd(process.pid))
    assert roots_of_rsyncd(process.pid) <= {identity(path) for path in home.rglob(".turku-restore-*/tree")}
    # A second connection, and all that it could want: refused.
    for options, to in (((), "/"), ((), "/docs/x/"), ((), "/../"), (("--delete",), "/docs/"), ((), "//etc/")):
        assert restore.push(*options, tree=tree / "docs" / "y", to=to).returncode != 0
    assert hostile.rsync("-a", f"rsync://{{}}/{MODULE}/", f"{tmp_path / 'stolen'}/").returncode != 0
    assert sender.wait(60) != 0, "the file without an end is cut off"
    code, said = restore.end()
    assert code in (3, 4), said
    assert "internal" not in said
    assert around(home) == before
    assert (home / "docs" / "file").read_text() == "mine"
    assert not (home / "docs" / "huge").exists()
    largest = max((path.lstat().st_blocks * 512 for path in home.rglob("*") if path.is_file()), default=0)
    assert largest < 200 * 2**20
    wait_for(lambda: machine.processes() == [])
    assert restore.push(tree=tree).returncode != 0


def test_s4_more_than_the_plan_said_ends_the_restore(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, home: Path
) -> None:
    sent = [manifest(*(f"f{number}-{line}" for number in range(400))) for line in range(20)]
    restore = opened(
        machine,
        hostile,
        open_session,
        *("docs", "--to", home),
        plan={**PLAN, "files": 5, "size_bytes": 5},
        answers=[*sent, END],
    )
    restore.hostile.release()
    _stdout, stderr = restore.process.communicate(timeout=60)
    assert restore.process.returncode != 0
    assert "more than its plan said" in stderr, stderr[:800]


def test_s4_the_links_of_a_manifest_take_no_memory(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, home: Path
) -> None:
    lines = [
        {
            "row": "manifest",
            "entries": [[f"l{line}-{number}", "link", 0, [0, 0], False, None, "x" * 4000] for number in range(240)],
        }
        for line in range(200)
    ]
    restore = opened(machine, hostile, open_session, "--to", home, answers=[*lines, END])
    hostile.release()
    largest = 0
    end = time.monotonic() + 100
    while time.monotonic() < end and restore.process.poll() is None:
        largest = max(largest, resident_kib(restore.process.pid))
        time.sleep(0.02)
    restore.process.communicate(timeout=60)
    assert 0 < largest < 130 * 1024, f"{largest // 1024} MiB for what the storage said"


def resident_kib(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


@ROOT
def test_s2_s3_a_hostile_storage_tries_everything_in_one_backup(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (home / "docs" / "away").symlink_to(tmp_path / "outside")
    machine.source("etc", home / "docs")
    machine.source("later", home / "other")
    machine.api.due = {"etc"}
    shutil.copytree(home, tmp_path / "home before", symlinks=True)
    process = open_session()
    request = hostile.request()
    login = request["sources"]["etc"]
    stolen = tmp_path / "stolen"

    def fetch(what: str, *options: str) -> int:
        return hostile.rsync("-a", *options, f"rsync://{{}}/{what}", f"{stolen}/", login=login).returncode

    assert fetch("etc/") == 0
    assert (stolen / "file").read_text() == "mine"
    # Reads outside of the source: by links, by names, by options.
    for what in ("etc/../other/", "etc/away/", "etc/away/secret", "etc//../../outside/", f"etc/{tmp_path}/outside/"):
        fetch(what)
    for options in (
        ("--copy-links",),
        ("--copy-unsafe-links",),
        ("--copy-dirlinks", "--keep-dirlinks"),
        ("--relative",),
    ):
        fetch("etc/", *options)
    fetch("etc/", "--files-from=:/../../outside/secret", "--copy-links")
    # Other modules.
    for module in ("later", "turku-restore", "turku-restore", "global", "etc]", "..", "etc%2f.."):
        assert fetch(f"{module}/") != 0, module
    content = [path.read_text() for path in stolen.rglob("*") if path.is_file() and not path.is_symlink()]
    assert "secret" not in content
    # Writes and deletes.
    tree = tmp_path / "planted"
    tree.mkdir()
    (tree / "file").write_text("PLANTED")
    for writes in ((), ("--delete",), ("--inplace",), ("--remove-source-files",)):
        assert hostile.rsync("-a", *writes, f"{tree}/", "rsync://{}/etc/", login=login).returncode != 0
    fetch("etc/", "--remove-source-files")
    hostile.release()
    process.wait(timeout=60)
    assert differences(tmp_path / "home before", home) == []
    wait_for(lambda: machine.processes() == [])
    assert fetch("etc/") != 0, "and nothing is open afterwards"
