"""A damaged file is replaced under each of its names, by a real file on a real file system. If it is killed, no file
is half."""

import os
from pathlib import Path

import pytest
import xxhash
from tests.support.killed import killed_at_step
from tests.support.trees import flip_bit

from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.integrity import replacement
from turku.storage.integrity.replacement import NotRepaired, StoredName

GOOD = os.urandom(300_000)
CHECKSUM = xxhash.xxh128(GOOD).digest()
MTIME_NS = 1_700_000_000_123_456_789


@pytest.fixture
def place(tmp_path: Path) -> SourceDirectory:
    """A source with the snapshots ``a``, ``b`` and ``c``. In ``a`` and ``b`` the file is one, in ``c`` its own."""
    place = SourceDirectory(tmp_path / "machine", "etc")
    for name in ("a", "b", "c"):
        (place.snapshot(name) / "d").mkdir(parents=True)
    for name in ("a", "c"):
        path = place.snapshot(name) / "d" / "f"
        path.write_bytes(GOOD)
        path.chmod(0o640)
        os.setxattr(path, "user.note", b"kept")
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
    os.link(place.snapshot("a") / "d" / "f", place.snapshot("b") / "d" / "f")
    for name in ("a", "b", "c"):
        os.utime(place.snapshot(name) / "d", (1_600_000_000, 1_600_000_000))
    return place


def flip(path: Path) -> None:
    flip_bit(path, 150_000, 4)


def names(place: SourceDirectory, *snapshots: str) -> list[StoredName]:
    return [StoredName(place.snapshot(name), b"d/f") for name in snapshots]


def repair(place: SourceDirectory, **changes: object) -> tuple[StoredName, ...]:
    arguments = {"donor": names(place, "c")[0], "expected": CHECKSUM, "mtime_ns": MTIME_NS, **changes}
    return replacement.replace(place, names(place, "a", "b"), **arguments)  # type: ignore[arg-type]


def test_it_is_whole_again_under_each_name_and_all_else_is_kept(place: SourceDirectory) -> None:
    damaged = place.snapshot("a") / "d" / "f"
    flip(damaged)
    before = damaged.stat().st_ino
    assert len(repair(place)) == 2
    for name in ("a", "b"):
        path = place.snapshot(name) / "d" / "f"
        status = path.stat()
        assert path.read_bytes() == GOOD
        assert status.st_ino != before
        assert (status.st_mode & 0o777, status.st_mtime_ns, os.getxattr(path, "user.note")) == (
            0o640,
            MTIME_NS,
            b"kept",
        )
        assert path.parent.stat().st_mtime == 1_600_000_000
    assert os.path.samefile(place.snapshot("a") / "d" / "f", place.snapshot("b") / "d" / "f")
    assert (place.snapshot("c") / "d" / "f").stat().st_nlink == 1
    assert not replacement.repair_directory(place).exists()


def test_a_repaired_file_has_the_holes_of_the_donor(place: SourceDirectory) -> None:
    length = 64 * 1024 * 1024
    for name in ("a", "b", "c"):
        os.truncate(place.snapshot(name) / "d" / "f", length)
    flip(place.snapshot("a") / "d" / "f")
    expected = xxhash.xxh128((place.snapshot("c") / "d" / "f").read_bytes()).digest()
    assert len(repair(place, expected=expected)) == 2
    status = (place.snapshot("a") / "d" / "f").stat()
    assert status.st_size == length
    assert status.st_blocks * 512 < 1024 * 1024


def test_a_donor_that_is_damaged_too_changes_nothing(place: SourceDirectory) -> None:
    for name in ("a", "c"):
        flip(place.snapshot(name) / "d" / "f")
    before = (place.snapshot("a") / "d" / "f").read_bytes()
    with pytest.raises(NotRepaired, match="damaged too"):
        repair(place)
    assert (place.snapshot("a") / "d" / "f").read_bytes() == before
    assert not replacement.repair_directory(place).exists()


def test_a_missing_file_comes_back_as_it_is_elsewhere(place: SourceDirectory) -> None:
    (place.snapshot("b") / "d" / "f").unlink()
    repaired = replacement.replace(
        place, names(place, "b"), donor=names(place, "c")[0], expected=CHECKSUM, mtime_ns=MTIME_NS, is_missing=True
    )
    assert len(repaired) == 1
    path = place.snapshot("b") / "d" / "f"
    assert path.read_bytes() == GOOD
    assert (path.stat().st_mode & 0o777, os.getxattr(path, "user.note")) == (0o640, b"kept")


def test_no_symbolic_link_leads_it_astray(place: SourceDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"mine")
    directory = place.snapshot("b") / "d"
    directory.rename(tmp_path / "away")
    directory.symlink_to(outside)
    assert [name.tree.name for name in repair(place)] == ["a"]
    assert (outside / "f").read_bytes() == b"mine"


def test_leftovers_of_a_killed_run_are_removed(place: SourceDirectory) -> None:
    directory = replacement.repair_directory(place)
    directory.mkdir()
    (directory / "half").write_bytes(b"x")
    replacement.remove_leftovers(place)
    assert not directory.exists()


def test_killed_at_any_step_each_name_has_the_damaged_file_or_the_good_one(place: SourceDirectory) -> None:
    damaged = place.snapshot("a") / "d" / "f"
    flip(damaged)
    wrong = damaged.read_bytes()
    step = 1
    while killed_at_step(step, lambda: repair(place)):
        for name in ("a", "b", "c"):
            assert (place.snapshot(name) / "d" / "f").read_bytes() in (GOOD, wrong)
            assert [path.name for path in (place.snapshot(name) / "d").iterdir()] == ["f"]
        replacement.remove_leftovers(place)
        assert not replacement.repair_directory(place).exists()
        step += 1
    assert step > 4
    assert (place.snapshot("b") / "d" / "f").read_bytes() == GOOD


def test_a_link_in_the_place_of_the_snapshots_leads_nowhere(place: SourceDirectory, tmp_path: Path) -> None:
    """A compromised receiver makes one into another machine's directory, with all the same names (M9)."""
    flip(place.snapshot("a") / "d" / "f")
    victim = tmp_path / "victim"
    place.snapshots_dir.rename(victim)
    place.snapshots_dir.symlink_to(victim)
    before = (victim / "a" / "d" / "f").read_bytes()
    with pytest.raises(NotRepaired):
        repair(place)
    assert (victim / "a" / "d" / "f").read_bytes() == before
    assert sorted(path.name for path in victim.iterdir()) == ["a", "b", "c"]
