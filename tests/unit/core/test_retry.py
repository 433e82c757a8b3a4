"""Repetition of an action that may fail for a while."""

import pytest

from turku.core import retry


class Action:
    def __init__(self, *outcomes: Exception | str) -> None:
        self.outcomes = list(outcomes)
        self.slept: list[float] = []
        self.noted: list[str] = []

    def __call__(self) -> str:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def run(self, *pauses: float) -> str:
        return retry.call(
            self,
            on=OSError,
            sleep=self.slept.append,
            pauses_seconds=pauses,
            note=lambda error: self.noted.append(str(error)),
        )


def test_it_is_called_again_after_each_pause_until_it_succeeds() -> None:
    action = Action(OSError("one"), OSError("two"), "good")
    assert action.run(1, 5, 20) == "good"
    assert (action.slept, action.noted) == ([1, 5], ["one", "two"])


def test_the_last_error_is_raised_when_there_is_no_pause_left() -> None:
    action = Action(OSError("one"), OSError("two"))
    with pytest.raises(OSError, match="two"):
        action.run(1)
    assert (action.slept, action.noted) == ([1], ["one"])


def test_another_error_is_raised_at_once() -> None:
    action = Action(ValueError("other"))
    with pytest.raises(ValueError, match="other"):
        action.run(1, 5)
    assert action.slept == []
