"""Entries that changed since an earlier pass: named by their change times, or not at all where anything is uncertain."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.loop_volume import loop_volume

from turku.agent.capture import changed_entries
from turku.agent.capture.changed_entries import ChangeScan, DirectoryDigests, ScanUncertain

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or becomes another user")


class Tree:
    """A source, with what its last pass found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("one", "two", "two/three", "empty"):
            (path / name).mkdir(parents=True)
        for name in ("file", "one/file", "two/file", "two/three/file"):
            (path / name).write_text(name)
        (path / "link").symlink_to("file")
        self.since_ns = 0
        self.known = DirectoryDigests.of(b"")
        self.remember()

    def remember(self) -> None:
        self.known = ChangeScan(str(self.path)).run()
        # Change times come in steps of some milliseconds.
        time.sleep(0.02)
        self.since_ns = time.time_ns()
        time.sleep(0.02)

    def changed(self, **options: object) -> set[str]:
        names: list[bytes] = []
        ChangeScan(str(self.path), known=self.known, since_ns=self.since_ns, name=names.append, **options).run()  # type: ignore[arg-type]
        assert len(names) == len(set(names))
        return {os.fsdecode(name) for name in names}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "source")


def test_nothing_is_named_where_nothing_changed(tree: Tree) -> None:
    assert tree.changed() == set()


def test_a_changed_acl_names_its_entry(tree: Tree) -> None:
    subprocess.run(["setfacl", "-m", "u:1234:r", tree.path / "two/three/file"], check=True)
    assert tree.changed() == {"two/three/file"}


def test_a_changed_default_acl_names_its_directory(tree: Tree) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:1234:r", tree.path / "two"], check=True)
    assert tree.changed() == {"two"}


def test_a_changed_extended_attribute_names_its_entry_even_where_the_times_are_set_back(tree: Tree) -> None:
    file = tree.path / "one/file"
    before = file.stat()
    os.setxattr(file, "user.colour", b"blue")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tree.changed() == {"one/file"}


def test_a_changed_mode_names_its_entry(tree: Tree) -> None:
    (tree.path / "one/file").chmod(0o600)
    assert tree.changed() == {"one/file"}


def test_a_link_is_compared_and_not_followed(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tree.path / "out").symlink_to(tmp_path / "outside")
    tree.remember()
    (tmp_path / "outside" / "new").touch()
    assert tree.changed() == set()
    os.utime(tree.path / "link", follow_symlinks=False)
    assert tree.changed() == {"link"}


def test_a_new_file_is_named_with_its_directory(tree: Tree) -> None:
    (tree.path / "empty/new").touch()
    assert tree.changed() == {"empty", "empty/new"}


def test_the_sources_own_directory_is_a_dot(tree: Tree) -> None:
    tree.path.chmod(0o700)
    assert tree.changed() == {"."}


def test_a_deleted_file_is_seen_by_its_directory(tree: Tree) -> None:
    (tree.path / "one/file").unlink()
    assert tree.changed() == {"one"}


def test_a_renamed_file_is_named(tree: Tree) -> None:
    (tree.path / "one/file").rename(tree.path / "one/other")
    assert tree.changed() == {"one", "one/other"}


def test_a_further_name_of_a_file_is_named_with_the_first(tree: Tree) -> None:
    (tree.path / "empty/name").hardlink_to(tree.path / "one/file")
    assert tree.changed() == {"empty", "empty/name", "one/file"}


def test_everything_below_a_directory_that_was_moved_here_is_named(tree: Tree, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree.path / "two", other)
    tree.remember()
    shutil.rmtree(tree.path / "two")
    # Its entries have change times of before. They may differ from the old ones in whatever cannot be seen.
    other.rename(tree.path / "two")
    assert tree.changed() == {".", "two", "two/file", "two/three", "two/three/file"}


def test_a_directory_that_was_moved_away_and_back_is_named_alone(tree: Tree, tmp_path: Path) -> None:
    (tree.path / "two").rename(tmp_path / "away")
    (tmp_path / "away").rename(tree.path / "two")
    assert tree.changed() == {".", "two"}


def test_an_exchanged_pair_of_directories_is_named_with_all_below(tree: Tree, tmp_path: Path) -> None:
    (tree.path / "one").rename(tmp_path / "meanwhile")
    (tree.path / "two").rename(tree.path / "one")
    (tmp_path / "meanwhile").rename(tree.path / "two")
    assert tree.changed() == {".", "one", "one/file", "one/three", "one/three/file", "two", "two/file"}


def test_names_of_any_bytes_and_depth_are_named(tree: Tree) -> None:
    deep = b"/".join([b"d" * 200] * 40)
    directory = os.open(tree.path, os.O_RDONLY)
    for name in deep.split(b"/"):
        os.mkdir(name, dir_fd=directory)
        inner = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    tree.remember()
    os.close(os.open(b"\xff\n\\", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    assert tree.changed() == {os.fsdecode(deep), os.fsdecode(deep + b"/\xff\n\\")}


def test_paths_that_are_not_backed_up_are_not_named(tree: Tree) -> None:
    for name in ("one", "two/three"):
        (tree.path / name / "new").touch()
    hidden = [tree.path / "two/three", tree.path / "not there"]
    assert tree.changed(hidden=hidden) == {"one", "one/new"}


def test_the_path_may_lead_through_a_link_as_it_may_for_rsync(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "by link").symlink_to(tree.path)
    tree.path = tmp_path / "by link"
    (tree.path / "one/file").chmod(0o600)
    assert tree.changed() == {"one/file"}


def test_without_an_earlier_pass_nothing_is_named(tree: Tree) -> None:
    names: list[bytes] = []
    ChangeScan(str(tree.path), name=names.append).run()
    assert names == []


def test_the_result_of_a_pass_can_be_written_down(tree: Tree) -> None:
    tree.known = DirectoryDigests.of(tree.known.content)
    assert tree.changed() == set()
    with pytest.raises(ValueError):
        DirectoryDigests.of(b"not eight")


# --- uncertain


def test_a_source_that_is_not_there_is_uncertain(tmp_path: Path) -> None:
    with pytest.raises(ScanUncertain):
        ChangeScan(str(tmp_path / "nothing")).run()


@pytest.mark.root
@NEEDS_ROOT
def test_an_unreadable_directory_is_uncertain() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "closed").mkdir(mode=0o700)
        ChangeScan(name).run()
        os.seteuid(65534)
        try:
            with pytest.raises(ScanUncertain, match="closed"):
                ChangeScan(name).run()
        finally:
            os.seteuid(0)


def test_a_directory_that_changes_while_it_is_read_is_uncertain(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    original = changed_entries._entries

    def changing(directory: int) -> Iterator[os.DirEntry[str]]:
        yield from original(directory)
        time.sleep(0.02)
        (tree.path / f"empty/{time.monotonic_ns()}").touch()

    monkeypatch.setattr(changed_entries, "_entries", changing)
    with pytest.raises(ScanUncertain, match="empty changed while it was read"):
        tree.changed()


def test_a_directory_that_goes_before_it_is_read_is_uncertain(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    original = changed_entries._entries

    def vanishing(directory: int) -> Iterator[os.DirEntry[str]]:
        yield from original(directory)
        shutil.rmtree(tree.path / "empty", ignore_errors=True)

    monkeypatch.setattr(changed_entries, "_entries", vanishing)
    with pytest.raises(ScanUncertain):
        tree.changed()


def test_a_file_system_with_another_clock_is_uncertain() -> None:
    with pytest.raises(ScanUncertain, match="file system proc may"):
        ChangeScan("/proc/self/fdinfo").run()


def test_more_directories_than_are_remembered_are_uncertain(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_entries, "_DIRECTORIES_LIMIT", 4)
    with pytest.raises(ScanUncertain, match="more than 4 directories"):
        tree.changed()


def test_a_pass_ends_when_it_is_told_to(tree: Tree) -> None:
    class Ended(Exception):
        pass

    def go_on() -> None:
        raise Ended

    with pytest.raises(Ended):
        tree.changed(go_on=go_on)


# --- mounts


@pytest.fixture
def mount(tree: Tree) -> Iterator[list[Path]]:
    """Paths that are unmounted at the end."""
    mounted: list[Path] = []
    yield mounted
    for path in reversed(mounted):
        subprocess.run(["umount", "--lazy", path], check=False)


@pytest.mark.root
@NEEDS_ROOT
def test_everything_on_a_file_system_that_was_mounted_here_is_named(
    tree: Tree, tmp_path: Path, mount: list[Path]
) -> None:
    shutil.copytree(tree.path / "two", tmp_path / "other")
    tree.remember()
    if subprocess.run(["mount", "--bind", tmp_path / "other", tree.path / "two"], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    mount.append(tree.path / "two")
    assert tree.changed() == {"two", "two/file", "two/three", "two/three/file"}
    tree.remember()
    assert tree.changed() == set()


@pytest.mark.root
@NEEDS_ROOT
def test_another_file_system_is_passed_over_too_unless_the_source_has_one(tree: Tree, mount: list[Path]) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "none", tree.path / "empty"], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    mount.append(tree.path / "empty")
    (tree.path / "empty/sub").mkdir()
    tree.remember()
    (tree.path / "empty/sub/new").touch()
    assert tree.changed() == {"empty/sub", "empty/sub/new"}
    # The directory itself is in the backup. The unknown part of it is compared.
    assert tree.changed(emptied=[tree.path / "empty"]) == {"empty"}


@pytest.mark.root
@NEEDS_ROOT
def test_a_subvolume_that_is_not_mounted_is_passed_over_with_its_source() -> None:
    with loop_volume("btrfs") as volume:
        subprocess.run(["btrfs", "--quiet", "subvolume", "create", volume / "source"], check=True)
        tree = Tree(volume / "source")
        subprocess.run(["btrfs", "--quiet", "subvolume", "create", tree.path / "empty/inner"], check=True)
        (tree.path / "empty/inner/file").touch()
        tree.remember()
        (tree.path / "empty/inner/file").chmod(0o600)
        assert tree.changed(emptied=[tree.path / "one"]) == {"empty/inner/file", "one"}


def test_files_with_holes_are_named_whatever_changed(tree: Tree) -> None:
    with (tree.path / "one/hole").open("wb") as file:
        file.truncate(100_000)
        file.write(b"x")
    (tree.path / "dense").write_bytes(b"x" * 100_000)
    (tree.path / "small").write_bytes(b"x")
    os.truncate(tree.path / "small", 4000)
    (tree.path / "link to a hole").symlink_to("one/hole")
    named: list[bytes] = []
    tree.known = ChangeScan(str(tree.path), name_with_holes=named.append).run()
    assert named == [b"one/hole"]
    tree.since_ns = time.time_ns() + 10**12
    ChangeScan(
        str(tree.path), known=tree.known, since_ns=tree.since_ns, name=named.append, name_with_holes=named.append
    ).run()
    assert named == [b"one/hole"] * 2
