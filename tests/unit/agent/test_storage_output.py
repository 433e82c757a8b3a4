"""A storage's words on the terminal: as they are, in bounds, and when it is their turn."""

import pytest

from turku.agent.tunnel.storage_output import StorageOutput


def test_lines_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    StorageOutput("primary").show_line("[2020-10-01 06:40:59,439 primary] INFO: hello")
    assert capsys.readouterr().err == "[2020-10-01 06:40:59,439 primary] INFO: hello\n"


def test_a_storage_that_never_stops_talking_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary", limit_characters=1000)
    for _ in range(100):
        output.show_line("x" * 99)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 8
    assert shown[-1] == "storage primary sends more output than is shown here"


def test_an_endless_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    StorageOutput("primary").show_line("x" * 100_000)
    assert len(capsys.readouterr().err) == 2001


def test_lines_can_be_held_back_until_something_else_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary", held_until_released=True, awaited="active on port")
    output.show_line("hello")
    assert not output.has_awaited.is_set()
    output.show_line("Restore mode active on port 1.")
    assert output.has_awaited.is_set()
    assert capsys.readouterr().err == ""
    output.release()
    output.show_line("later")
    assert capsys.readouterr().err == "hello\nRestore mode active on port 1.\nlater\n"


def test_shown_lines_are_remembered_and_held_back_ones_are_not() -> None:
    output = StorageOutput("primary", held_until_released=True)
    output.show_line("Connection closed by 127.0.0.1.")
    assert not output.has_shown("Connection closed by 127.0.0.1.")
    output.release()
    assert output.has_shown("Connection closed by 127.0.0.1.")
    assert not output.has_shown("Connection refused")


def test_held_back_lines_can_be_shown_and_more_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary", held_until_released=True, awaited="active on port")
    output.show_line("the port is taken")
    output.release(holds_next=True)
    assert capsys.readouterr().err == "the port is taken\n"
    output.show_line("Restore mode active on port 2.")
    assert capsys.readouterr().err == ""
    output.release()
    output.release(holds_next=True)
    output.show_line("later")
    assert capsys.readouterr().err == "Restore mode active on port 2.\nlater\n"


def test_warnings_by_the_thousand_take_few_lines_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary")
    with output.summarized():
        for number in range(5800):
            output.show_line(f'[2026-11-29 06:40:59,439 primary] WARNING: proc: opendir "/{number}" failed: x (13)')
            if number % 100 == 0:
                output.show_line(f"[2026-11-29 06:40:59,439 primary] INFO: source {number} begins")
    shown = capsys.readouterr().err.splitlines()
    assert sum("WARNING" in line for line in shown) == 20
    assert sum("INFO" in line for line in shown) == 58
    assert shown[-1] == ('storage primary: 5780 more messages are not shown: 5780 x proc: opendir "..." failed: x (13)')
    assert len(shown) == 20 + 58 + 2


def test_lines_that_no_log_wrote_are_bounded_too(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary")
    with output.summarized():
        for number in range(1000):
            output.show_line(f'file has vanished: "/{number}"')
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 102
    assert shown[-1] == 'storage primary: 900 more messages are not shown: 900 x file has vanished: "..."'


def test_cut_off_lines_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary", limit_characters=1000)
    with output.summarized():
        for number in range(500):
            output.show_line(f"[2026-11-29 06:40:59,439 primary] INFO: {number}")
    shown = capsys.readouterr().err.splitlines()
    assert shown[-2] == "storage primary sends more output than is shown here"
    assert shown[-1] == f"storage primary: {500 - len(shown) + 2} more lines are not shown"


def test_a_line_can_be_a_call_instead_of_being_shown(capsys: pytest.CaptureFixture[str]) -> None:
    output = StorageOutput("primary")
    calls: list[str] = []
    output.call_on("please", lambda: calls.append("forgotten"))
    output.call_on("please", lambda: calls.append("called"))
    for text in ("please?", "please", "please"):
        output.show_line(text)
    # Once: a storage that goes on saying so is a storage that talks.
    assert calls == ["called"]
    assert capsys.readouterr().err == "please?\nplease\n"
