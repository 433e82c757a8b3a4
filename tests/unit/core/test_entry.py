"""The end of every program: its text on standard error and its exit code."""

import signal
from collections.abc import Callable, Iterator, Sequence

import pytest

from turku.core.cli import entry
from turku.errors import ApiForbidden, ConfigurationError


@pytest.fixture(autouse=True)
def _signals_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.argv", ["turku-test", "--option"])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def exit_code(main: Callable[[Sequence[str]], int]) -> int:
    with pytest.raises(SystemExit) as ended:
        entry.run(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def fails_with(error: BaseException) -> Callable[[Sequence[str]], int]:
    def main(_arguments: Sequence[str]) -> int:
        raise error

    return main


def test_main_gets_the_arguments_and_gives_the_exit_code() -> None:
    assert exit_code(lambda arguments: len(arguments) + 41) == 42


def test_an_error_of_ours_is_shown_with_code_evidence_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = ApiForbidden("refused with 403", details="first line\nsecond line", hint="check the secrets")
    assert exit_code(fails_with(error)) == ApiForbidden.exit_code
    assert capsys.readouterr().err.splitlines() == [
        "error [api-refused]: refused with 403",
        "  | first line",
        "  | second line",
        "  hint: check the secrets",
    ]


def test_a_message_alone_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(fails_with(ConfigurationError("api_url: is required"))) == 78
    assert capsys.readouterr().err == "error [configuration]: api_url: is required\n"


def test_a_fault_of_ours_is_one_line_with_its_place_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TURKU_DEBUG", raising=False)
    assert exit_code(fails_with(ZeroDivisionError("division by zero"))) == entry.EXIT_INTERNAL
    shown = capsys.readouterr().err
    assert shown.startswith("error [internal]: ZeroDivisionError: division by zero (at ")
    assert "test_entry.py:" in shown
    assert "Traceback" not in shown


def test_an_interrupted_program_ends_as_the_shell_expects(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(fails_with(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program_through_its_cleaning_up(number: int) -> None:
    cleaned: list[str] = []

    def main(_arguments: Sequence[str]) -> int:
        try:
            signal.raise_signal(number)
        finally:
            # The second signal, and one of the other kind, change nothing.
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            cleaned.append("done")
        return 0

    assert exit_code(main) == 128 + number
    assert cleaned == ["done"]


def test_children_that_the_cleaning_up_starts_can_be_ended() -> None:
    def main(_arguments: Sequence[str]) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    exit_code(main)
    # An ignored signal stays ignored after exec, a handler does not.
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN


def test_a_handler_for_errors_does_not_swallow_the_end() -> None:
    def main(_arguments: Sequence[str]) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            return 0
        return 1

    assert exit_code(main) == 143
