"""Repetition of an action that may fail for a while."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

SERVICE_PAUSES_SECONDS = (1.0, 5.0, 20.0)
"""Pauses for a service on the network that may be restarting."""


def call(
    action: Callable[[], T],
    *,
    on: type[Exception],
    sleep: Callable[[float], object],
    pauses_seconds: Sequence[float] = SERVICE_PAUSES_SECONDS,
    note: Callable[[Exception], object] = lambda _error: None,
) -> T:
    """Return the result of the action, called again after each pause while it raises ``on``.

    ``note`` is told of each error that a pause follows. Raises the error of the last attempt, and any other at once.
    """
    for pause_seconds in pauses_seconds:
        try:
            return action()
        except on as error:
            note(error)
        sleep(pause_seconds)
    return action()
