"""Fixtures of the coordinator's unit tests."""

from collections.abc import Iterator

import pytest
from tests.support.api_cast import Cast, introduce

from turku.api.fleet.identity import throttle, work_limit


@pytest.fixture(autouse=True)
def _unthrottled() -> Iterator[None]:
    """Forget this process's record of bad credentials at the end of each test."""
    yield
    throttle.CREDENTIALS.forget()
    throttle.LOGINS.forget()
    work_limit.CONFIGURATIONS.forget()
    work_limit.REGISTRATIONS.forget()


@pytest.fixture
def cast(db: None) -> Cast:
    """Alice and Bob, registered."""
    return introduce()
