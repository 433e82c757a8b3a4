"""Access to the files of a volume: no link is followed, wherever it lies, with openat2 and without it."""

import ctypes
import errno
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from turku.core.filesystem import openat2
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.errors import BackupFailed, TurkuError
from turku.storage.fs import disk_usage, hardlink_copy
from turku.storage.fs import tree as fs

_ask_kernel = openat2._has_call.__wrapped__
LEVELS = 200
"""More than are held open at once, and than a path may be long with long names."""


@pytest.fixture(params=[True, False], ids=["openat2", "component by component"], autouse=True)
def has_openat2(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not _ask_kernel():
        pytest.skip("this kernel has none, or does not let us use it")
    monkeypatch.setattr(openat2, "_has_call", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory with a file some levels down, and another directory outside."""
    inner = tmp_path.resolve() / "volume" / "machine" / "snapshots"
    inner.mkdir(parents=True)
    (inner / "file").write_text("inside")
    outside = tmp_path.resolve() / "outside" / "machine" / "snapshots"
    outside.mkdir(parents=True)
    (outside / "file").write_text("outside")
    return inner.parent.parent


Call = Callable[[Path], object]
READS: dict[str, Call] = {
    "open_absolute": lambda path: os.close(openat2.open_absolute(path.parent)),
    "status": fs.status,
    "names": lambda path: fs.names(path.parent),
    "read_file": lambda path: fs.read_file(path, limit_bytes=100),
    "volume_space": lambda path: disk_usage.volume_space(path.parent),
    "tree": lambda path: DirectoryTree(path.parent).close(),
    "create_unnamed_file": lambda path: os.close(fs.create_unnamed_file(path.parent)),
    "locked": lambda path: held(fs.locked(path.parent, "name")),
    "locked_directory": lambda path: held(fs.locked_directory(path.parent)),
}
CHANGES: dict[str, Call] = {
    "make_directory": lambda path: fs.make_directory(path.with_name("new")),
    "move_directory": lambda path: fs.move_directory(path, path.with_name("new")),
    "rename": lambda path: fs.rename(path, path.with_name("new")),
    "hard_link": lambda path: fs.hard_link(path, path.with_name("new")),
    "unlink": fs.unlink,
    "remove_directory": fs.remove_directory,
    "write_bytes": lambda path: fs.write_bytes(path, b"new"),
    "write_json": lambda path: fs.write_json(path, {}),
    "write_symbolic_link": lambda path: fs.write_symbolic_link(path, "new"),
    "create_file": lambda path: os.close(fs.create_file(path)),
    "change_mode": lambda path: fs.change_mode(path, 0o777),
    "remove_temporary_files": lambda path: fs.remove_temporary_files(path.parent),
    "sync": fs.sync,
}


@contextmanager
def _entered(manager: object) -> Iterator[None]:
    with manager:  # type: ignore[attr-defined]
        yield


def held(manager: object) -> None:
    with _entered(manager):
        pass


def state(directory: Path) -> list[tuple[str, int, bytes]]:
    return [
        (str(path), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    ]


@pytest.mark.parametrize("name", [*READS, *CHANGES])
@pytest.mark.parametrize("place", ["volume", "machine", "snapshots"])
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_link_on_the_way_is_not_followed(volume: Path, name: str, place: str, kind: str) -> None:
    path = volume / "machine" / "snapshots" / "file"
    link = next(each for each in path.parents if each.name == place)
    shutil.rmtree(link)
    outside = volume.parent / "outside"
    target = outside / path.parent.relative_to(volume) if place == "snapshots" else outside
    target = outside / "machine" if place == "machine" else target
    link.symlink_to(target if kind == "absolute" else os.path.relpath(target, link.parent))
    assert path.read_text() == "outside"
    before = state(outside)
    try:
        found = {**READS, **CHANGES}[name](path)
    except (OSError, TurkuError):
        found = None
    # Nothing is there, as far as anybody can tell.
    assert not found
    assert state(outside) == before


@pytest.mark.parametrize("name", ["read_file", "write_bytes", "write_symbolic_link", "create_file", "change_mode"])
def test_a_link_at_the_name_itself_is_not_followed(volume: Path, name: str) -> None:
    path, outside = volume / "machine" / "snapshots" / "link", volume.parent / "outside"
    path.symlink_to(outside / "machine" / "snapshots" / "file")
    before = state(outside)
    try:
        found = {**READS, **CHANGES}[name](path)
    except (OSError, TurkuError):
        found = None
    assert found is None
    assert state(outside) == before


def test_a_link_in_a_directory_s_place_is_no_directory(volume: Path) -> None:
    path = volume / "machine" / "link"
    path.symlink_to(volume / "machine" / "snapshots")
    assert fs.exists(path)
    assert not fs.is_directory(path)
    assert fs.names(path) == []
    with pytest.raises(OSError) as raised:
        openat2.open_absolute(path)
    assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)
    with pytest.raises(BackupFailed, match="is not a directory"):
        fs.make_directory(path)
    with pytest.raises(OSError):
        DirectoryTree(path)


@pytest.mark.parametrize("name", ["open_absolute", "status", "read_file", "names", "write_bytes", "unlink", "rename"])
def test_two_dots_lead_nowhere(volume: Path, name: str) -> None:
    before = state(volume)
    for path in (
        volume / "machine" / ".." / ".." / "outside" / "machine",
        volume / "machine" / "..",
        Path("relative") / "machine",
    ):
        try:
            found = fs.names(path) if name == "names" else {**READS, **CHANGES}[name](path)
        except (OSError, TurkuError):
            found = None
        assert not found
    assert state(volume) == before


@pytest.mark.parametrize("link", ["self", "{process}/cwd", "{process}/root", "{process}/fd/{descriptor}"])
def test_the_kernel_s_own_links_are_none_either(volume: Path, link: str) -> None:
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        path = Path("/proc", link.format(process=os.getpid(), descriptor=descriptor))
        assert path.is_dir()
        for each in (path, path / "machine"):
            with pytest.raises(OSError) as raised:
                openat2.open_absolute(each)
            assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)
    finally:
        os.close(descriptor)


def test_a_tree_follows_nothing_and_leaves_nothing(volume: Path) -> None:
    snapshots = volume / "machine" / "snapshots"
    (snapshots / "inner").mkdir()
    (snapshots / "out").symlink_to(volume.parent / "outside")
    (snapshots / "pipe").touch()
    (snapshots / "pipe").unlink()
    os.mkfifo(snapshots / "pipe")
    with DirectoryTree(snapshots) as tree:
        for path in (b"out/machine", b"../machine", b"..", b"inner/../..", b"./inner", b"inner//x", b"/etc"):
            with pytest.raises(OSError):
                tree.directory(path)
            assert tree.find_directory(path) is None
        for path in (b"out/machine/snapshots/file", b"../snapshots/file", b"out", b"pipe", b"inner", b"inner/.."):
            with pytest.raises(OSError):
                os.close(tree.open_file(path))
        with pytest.raises(OSError):
            tree.status(b"out/machine")
        assert sorted(each.full_path for each in tree.walk()) == [b"file", b"inner", b"out", b"pipe"]


def test_a_directory_that_is_swapped_for_a_link_while_it_is_open_stays_what_it_was(volume: Path) -> None:
    snapshots = volume / "machine" / "snapshots"
    (snapshots / "inner").mkdir()
    (snapshots / "inner" / "file").write_text("inside")
    with DirectoryTree(snapshots) as tree:
        held = tree.directory(b"inner")
        (snapshots / "inner").rename(volume / "away")
        (snapshots / "inner").symlink_to(volume.parent / "outside" / "machine" / "snapshots")
        assert tree.directory(b"inner") == held
        descriptor = tree.open_file(b"inner/file")
        assert os.read(descriptor, 100) == b"inside"
        os.close(descriptor)
        # Once it was let go of, there is none.
        tree.directory(b"")
        assert tree.find_directory(b"inner") is None


def test_a_directory_that_is_removed_while_it_is_walked_is_left_out(volume: Path) -> None:
    snapshots = volume / "machine" / "snapshots"
    for name in ("a", "b"):
        (snapshots / name / "below").mkdir(parents=True)
        (snapshots / name / "below" / "file").write_text(name)
    with DirectoryTree(snapshots) as tree:
        walk = tree.walk()
        seen = [next(walk).full_path for _ in range(3)]
        shutil.rmtree(snapshots / "b")
        seen += [each.full_path for each in walk]
    assert {b"a", b"a/below", b"a/below/file"} <= set(seen)
    assert b"b/below/file" not in seen


def test_trees_may_be_deeper_than_descriptors_and_paths_reach(volume: Path) -> None:
    top = volume / "machine" / "deep"
    top.mkdir()
    name = b"n" * 200
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    path = b"/".join([name] * LEVELS)
    before = len(os.listdir("/proc/self/fd"))
    with DirectoryTree(top) as tree:
        assert len(list(tree.walk())) == LEVELS + 1
        assert len(os.listdir("/proc/self/fd")) - before < 100
        os.close(tree.open_file(path + b"/last"))
        # A neighbour of one that is not held open any more.
        assert tree.status(path.removesuffix(b"/" + name)).st_nlink
        os.close(tree.open_file(path + b"/last"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_does_not_grow_with_directories_and_their_paths(volume: Path) -> None:
    top = volume / "machine" / "many"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(15):
        os.mkdir(b"n" * 250, dir_fd=descriptor)
        inner = os.open(b"n" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    count = 6000
    for number in range(count):
        os.mkdir(f"{number}", dir_fd=descriptor)
    os.close(descriptor)
    tracemalloc.start()
    try:
        hardlink_copy.link_tree(top, volume / "machine" / "copied")
        _now, highest_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The paths alone are 22 MB.
    assert highest_bytes < 15_000_000
    with DirectoryTree(volume / "machine" / "copied") as tree:
        assert sum(1 for _ in tree.walk()) == count + 15


def test_a_name_of_the_longest_kind_is_reached(volume: Path) -> None:
    path = volume / ("x" * 255)
    fs.write_bytes(path, b"long")
    assert fs.read_file(path, limit_bytes=10) == b"long"
    assert fs.status(volume / ("x" * 255) / "below") is None


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_a_kernel_that_refuses_openat2_is_walked_component_by_component(
    volume: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Refusing:
        def syscall(self, *_arguments: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(openat2, "_LIBC", Refusing())
    monkeypatch.setattr(openat2, "_has_call", _ask_kernel)
    assert fs.read_file(volume / "machine" / "snapshots" / "file", limit_bytes=100) == b"inside"
    (volume / "link").symlink_to(volume.parent / "outside")
    assert fs.status(volume / "link" / "machine") is None


def test_another_failure_of_openat2_is_not_taken_for_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def syscall(self, *_arguments: object) -> int:
            ctypes.set_errno(errno.EMFILE)
            return -1

    monkeypatch.setattr(openat2, "_LIBC", Failing())
    monkeypatch.setattr(openat2, "_has_call", _ask_kernel)
    with pytest.raises(OSError, match="Too many open files"):
        openat2.open_absolute(Path("/"))
