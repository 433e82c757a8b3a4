"""Each call asks the database a fixed number of times, however many sources a machine has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from tests.support.api_cast import Cast
from tests.support.v1_client import V1Machine

from turku.api.fleet.models import Machine
from turku.core.clock import SYSTEM_CLOCK


def queries(act: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        act()
    return len([query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]])


def declare(cast: Cast, count: int) -> None:
    cast.alice.update_config({f"source-{number}": {"path": "/x"} for number in range(count)})


def test_a_check_in_costs_one_query_and_three_more_when_something_is_due(cast: Cast) -> None:
    for count in (1, 20):
        declare(cast, count)
        # Is something due? The due sources with machine and storage; then the operator's floor and held-back changes.
        assert queries(cast.alice.due) == 4
    cast.bob.succeeded(cast.alice.uuid, *(f"source-{number}" for number in range(20)))
    assert queries(cast.alice.due) == 1


def test_that_a_machine_was_seen_costs_one_more_query_once_a_minute(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now() - timedelta(minutes=2))
    assert [queries(cast.alice.due) for _ in range(3)] == [2, 1, 1]


@pytest.mark.parametrize(
    "call", ["restorable", "storage due", "report", "update", "change", "weaken", "storage update"]
)
def test_the_other_calls_cost_the_same_for_one_and_for_twenty_sources(cast: Cast, call: str) -> None:
    counts = []
    for count in (1, 20):
        machine = cast.machine(unit_name=f"web-{count}")
        names = [f"source-{number}" for number in range(count)]

        def declare(machine: V1Machine = machine, names: list[str] = names, **options: object) -> None:
            machine.update_config({name: {"path": "/x", **options} for name in names})

        declare()
        acts: dict[str, Callable[[], object]] = {
            "restorable": machine.restorable,
            "storage due": lambda machine=machine: cast.bob.due(machine.uuid),
            "report": lambda machine=machine, names=names: cast.bob.succeeded(machine.uuid, *names),
            "update": declare,
            "change": lambda declare=declare: declare(comment="new"),
            "weaken": lambda declare=declare: declare(exclude=["*.log"]),
            "storage update": cast.bob.update_config,
        }
        counts.append(queries(acts[call]))
    assert counts[0] == counts[1]
    assert counts[0] <= 12
