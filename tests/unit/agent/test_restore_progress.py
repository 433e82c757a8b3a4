"""The reports of a restore: while it goes on, and when it is over."""

import io
from contextlib import closing
from pathlib import Path

import pytest

from turku.agent.restore import result
from turku.agent.restore.result import ProgressDisplay, RestoreProgress, RestoreResult
from turku.core.cli.output import GuardedStream
from turku.core.units import count_of

WHOLE = RestoreResult("whole", "etc_1", Path("/srv/x"), files=5000, size_bytes=2**20, verified=5000, seconds=2.0)


def progress(files: int, size_bytes: int, *, seconds: float = 10.0) -> RestoreProgress:
    return RestoreProgress(files, size_bytes, 100, 1000, seconds)


def test_a_line_has_files_bytes_rate_and_time_left() -> None:
    line = result.progress_line(progress(50, 500))
    assert line == "restored 50 of 100 files, 500 B of 1.0 KiB, 50 B/s, 10 s left"


def test_without_totals_there_is_no_time_left() -> None:
    assert result.progress_line(RestoreProgress(5, 10, None, None, 1.0)) == "restored 5 files, 10 B, 10 B/s"


@pytest.mark.parametrize(("files", "size_bytes", "left"), [(0, 0, None), (10, 900, 90), (90, 100, 90), (100, 1000, 0)])
def test_the_slower_of_files_and_bytes_gives_the_time_left(files: int, size_bytes: int, left: float | None) -> None:
    assert result.seconds_left(progress(files, size_bytes)) == left


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [20, 200])
def test_a_terminal_has_one_line_that_changes_and_ends(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    with closing(ProgressDisplay()) as display:
        for files in (1, 2):
            display.show(progress(files, 10))
    whole = [result.progress_line(progress(files, 10))[: columns - 1] for files in (1, 2)]
    assert terminal.getvalue() == "".join(f"\r{line}\x1b[K" for line in whole) + "\n"


def test_a_terminal_gets_the_control_characters_of_the_line_and_not_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", GuardedStream(terminal))
    with closing(ProgressDisplay()) as display:
        display.show(progress(50, 500))
    assert terminal.getvalue().startswith("\rrestored 50 of 100 files")
    assert terminal.getvalue().endswith("\x1b[K\n")
