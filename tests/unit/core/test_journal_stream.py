"""Standard error as the journal's stream: each line has its priority, no line has a time, and no text sets a priority."""

import logging
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from turku.agent.tunnel.storage_output import StorageOutput
from turku.core import log
from turku.core.cli import entry, output
from turku.errors import ApiForbidden, ApiUnreachable, LockHeld, TurkuError

FORGED = "<0>the house is on fire"


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises


class Journal:
    """Standard error as the stream that $JOURNAL_STREAM names, from ``begin`` on.

    pytest puts another file there between a fixture and its test.
    """

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture, self._monkeypatch = capture, monkeypatch

    def begin(self) -> None:
        status = os.fstat(log.STANDARD_ERROR)
        self._monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")

    def lines(self) -> list[str]:
        return self._capture.readouterr().err.splitlines()


@pytest.fixture
def journal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Journal:
    return Journal(capfd, monkeypatch)


def test_records_have_their_priority_and_the_end_of_their_loggers_name_and_no_time(journal: Journal) -> None:
    journal.begin()
    log.set_up("turku-test", debug=True)
    for level, name in ((10, "turku.agent.ping"), (20, "turku.ping"), (30, "django.request"), (40, "x"), (50, "x")):
        logging.getLogger(name).log(level, "a message")
    assert journal.lines() == [
        "<7>ping: a message",
        "<6>ping: a message",
        "<4>django.request: a message",
        "<3>x: a message",
        "<2>x: a message",
    ]


def test_each_line_of_a_traceback_has_the_priority(journal: Journal) -> None:
    journal.begin()
    log.set_up("turku-test")
    try:
        raise ValueError(f"first\n{FORGED}")
    except ValueError:
        logging.getLogger("turku.session").exception("it failed: %s", f"x\n{FORGED}")
    lines = journal.lines()
    assert lines[0] == rf"<3>session: it failed: x\n{FORGED}"
    assert len(lines) > 3
    assert all(line.startswith(("<3>  | ", "<3>session")) for line in lines)


def test_the_rest_of_a_line_that_the_journal_would_split_has_a_priority_of_ours(journal: Journal) -> None:
    journal.begin()
    log.set_up("turku-test")
    logging.getLogger("turku.session").info("%s", ("x" * (48 * 1024 - len("<6>session: "))) + FORGED)
    lines = journal.lines()
    assert len(lines) > 1
    assert {line[:3] for line in lines} == {"<6>"}
    assert max(map(len, lines)) < 48 * 1024 / 4


def test_another_descriptor_than_the_journals_has_times_and_no_priorities(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("1:1", "", "nonsense"):
        monkeypatch.setenv("JOURNAL_STREAM", value)
        log.set_up("turku-test")
        logging.getLogger("turku.session").warning("a message")
        assert capfd.readouterr().err.startswith("[20")


@pytest.mark.parametrize(
    ("error", "priority"),
    [
        (ApiForbidden("no", details=f"x\n{FORGED}", hint="do"), "<3>"),
        (ApiUnreachable(f"no\n{FORGED}"), "<4>"),
        (LockHeld("another run"), "<5>"),
    ],
)
def test_errors_have_a_priority_on_each_line(error: TurkuError, priority: str, journal: Journal) -> None:
    journal.begin()
    entry.print_error(error)
    lines = journal.lines()
    assert lines[0] == f"{priority}error [{error.code}]: no" or isinstance(error, LockHeld)
    assert {line[:3] for line in lines} == {priority}


def test_text_that_is_printed_cannot_set_a_priority(
    journal: Journal, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.begin()
    status = os.fstat(1)
    assert os.environ["JOURNAL_STREAM"] != f"{status.st_dev}:{status.st_ino}", "two files, so that both are told apart"
    monkeypatch.setattr(sys, "stderr", output._guarded(sys.stderr, log.STANDARD_ERROR))
    print(FORGED, file=sys.stderr)
    print("part", end="", file=sys.stderr)
    print(f" {FORGED}\n{FORGED}", file=sys.stderr)
    log.set_up("turku-test")
    logging.getLogger("turku.session").warning("a message")
    assert journal.lines() == [f"<6>{FORGED}", f"<6>part {FORGED}", f"<6>{FORGED}", "<4>session: a message"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[2026-11-30 21:00:00,000 s1] INFO: web/etc backed up", "<6>storage s1: web/etc backed up"),
        ("[2026-11-30 21:00:00,000 s1] WARNING: no space", "<4>storage s1: no space"),
        # A storage's opinion wakes nobody up: an error of the session is the agent's to tell.
        ("[2026-11-30 21:00:00,000 s1] CRITICAL: fire", "<4>storage s1: fire"),
        ("[2026-11-30 21:00:00,000 s1] EMERG: fire", "<6>storage s1: fire"),
        (f"[x] INFO: {FORGED}", f"<6>storage s1: {FORGED}"),
        (FORGED, f"<6>storage s1: {FORGED}"),
        ("", "<6>storage s1: "),
    ],
)
def test_lines_of_a_storage_forge_no_priority_and_bring_no_time(line: str, shown: str, journal: Journal) -> None:
    journal.begin()
    with (shown_output := StorageOutput("s1")).summarized():
        shown_output.show_line(line)
    assert journal.lines() == [shown]


def test_the_journal_has_each_record_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.begin()
    handler = logging.NullHandler()
    monkeypatch.setattr(log, "_JournalHandler", logging.NullHandler)
    monkeypatch.setattr(log, "_destination_handler", lambda *_arguments: handler)
    log.set_up("turku-test", destination="systemd")
    logging.getLogger("turku.session").warning("a message")
    assert journal.lines() == []
    # The error is printed by the program's end, with its hint.
    assert not log.leave_terminal()


def test_gunicorn_logs_in_the_same_form(journal: Journal) -> None:
    journal.begin()
    pytest.importorskip("gunicorn")
    from gunicorn.config import Config  # type: ignore[import-untyped]  # gunicorn has no types

    from turku.api.commands import serve

    arguments = SimpleNamespace(bind="127.0.0.1:0", workers=1, threads=1, access_log=False)
    chosen = serve.options(arguments)  # type: ignore[arg-type]  # a namespace with the same names
    configuration = Config()
    for name in ("logger_class", "access_log_format", "loglevel"):
        configuration.set(name, chosen[name])
    server_log = configuration.logger_class(configuration)
    server_log.info("Listening at: %s", f"x\n{FORGED}")
    server_log.error("no worker")
    assert journal.lines() == [rf"<6>gunicorn: Listening at: x\n{FORGED}", "<3>gunicorn: no worker"]
    assert "%(t)s" not in configuration.access_log_format
