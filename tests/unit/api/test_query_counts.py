"""Each call asks the database a fixed number of times, however many sources a machine has."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from tests.support.api_cast import Cast
from tests.support.v1_client import V1Machine

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.queue.models import Slot, WaitingMachine
from turku.core.clock import SYSTEM_CLOCK


def queries(act: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        act()
    return len([query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]])


def declare(cast: Cast, count: int) -> None:
    cast.alice.update_config({f"source-{number}": {"path": "/x"} for number in range(count)})


def test_a_checkin_costs_one_query_and_seven_with_something_due_for_which_there_is_a_slot(cast: Cast) -> None:
    for count in (1, 20):
        declare(cast, count)
        cast.bob.failed(cast.alice.uuid, "etc")
        Source.objects.update(date_next_backup=SYSTEM_CLOCK.now() - timedelta(minutes=1))
        Slot.objects.update(machine=None)
        # Is something due? The due sources with machine and storage. The storage's slots, the machine's place in the
        # queue, taking a slot. Then the operator's floor and held-back changes.
        assert queries(cast.alice.due) == 7
        # It has its slot.
        assert queries(cast.alice.due) == 5
    cast.bob.succeeded(cast.alice.uuid, "etc", "home", *(f"source-{number}" for number in range(20)))
    assert queries(cast.alice.due) == 1


def test_a_checkin_that_waits_for_a_slot_costs_five_queries_however_long_the_queue(cast: Cast) -> None:
    cast.bob.update_config(slots=2)
    now = SYSTEM_CLOCK.now()
    storage = Storage.objects.get()
    for number in (1, 40):
        others = [cast.machine(unit_name=f"web-{each}") for each in range(number)]
        for each in others:
            each.update_config({"etc": {"path": "/etc"}})
            each.due()
        assert WaitingMachine.objects.filter(storage=storage).count() >= number - 1
        Slot.objects.filter(lane="first").update(
            machine=Machine.objects.get(uuid=others[0].uuid), date_expires=now + timedelta(minutes=3)
        )
        cast.alice.due()
        assert queries(cast.alice.due) == 5


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
        acts: dict[str, Callable[..., object]] = {
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
    # One of them looks for other machines of the same name.
    assert counts[0] <= 14
