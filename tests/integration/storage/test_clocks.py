"""Backups whose clock was wrong, and the hour that a clock shows twice: what is built upon what, and kept."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration.declaration import with_values
from turku.policy import names
from turku.protocol.messages import SessionRequest
from turku.storage import catalog
from turku.storage.commands import check
from turku.storage.disk import history, snapshot_record
from turku.storage.integrity import drill
from turku.storage.session.cancellation import SessionCancellation
from turku.storage.session.checkin import Checkin


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(
        tmp_path, volume=tmp_path / "storage" / "volume", timezone="Europe/Helsinki", sandbox="off"
    ) as machine:
        yield machine


def back_up(machine: BackedUpMachine, moment: datetime, content: str, **options: object) -> str:
    """Back up at the moment, with a file of this content, and return the name of the snapshot."""
    machine.clock.moment = moment - timedelta(minutes=1)
    (machine.source_dir / "file").write_text(content)
    outcome = machine.back_up(**options)
    assert outcome.success, outcome.summary
    assert outcome.snapshot is not None
    return outcome.snapshot


def base_of(machine: BackedUpMachine, snapshot: str) -> str | None:
    written = snapshot_record.read(machine.place, snapshot)
    assert written is not None
    return written.base


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_snapshot_of_a_clock_that_was_ahead_is_no_base_and_is_reported(machine: BackedUpMachine) -> None:
    first = back_up(machine, NOW, "first")
    ahead = back_up(machine, NOW + timedelta(days=3650), "of a wrong clock")
    machine.clock.moment = NOW + timedelta(hours=1)
    (machine.source_dir / "file").write_text("second")
    outcome = machine.back_up()
    assert outcome.snapshot is not None
    assert base_of(machine, outcome.snapshot) == first
    (warning,) = outcome.warnings
    assert ahead in warning
    assert "clock" in warning
    assert outcome.summary.startswith(warning)
    third = back_up(machine, NOW + timedelta(hours=2), "third")
    assert base_of(machine, third) == outcome.snapshot


def test_snapshots_made_since_stay_newer_when_the_wrong_date_has_come(machine: BackedUpMachine) -> None:
    back_up(machine, NOW, "first")
    back_up(machine, NOW + timedelta(days=1), "of a wrong clock")
    since = back_up(machine, NOW + timedelta(hours=1), "since")
    third = back_up(machine, NOW + timedelta(days=2), "third")
    assert base_of(machine, third) == since


def test_the_catalog_knows_all_snapshots_while_one_is_of_the_future(machine: BackedUpMachine) -> None:
    made = [back_up(machine, NOW + timedelta(days=day), f"day {day}") for day in range(3)]
    made.append(back_up(machine, NOW + timedelta(days=3650), "of a wrong clock"))
    made += [back_up(machine, NOW + timedelta(days=day), f"day {day}, later") for day in range(3, 6)]
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
        assert {each.name for each in opened.snapshots()} == set(made)
        for name in made:
            entry = opened.entry(name, b"file")
            assert entry is not None
            assert entry.size == (machine.place.tree(name) / "file").stat().st_size


def test_a_drill_restores_the_newest_whose_date_is_not_in_doubt(machine: BackedUpMachine) -> None:
    first = back_up(machine, NOW, "first")
    back_up(machine, NOW + timedelta(days=3650), "of a wrong clock")
    machine.clock.moment = NOW + timedelta(hours=1)
    made = drill.drill(machine.storage, machine.place, clock=machine.clock)
    assert made.is_good, made.problems
    assert made.snapshot == first


@pytest.fixture
def autumn(machine: BackedUpMachine) -> list[str]:
    """Snapshots of 25 October 2026, when clocks in Helsinki go from 04:00 back to 03:00: 03:20, 03:50, 03:20, 03:50."""
    begin = datetime(2026, 10, 25, 0, 20, tzinfo=UTC)
    return [back_up(machine, begin + timedelta(minutes=30 * number), f"backup {number}") for number in range(4)]


def test_the_hour_that_comes_twice_leaves_snapshots_in_the_order_of_their_making(
    machine: BackedUpMachine, autumn: list[str]
) -> None:
    hours = [name[4:17] for name in autumn]
    assert hours == ["20261025-0320", "20261025-0350"] * 2
    assert machine.snapshots() == autumn
    assert [base_of(machine, name) for name in autumn] == [None, *autumn[:-1]]
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
        assert [each.name for each in opened.snapshots()] == autumn
        versions = opened.history(b"file")
        assert [each.first for each in versions] == autumn[::-1] or [each.first for each in versions] == autumn


def test_retention_counts_the_hour_that_comes_twice_as_two(machine: BackedUpMachine, autumn: list[str]) -> None:
    last = back_up(machine, datetime(2026, 10, 25, 2, 20, tzinfo=UTC), "last", retention="last 3 snapshots")
    assert machine.snapshots() == [*autumn[-2:], last]


def test_the_state_at_a_time_of_that_hour_is_that_of_its_second_pass(
    machine: BackedUpMachine, autumn: list[str]
) -> None:
    zone = machine.storage.state.timezone
    with catalog.open_catalog(machine.place, zone=zone) as opened:
        at = "2026-10-25T01:25:00+00:00"
        chosen = catalog.choose(opened.snapshots(), at=at, now=machine.clock.now(), zone=zone)
    assert chosen == autumn[2]


def test_two_backups_of_one_second_have_names_in_their_order(machine: BackedUpMachine) -> None:
    made = []
    for number in range(4):
        made.append(back_up(machine, NOW + timedelta(milliseconds=number), f"backup {number}"))
    assert made == sorted(made)
    assert [each.name for each in history.stored_snapshots(machine.place, machine.storage.state.timezone)] == made
    parsed = names.parse_snapshot_name(made[0], source="etc", zone=machine.storage.state.timezone)
    assert parsed.moment == NOW


# --- the clock of the coordinator


@contextmanager
def coordinator(answer: bytes, *, ahead: timedelta = timedelta(0)) -> Iterator[str]:
    """The address of a coordinator that answers every call so, and whose clock is ahead of this one's."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response_only(200)
            self.send_header("Date", format_datetime(datetime.now(UTC) + ahead, usegmt=True))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join(10)


HEALTHY = b'{"healthy": true, "date": "2026-11-24", "counts": {}}'


def checked(machine: BackedUpMachine, api_url: str, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    lines: list[str] = []
    check.report(with_values(machine.storage, api_url=api_url), lines.append, clock=clock)
    return lines


def test_check_compares_the_clock_with_the_coordinators(machine: BackedUpMachine) -> None:
    with coordinator(HEALTHY) as api_url:
        assert "  clock: as the coordinator's" in checked(machine, api_url)
    with coordinator(HEALTHY, ahead=timedelta(minutes=20)) as api_url:
        (problem,) = (line for line in checked(machine, api_url) if "clock of the coordinator" in line)
    assert problem.startswith("PROBLEM: the clock of this storage is 20 min behind the clock of the coordinator")
    (line,) = (line for line in checked(machine, "http://127.0.0.1:1/v1") if line.startswith("  clock:"))
    assert "not compared" in line


def test_check_names_sources_with_snapshots_of_the_future(machine: BackedUpMachine) -> None:
    back_up(machine, NOW, "first")
    ahead = back_up(machine, NOW + timedelta(days=3650), "of a wrong clock")
    machine.clock.moment = NOW + timedelta(hours=1)
    with coordinator(HEALTHY) as api_url:
        found = [line for line in checked(machine, api_url, machine.clock) if ahead in line]
        assert len(found) == 1
        assert found[0].startswith("PROBLEM: source etc of ")
        machine.clock.moment = NOW + timedelta(days=4000)
        assert not [line for line in checked(machine, api_url, machine.clock) if ahead in line]


def test_a_session_reports_a_wrong_clock_to_its_log_and_the_coordinator(
    machine: BackedUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = machine.machine_dir.name
    answer = json.dumps({"machine": {"uuid": uuid, "scheduled_sources": {}}}).encode()
    with coordinator(answer, ahead=timedelta(hours=-3)) as api_url, SessionCancellation(None) as agent:
        request = SessionRequest("checkin", 50000)
        session = Checkin(with_values(machine.storage, api_url=api_url), uuid, request, agent, SYSTEM_CLOCK)
        session.run()
    (warning,) = session.warnings
    assert warning.startswith("the clock of this storage is 3 h ahead of the clock of the coordinator")
    assert warning in caplog.text
