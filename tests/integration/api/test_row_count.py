"""`health` counts tables that are large without reading them."""

from pathlib import Path

import pytest
from tests.support.coordinator import Coordinator
from tests.support.postgresql import PostgresqlServer

ROWS = 20_000
_NUMBERS = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS})"
_FILL = f"""
INSERT INTO fleet_filterset (name, rules, comment, active)
{_NUMBERS} SELECT 'set-' || n, '[]', '', TRUE FROM numbers
"""


def filter_sets(coordinator: Coordinator) -> int:
    return int(coordinator.call("health", {}).json()["counts"]["filter_set"])


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def test_many_rows_are_estimated_and_few_counted(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = None
    if engine == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        url = server.create_database("many_rows")
    with Coordinator(tmp_path / "state", url, workers=1) as coordinator:
        coordinator.sql(_FILL)
        # Nobody looked at the table since: the estimate may be old, never absurd.
        assert 10_000 <= filter_sets(coordinator) <= ROWS
        coordinator.sql("ANALYZE")
        assert filter_sets(coordinator) == ROWS
        coordinator.sql(
            f"DELETE FROM fleet_filterset WHERE id > (SELECT min(id) + {ROWS // 5 - 1} FROM fleet_filterset)"
        )
        assert filter_sets(coordinator) == ROWS // 5
