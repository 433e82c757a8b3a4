"""The statistics of a run, from rsync's output and from two trees."""

import os
from pathlib import Path

import pytest

from turku.policy.anomaly import RunStats
from turku.storage.rsync import stats
from turku.storage.rsync.stats import SuffixCounter

STATISTICS = (
    "Number of files: 12 (reg: 10, dir: 2)",
    "Number of created files: 3 (reg: 2, dir: 1)",
    "Number of deleted files: 4 (reg: 4)",
    "Number of regular files transferred: 5",
    "Total file size: 24001 bytes",
    "Total transferred file size: 9001 bytes",
    "Literal data: 6001 bytes",
    "Matched data: 3000 bytes",
)
NO_SUFFIXES = SuffixCounter(None)


def test_the_figures_of_an_earlier_run_of_the_same_backup_are_added() -> None:
    earlier = (
        "Number of files: 4 (reg: 3, link: 1)",
        "Number of created files: 3 (reg: 2, link: 1)",
        "Number of regular files transferred: 2",
        "Total file size: 700 bytes",
        "Total transferred file size: 600 bytes",
        "Literal data: 500 bytes",
        "Matched data: 100 bytes",
        "a line of nobody's",
    )
    assert stats.summed(STATISTICS, earlier) == (
        "Number of files: 12 (reg: 10, dir: 2)",
        "Number of created files: 6 (reg: 4, dir: 1, link: 1)",
        "Number of deleted files: 4 (reg: 4)",
        "Number of regular files transferred: 7",
        "Total file size: 24001 bytes",
        "Total transferred file size: 9601 bytes",
        "Literal data: 6501 bytes",
        "Matched data: 3100 bytes",
    )
    assert stats.summed(STATISTICS, ()) == STATISTICS
    assert stats.summed(("Number of created files: 0", "Literal data: none"), STATISTICS) == (
        "Number of created files: 3 (reg: 2, dir: 1)",
        "Literal data: none",
    )


def test_a_snapshot_s_stats_continue_those_of_its_base() -> None:
    before = RunStats(files_before=0, files=11, size_bytes=30_000)
    found = stats.from_run(STATISTICS, NO_SUFFIXES, before)
    assert found == RunStats(
        files_before=11,
        files=10,
        created=2,
        transferred=5,
        size_bytes_before=30_000,
        size_bytes=24_001,
        transferred_bytes=9001,
        literal_bytes=6001,
    )
    assert (found.deleted, found.rewritten) == (3, 3)


def test_in_place_rsync_itself_says_what_was_there_before() -> None:
    found = stats.from_run(STATISTICS, NO_SUFFIXES, None)
    assert found is not None
    assert (found.files_before, found.deleted, found.rewritten) == (12, 4, 3)


def test_a_source_of_directories_alone_has_no_files() -> None:
    found = stats.from_run(("Number of files: 1 (dir: 1)", *STATISTICS[1:]), NO_SUFFIXES, RunStats(0, 7))
    assert found is not None
    assert found.files == 0


@pytest.mark.parametrize("line", ["Number of files: many", "Number of files: 12", "nothing"])
def test_malformed_statistics_give_no_stats(line: str) -> None:
    assert stats.from_run((line, *STATISTICS[1:]), NO_SUFFIXES, None) is None


def test_rsync_s_own_statistics_win_over_similar_lines_of_a_machine() -> None:
    forged = ("Number of files: 9999 (reg: 9999)", *STATISTICS)
    assert stats.from_run(forged, NO_SUFFIXES, None) == stats.from_run(STATISTICS, NO_SUFFIXES, None)


def test_only_a_suffix_added_to_a_file_that_was_there_counts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    (tmp_path / "directory").mkdir()
    suffixes = SuffixCounter(tmp_path)
    for name in (b"a.txt.locked", b"b.txt.locked", b"c.txt", b"new.locked", b"directory.locked", b"x.y/z", b"a.txt."):
        suffixes.add(name)
    assert suffixes.most_common == (".locked", 2)


def test_suffixes_are_fit_to_be_shown_and_their_number_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    suffixes = SuffixCounter(tmp_path)
    for number in range(5000):
        suffixes.add(b"a.%d" % number)
    assert len(suffixes._counts) == 1000
    odd = SuffixCounter(tmp_path)
    odd.add(b"a.\xff\x1b")
    assert odd.most_common[0].isprintable()


def test_two_trees_are_compared_file_by_file(tmp_path: Path) -> None:
    base, tree = tmp_path / "base", tmp_path / "tree"
    for directory in (base, tree):
        (directory / "sub").mkdir(parents=True)
    for name in ("same", "sub/linked", "gone", "locked", "changed"):
        (base / name).write_bytes(b"x" * 100)
        os.utime(base / name, (1, 1))
    os.link(base / "sub" / "linked", tree / "sub" / "linked")
    (tree / "same").write_bytes(b"x" * 100)
    os.utime(tree / "same", (1, 1))
    (tree / "locked.enc").write_bytes(b"y" * 10)
    (tree / "changed").write_bytes(b"y" * 30)
    (tree / "link").symlink_to("same")
    found = stats.from_trees(base, tree)
    assert found == RunStats(
        files_before=5,
        files=4,
        created=1,
        transferred=2,
        renamed=1,
        suffix=".enc",
        size_bytes_before=500,
        size_bytes=240,
        transferred_bytes=40,
        literal_bytes=40,
    )
    assert (found.deleted, found.rewritten) == (2, 1)


def test_the_content_of_changed_files_is_sampled(tmp_path: Path) -> None:
    base, tree = tmp_path / "base", tmp_path / "tree"
    for directory in (base, tree):
        (directory / "d").mkdir(parents=True)
    changed = []
    for number in range(10):
        (base / "d" / f"f{number}").write_bytes(b"what people write\n" * 100)
        name = f"f{number}.locked" if number < 4 else f"f{number}"
        (tree / "d" / name).write_bytes(os.urandom(1800) if number < 7 else b"and write again\n" * 100)
        changed.append(f"d/{name}".encode())
    (tree / "new").write_bytes(os.urandom(1800))
    (tree / "d" / "short").write_bytes(b"x")
    (base / "d" / "short").write_bytes(b"y")
    (tree / "link").symlink_to("/etc/passwd")
    changed += [b"new", b"d", b"d/short", b"link", b"nothing", b"../outside"]
    found = stats.with_content_sample(RunStats(files_before=10, files=11), changed, base, tree)
    assert (found.sampled, found.became_random) == (10, 7)
    assert stats.with_content_sample(found, changed, tmp_path / "nowhere", tree).sampled == 0


def test_the_sample_of_files_is_bounded(tmp_path: Path) -> None:
    for directory in ("base", "tree"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "f").write_bytes(b"text\n" * 200)
    found = stats.with_content_sample(
        RunStats(files_before=1, files=1), (b"f" for _ in range(5000)), tmp_path / "base", tmp_path / "tree"
    )
    assert (found.sampled, found.became_random) == (stats.SAMPLED_FILES, 0)
