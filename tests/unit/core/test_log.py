"""Log lines: one record is one line, whatever bytes a machine's names hold."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from turku.core import log
from turku.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        with suppress(OSError):
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text, tél, 日本", "plain text, tél, 日本"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("nul\0", r"nul\x00"),
        ("right\u202eto left", r"right\u202eto left"),
        (b"caf\xe9.txt", "caf<e9>.txt"),
        ("caf\udce9.txt", "caf<e9>.txt"),
        (b"t\xc3\xa9l", "tél"),
        ("lone \ud800 surrogate", r"lone \ud800 surrogate"),
        ("\u2028line separator", r"\u2028line separator"),
        ("", ""),
    ],
)
def test_text_becomes_one_safe_line(text: str | bytes, line: str) -> None:
    assert log.one_line(text) == line
    assert log.one_line(log.one_line(text)) == line


def test_a_line_break_in_an_argument_forges_no_second_entry(tmp_path: Path) -> None:
    path = tmp_path / "log" / "turku.log"
    log.set_up("turku-test", destination=str(path), terminal=False)
    logging.getLogger("session").info("source %s", "etc\n[2030-01-01 00:00:00,000 session] INFO: forged")
    (line,) = path.read_text().splitlines()
    assert r"INFO: source etc\n[2030" in line
    assert line.startswith("[2")


def test_records_reach_the_terminal_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "turku.log"
    log.set_up("turku-test", destination=str(path))
    logging.getLogger("session").warning("caf\udce9")
    assert path.read_text().endswith("session] WARNING: caf<e9>\n")
    assert capsys.readouterr().err.endswith("session] WARNING: caf<e9>\n")


def test_debug_records_are_kept_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "turku.log"
    log.set_up("turku-test", destination=str(path), terminal=False)
    logging.getLogger("session").debug("quiet")
    log.set_up("turku-test", destination=str(path), terminal=False, debug=True)
    logging.getLogger("session").debug("loud")
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["loud"]


@pytest.mark.parametrize("destination", ["relative.log", "sytemd"])
def test_a_destination_that_is_no_place_is_refused(destination: str) -> None:
    with pytest.raises(ConfigurationError, match="neither 'systemd', 'syslog' nor an absolute path"):
        log.set_up("turku-test", destination=destination, terminal=False)


def test_a_log_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot open"):
        log.set_up("turku-test", destination=str(tmp_path / "file" / "turku.log"), terminal=False)


def test_a_record_that_cannot_be_written_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("turku-test", destination="/dev/full", terminal=False)
    logging.getLogger("session").info("lost")
    assert "Traceback" not in capsys.readouterr().err


def test_warnings_of_one_sort_are_bounded_and_their_number_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "turku.log"
    log.set_up("turku-test", destination=str(path))
    logger = logging.getLogger("session")
    for number in range(5000):
        logger.warning("%s: cannot be read", number)
        logger.error("%s: is damaged", number)
        logger.info("%s: goes on", number)
    log.tell_hidden()
    for text in (path.read_text(), capsys.readouterr().err):
        lines = text.splitlines()
        assert sum("cannot be read" in line for line in lines) == log.SHOWN_WARNINGS + 1
        assert sum("is damaged" in line for line in lines) == log.SHOWN_WARNINGS + 1
        assert sum("goes on" in line for line in lines) == 5000
        assert "WARNING: 4800 more messages are not shown, of the sort '%s: cannot be read'" in lines[-2]
    said = path.read_text()
    log.tell_hidden()
    assert path.read_text() == said


@pytest.mark.parametrize("options", [{"debug": True}, {"is_bounded": False}])
def test_debugging_and_programs_that_run_for_ever_have_all_of_them(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "turku.log"
    log.set_up("turku-test", destination=str(path), terminal=False, **options)
    for number in range(1000):
        logging.getLogger("session").warning("%s: cannot be read", number)
    assert len(path.read_text().splitlines()) == 1000


def test_the_number_is_said_at_the_end_of_a_program(tmp_path: Path) -> None:
    path = tmp_path / "turku.log"
    log.set_up("turku-test", destination=str(path), terminal=False)
    for number in range(log.SHOWN_WARNINGS + 1):
        logging.getLogger("session").warning("%s", number)
    # As a program with another destination takes its place in the same process.
    log.set_up("turku-test", destination=str(tmp_path / "other.log"), terminal=False)
    assert "1 more messages are not shown, of the sort '%s'" in path.read_text()
