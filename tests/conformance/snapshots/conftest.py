"""Every test here runs once per snapshot mode that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.storage.snapshots import MODES, SnapshotMode


@pytest.fixture(params=sorted(MODES))
def mode(request: pytest.FixtureRequest) -> type[SnapshotMode]:
    return MODES[request.param]


@pytest.fixture
def machine(mode: type[SnapshotMode], tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, snapshot_mode=mode.name) as machine:
        yield machine
