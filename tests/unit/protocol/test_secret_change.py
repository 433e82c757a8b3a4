"""The two phases of a change of secret: what is dropped, and what waits for another run."""

from pathlib import Path

import msgspec
import pytest

from turku.errors import (
    ApiForbidden,
    ApiNotFound,
    ApiRefused,
    ApiRejected,
    ApiThrottled,
    ApiUnreachable,
    ConfigurationError,
    TurkuError,
)
from turku.protocol import secret_change


class Change(msgspec.Struct):
    secret: str


class Asked:
    def __init__(self, error: TurkuError | None = None) -> None:
        self.error = error
        self.sent: list[str] = []
        self.dropped = False

    def carry_out(self, begun: Change | None) -> str:
        return secret_change.carry_out(begun, begin=lambda: Change("new"), finish=self._finish, drop=self._drop)

    def _finish(self, change: Change) -> str:
        self.sent.append(change.secret)
        if self.error:
            raise self.error
        return "done"

    def _drop(self) -> None:
        self.dropped = True


@pytest.mark.parametrize(("begun", "sent"), [(None, "new"), (Change("begun before"), "begun before")])
def test_a_begun_change_is_finished_before_a_new_one_begins(begun: Change | None, sent: str) -> None:
    asked = Asked()
    assert asked.carry_out(begun) == "done"
    assert asked.sent == [sent]


@pytest.mark.parametrize("kind", [ApiRejected, ApiNotFound])
def test_a_certain_refusal_of_the_first_call_drops_the_new_secret(kind: type[ApiRefused]) -> None:
    asked = Asked(kind("no"))
    with pytest.raises(kind) as caught:
        asked.carry_out(None)
    assert asked.dropped
    assert caught.value.hint


@pytest.mark.parametrize("error", [kind("no") for kind in (ApiUnreachable, ApiForbidden, ApiThrottled, ApiRefused)])
def test_a_new_secret_that_may_have_arrived_is_kept(error: TurkuError) -> None:
    asked = Asked(error)
    with pytest.raises(type(error)):
        asked.carry_out(None)
    assert not asked.dropped


@pytest.mark.parametrize("kind", [ApiRejected, ApiForbidden, ApiNotFound, ApiThrottled, ApiUnreachable])
def test_a_secret_of_an_earlier_run_is_never_dropped(kind: type[TurkuError]) -> None:
    asked = Asked(kind("no"))
    with pytest.raises(kind):
        asked.carry_out(Change("begun before"))
    assert not asked.dropped


def test_the_file_of_a_change_is_there_or_not_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    assert secret_change.read_pending(path, Change, hint="x") is None
    path.write_text('{"secret": "s"}')
    assert secret_change.read_pending(path, Change, hint="x") == Change("s")
    path.write_text('{"secret": 1}')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        secret_change.read_pending(path, Change, hint="x")
