"""How a restore is told of: while it goes on, and when it is over."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from turku.agent.restore import progress as restore_progress
from turku.agent.restore.progress import RestoreProgress
from turku.agent.restore.result import RestoreResult, count_of

WHOLE = RestoreResult("whole", "etc_1", Path("/srv/x"), files=5000, size_bytes=2**20, verified=5000, seconds=2.0)


def progress(files: int, size_bytes: int, *, seconds: float = 10.0) -> RestoreProgress:
    return RestoreProgress(files, size_bytes, 100, 1000, seconds)


def test_a_line_has_files_bytes_rate_and_time_left() -> None:
    line = restore_progress.progress_line(progress(50, 500))
    assert line == "restored 50 of 100 files, 500 B of 1.0 KiB, 50 B/s, 10 s left"


def test_without_totals_there_is_no_time_left() -> None:
    assert restore_progress.progress_line(RestoreProgress(5, 10, None, None, 1.0)) == "restored 5 files, 10 B, 10 B/s"


@pytest.mark.parametrize(("files", "size_bytes", "left"), [(0, 0, None), (10, 900, 90), (90, 100, 90), (100, 1000, 0)])
def test_whichever_is_further_behind_tells_the_time_left(files: int, size_bytes: int, left: float | None) -> None:
    assert restore_progress.seconds_left(progress(files, size_bytes)) == left


def test_a_whole_restore_is_one_sentence() -> None:
    assert WHOLE.lines() == [
        "etc_1 into /srv/x: 5,000 files, 1.0 MiB in 2.0 s (512 KiB/s); 5,000 verified by the checksums of the backup; "
        "owners were not restored (that takes root)"
    ]


def test_problems_are_shown_first_and_counted() -> None:
    outcome = RestoreResult("partial", "etc_1", Path("/x"), files=1, mismatched=2, problems=tuple("abc" * 10))
    first, *rest = outcome.lines()
    assert "2 NOT as they were backed up" in first
    assert "NOT whole: 30 problems" in first
    assert rest[0] == "  a"
    assert rest[-1] == "  and 10 more"
    many = RestoreResult("partial", "etc_1", Path("/x"), files=1, problems=tuple("abc" * 10), further_problems=70)
    assert "NOT whole: 100 problems" in many.summary
    assert many.lines()[-1] == "  and 80 more"


def test_one_is_not_many() -> None:
    assert (count_of(1, "file"), count_of(1234, "file")) == ("1 file", "1,234 files")


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 200])
def test_a_narrow_terminal_gets_fewer_figures_and_each_of_them_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    bar, task = restore_progress._new_bar(RestoreProgress(1, 1, 12_345_678, 567_800_000_000, 1.0))
    try:
        bar.update(task, completed=123_400_000_000, files="12,345,678/12,345,678 files")
        output = io.StringIO()
        Console(file=output, width=columns).print(bar.make_tasks_table(bar.tasks))
    finally:
        bar.stop()
    [line] = output.getvalue().splitlines() or [""]
    assert "\u2026" not in line
    for part, figure in (("files", "12,345,678/12,345,678 files"), ("size", "123.4/567.8 GB"), ("left", "-:--:--")):
        assert (figure in line) is (part in restore_progress.columns_for(columns))
    assert restore_progress.columns_for(60) == ["files", "size", "left"]
