"""Thousands of messages take a bounded number of lines, and their number is said."""

import logging
import threading

import pytest

from turku.core.program_output.bounded_log import SHOWN, MessageCounter, bounded_log, kind_of

LOGGER = logging.getLogger("turku.test")


def test_the_first_are_shown_and_the_rest_counted_by_kind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with bounded_log(LOGGER, "etc") as log:
        for number in range(5000):
            log(f'failed to open "/{number}": Permission denied (13)')
        for number in range(800):
            log(f'file has vanished: "/{number}"')
    assert caplog.messages[:SHOWN] == [
        f'etc: failed to open "/{number}": Permission denied (13)' for number in range(SHOWN)
    ]
    assert caplog.messages[SHOWN:] == [
        "etc: more messages follow; they are counted and not shown",
        f'etc: {5800 - SHOWN} more messages are not shown: {5000 - SHOWN} x failed to open "...": '
        'Permission denied (13), 800 x file has vanished: "..."',
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_as_many_as_are_shown_need_no_count(caplog: pytest.LogCaptureFixture) -> None:
    with bounded_log(LOGGER, "etc") as log:
        for number in range(SHOWN):
            log(str(number))
    assert len(caplog.messages) == SHOWN


def test_debugging_shows_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with bounded_log(LOGGER, "etc") as log:
        for number in range(100):
            log(str(number))
    assert len(caplog.messages) == 102


def test_the_count_is_said_also_where_the_block_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        with bounded_log(LOGGER, "etc", shown=1) as log:
            log("a")
            log("b")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert caplog.messages[-1] == "etc: 1 more messages are not shown: 1 x b"


def test_kinds_without_end_take_no_memory() -> None:
    counted = MessageCounter(shown=0)
    for number in range(10_000):
        counted.take(str(number))
    summary = counted.summary()
    assert summary.startswith("10000 more messages are not shown: 9970 x of other kinds")
    assert len(summary) < 1000
    assert counted.summary() == ""


def test_threads_count_together() -> None:
    counted = MessageCounter(shown=10)
    shown: list[bool] = []

    def take() -> None:
        shown.extend(counted.take("x")[0] for _ in range(1000))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(shown) == 10
    assert counted.summary() == "7990 more messages are not shown: 7990 x x"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('opendir "/a/b" (in etc) failed: x (13)', 'opendir "..." (in etc) failed: x (13)'),
        ('a "b" c "d" e', 'a "..." e'),
        ("nothing quoted", "nothing quoted"),
        ("x" * 1000, "x" * 120),
    ],
)
def test_a_kind_is_the_text_without_what_it_quotes(text: str, kind: str) -> None:
    assert kind_of(text) == kind
