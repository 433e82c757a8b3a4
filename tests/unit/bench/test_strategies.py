"""A benchmark fails when the way that it names was not the one taken."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.contenders import STRATEGIES, Turku

from turku.protocol import messages


def turku(tmp_path: Path, strategy: str, reason: str = "") -> Turku:
    """One whose last run the coordinator knows so."""
    fleet: Any = SimpleNamespace(
        query=lambda *_arguments: [(strategy, reason)], coordinator=SimpleNamespace(key=lambda uuid: uuid)
    )
    made = Turku(tmp_path, tmp_path, fleet)
    made.machine = SimpleNamespace(uuid="any")  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(("step", "strategy"), STRATEGIES.items())
def test_each_step_takes_its_way(tmp_path: Path, step: str, strategy: str) -> None:
    assert strategy in messages.STRATEGIES
    turku(tmp_path, strategy).require_path(step)
    for other in {*messages.STRATEGIES, ""} - {strategy}:
        with pytest.raises(AssertionError, match="rsync said no"):
            turku(tmp_path, other, "rsync said no").require_path(step)


def test_a_restore_has_none(tmp_path: Path) -> None:
    turku(tmp_path, "").require_path("restore")
