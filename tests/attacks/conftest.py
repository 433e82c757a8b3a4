"""A real coordinator for the attacks on the API: `turku-api serve` with its workers, on SQLite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """One that all attacks share. Its throttle is off: test_n2_guessing.py has a coordinator of its own."""
    state_dir = tmp_path_factory.mktemp("attacked") / "state"
    with Coordinator(state_dir, environment={"TURKU_BAD_CREDENTIALS_PER_MINUTE": "0"}) as running:
        yield running


@pytest.fixture
def cast(coordinator: Coordinator) -> HttpCast:
    """Alice, a machine, and Bob, her storage: this test's own."""
    return HttpCast.introduce(coordinator)
