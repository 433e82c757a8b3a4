"""The clock gives aware moments in UTC."""

from datetime import UTC, timedelta

from turku.core.clock import SYSTEM_CLOCK


def test_now_is_aware_and_in_utc() -> None:
    moment = SYSTEM_CLOCK.now()
    assert moment.tzinfo is UTC
    assert moment.utcoffset() == timedelta(0)


def test_monotonic_seconds_pass_while_sleeping() -> None:
    before = SYSTEM_CLOCK.monotonic_seconds()
    SYSTEM_CLOCK.sleep(0.01)
    assert SYSTEM_CLOCK.monotonic_seconds() - before >= 0.01
