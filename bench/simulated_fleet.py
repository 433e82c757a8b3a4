"""Machines, storages and backups as events on a simulated clock, against a coordinator that is the real one.

Every message of agents and storages that decides anything is sent and its answer obeyed: registrations, checkins with
something due, the questions and reports of storages. Of the checkins that have nothing due, of which a fleet sends
hundreds for each backup, a share is sent (and its answer checked). The others are counted. The moment when a source is
due is read from the coordinator's database, where the checkin reads it.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import fleet_mix
from bench.coordinator_in_process import CoordinatorInProcess, SimulatedClock, seconds_of
from bench.filled_database import machine_secret, machine_uuid
from bench.session_rules import SessionRules
from tests.support.v1_client import ssh_key

DAY_SECONDS = 86_400.0
PING_SECONDS = 300.0
_UPDATE_CONFIG_SECONDS = DAY_SECONDS / 2
_SESSION_OPENS_SECONDS = 2.0
_REPORT_PAUSES_SECONDS = (1.0, 5.0, 20.0)
"""As in storage/session/server.py: after them the coordinator does not learn of the backup."""
_PARALLEL_SOURCES = 2
SUMMARY = (
    "Number of files: 12,345 (reg: 10,234, dir: 2,001, link: 110)\nNumber of created files: 12 (reg: 12)\n"
    "Number of deleted files: 3 (reg: 3)\nNumber of regular files transferred: 57\n"
    "Total file size: 5,368,709,120 bytes\n"
    "Total transferred file size: 48,234,496 bytes\nLiteral data: 9,437,184 bytes\nMatched data: 38,797,312 bytes\n"
    "File list size: 131,042\nTotal bytes sent: 131,072\nTotal bytes received: 9,961,472"
)
"""As many lines as rsync's statistics have: the record of a run has its real size."""


@dataclass(slots=True, eq=False)
class Source:
    """A source, and when the coordinator has it due."""

    drawn: fleet_mix.DrawnSource
    due: float = 0.0
    is_running: bool = False
    has_backup: bool = False


@dataclass(slots=True, eq=False)
class Machine:
    """A machine. ``next_due`` is the earliest due moment of those of its sources that are not running."""

    uuid: str
    secret: str
    phase: float
    sources: dict[str, Source]
    key: int = 0
    storage: "Storage | None" = None
    next_due: float = 0.0
    session: "Session | None" = None

    def find_next_due(self) -> None:
        """Find ``next_due`` anew."""
        waiting = [source.due for source in self.sources.values() if not source.is_running]
        self.next_due = min(waiting, default=float("inf"))


@dataclass(slots=True, eq=False)
class Storage:
    """A storage and the sessions that it has."""

    name: str
    secret: str
    sessions: "set[Session]" = field(default_factory=set)
    is_down: bool = False

    @property
    def credentials(self) -> dict[str, str]:
        """Return the fields by which it proves its identity."""
        return {"name": self.name, "secret": self.secret}


@dataclass(slots=True, eq=False)
class Session:
    """An agent's session with its storage."""

    machine: Machine
    storage: Storage
    is_first: bool = False
    """True when one of its sources was never backed up."""
    waiting: list[str] = field(default_factory=list)
    runs: "set[Run]" = field(default_factory=set)
    has_unreported: bool = False
    is_over: bool = False


@dataclass(slots=True, eq=False)
class Run:
    """A backup, with times in simulated seconds."""

    source_name: str
    session: Session
    due: float
    begin: float
    is_first: bool
    outcome: str
    end: float


@dataclass(frozen=True, slots=True)
class Start:
    """The record of the beginning of a run."""

    begin: float
    due: float
    is_first: bool
    source: Source


class SimulatedFleet:
    """The events. ``run(until)`` continues, and figures are in the public attributes."""

    def __init__(
        self,
        coordinator: CoordinatorInProcess,
        rules: SessionRules,
        *,
        secrets: tuple[str, str],
        seed: int,
        sent_share: float,
    ) -> None:
        self.coordinator = coordinator
        self.rules = rules
        self.clock: SimulatedClock = coordinator.clock
        self.machines: list[Machine] = []
        self.storages: dict[str, Storage] = {}
        self.is_coordinator_down = False
        self.calls: Counter[str] = Counter()
        """The number of calls by name. Checkins that have something due count beside the others."""
        self.sent: Counter[str] = Counter()
        self.checkins_per_minute: defaultdict[int, int] = defaultdict(int)
        self.turned_away: Counter[int] = Counter()
        """Checkins with something due that got no slot, by the hour."""
        self.starts: list[Start] = []
        self.ends: Counter[str] = Counter()
        self.samples: list[tuple[float, int, int, int]] = []
        """Every five minutes: the moment, running, waiting, and those that wait longer than two pings."""
        self._machine_secret, self._storage_secret = secrets
        self._chance = random.Random(seed)
        self._seed = seed
        self._sent_share = sent_share
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self.at(0.0, self._sample)

    def at(self, moment: float, act: Callable[..., None], *arguments: Any) -> None:
        """Let ``act`` happen then."""
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, act, arguments))

    def run(self, until: float) -> None:
        """Let everything happen that happens before that moment."""
        while self._events and self._events[0][0] < until:
            moment, _number, act, arguments = heapq.heappop(self._events)
            self.clock.seconds = moment
            act(*arguments)
        self.clock.seconds = until

    # Storages

    def add_storage(self, name: str) -> None:
        """Register a storage, which then tells its space every five minutes."""
        storage = self.storages[name] = Storage(name, machine_secret(-1 - len(self.storages)))
        self.report_space(storage, auth=self._storage_secret)
        self.at(self.clock.seconds + self._chance.uniform(0, PING_SECONDS), self._storage_timer, storage)

    def _storage_timer(self, storage: Storage) -> None:
        self.at(self.clock.seconds + PING_SECONDS, self._storage_timer, storage)
        if storage.is_down or self.is_coordinator_down:
            return
        self.calls["storage_update_config"] += 1
        # Each answers with all the machines of the storage: one an hour shows what it costs.
        if self._chance.random() < 1 / 12:
            self.sent["storage_update_config"] += 1
            self.report_space(storage)

    def report_space(self, storage: Storage, auth: str | None = None) -> None:
        """Send the storage's report of its space. With ``auth`` it registers."""
        host_keys = [ssh_key(storage.name.encode().ljust(32, b"."))]
        declared = {
            "name": storage.name,
            "secret": storage.secret,
            "ssh_ping_host": f"{storage.name}.example.com",
            "ssh_ping_host_keys": host_keys,
            "ssh_ping_port": 22,
            "ssh_ping_user": "turku",
            "space_total": 40e6,
            "space_available": 20e6,
            **self.rules.storage_settings,
        }
        self.coordinator.call("storage_update_config", {"storage": declared, **({"auth": auth} if auth else {})})

    # Machines

    def add_machine(self) -> None:
        """Register a new machine now. Its first backups are due at once."""
        number = len(self.machines)
        chance = self._chance
        # Its own draw: a fleet of one seed is the same, whatever else happens.
        drawn = fleet_mix.sources(random.Random(f"{self._seed} {number}"))
        machine = Machine(
            str(machine_uuid(number)),
            machine_secret(number),
            chance.uniform(0, PING_SECONDS),
            {source.name: Source(source) for source in drawn},
        )
        self.machines.append(machine)
        self.declare(machine, number, auth=self._machine_secret)
        from turku.api.fleet.models import Machine as MachineRow

        machine.key, storage = MachineRow.objects.values_list("pk", "storage__name").get(uuid=machine.uuid)
        machine.storage = self.storages[storage]
        self._read_due(machine)
        now = self.clock.seconds
        self.at(now - now % PING_SECONDS + machine.phase + PING_SECONDS, self._ping, machine)
        self.at(now + chance.uniform(0, _UPDATE_CONFIG_SECONDS), self._update_timer, machine, number)

    def declare(self, machine: Machine, number: int, auth: str | None = None) -> None:
        """Send the machine's configuration. With ``auth`` it registers."""
        declared = {
            "uuid": machine.uuid,
            "secret": machine.secret,
            "environment_name": f"environment-{number % 60}",
            "service_name": f"service-{number % 400}",
            "unit_name": f"unit-{number}",
            "ssh_public_key": ssh_key(f"machine {number}".encode().ljust(32, b".")),
            "sources": {
                name: {"path": f"/{name}", "frequency": source.drawn.frequency}
                for name, source in machine.sources.items()
            },
        }
        self.coordinator.call("update_config", {"machine": declared, **({"auth": auth} if auth else {})})

    def _update_timer(self, machine: Machine, number: int) -> None:
        self.at(self.clock.seconds + _UPDATE_CONFIG_SECONDS, self._update_timer, machine, number)
        if self.is_coordinator_down:
            return
        self.calls["update_config"] += 1
        if self._chance.random() < self._sent_share:
            self.sent["update_config"] += 1
            self.declare(machine, number)

    def _read_due(self, machine: Machine) -> None:
        from turku.api.backups.models import Source as SourceRow

        for name, moment in SourceRow.objects.filter(machine=machine.key).values_list("name", "date_next_backup"):
            machine.sources[name].due = seconds_of(moment)
        machine.find_next_due()

    def _ping(self, machine: Machine) -> None:
        now = self.clock.seconds
        # systemd's FixedRandomDelay: each machine keeps its moment, give or take a second.
        following = now - (now - machine.phase) % PING_SECONDS + PING_SECONDS
        self.at(following + self._chance.random(), self._ping, machine)
        # The timer starts no second agent while one is at work.
        if machine.session is not None or self.is_coordinator_down:
            return
        self.checkins_per_minute[int(now // 60)] += 1
        storage = machine.storage
        assert storage is not None
        is_due = machine.next_due <= now
        name = "agent_ping_checkin, due" if is_due else "agent_ping_checkin"
        self.calls[name] += 1
        is_known = not is_due or storage.is_down
        if is_known and self._chance.random() >= self._sent_share:
            return
        self.sent[name] += 1
        orders = self.checkin(machine, name)
        if not is_due:
            if orders:
                raise AssertionError(f"nothing is due of {machine.uuid}, and the coordinator orders {list(orders)}")
            return
        if storage.is_down:
            return
        session = Session(machine, storage, is_first=any(not machine.sources[name].has_backup for name in orders))
        if orders and self.rules.may_open(self, session):
            machine.session = session
            self.at(now + _SESSION_OPENS_SECONDS, self._open, session)
        else:
            self.turned_away[int(now // 3600)] += 1

    def checkin(self, machine: Machine, cost: str) -> dict[str, Any]:
        """The orders that the coordinator gives the machine now."""
        message = {"machine": {"uuid": machine.uuid, "secret": machine.secret}}
        answer = self.coordinator.call("agent_ping_checkin", message, cost=cost)
        orders: dict[str, Any] = answer["machine"]["scheduled_sources"]
        return orders

    # Sessions and runs

    def _open(self, session: Session) -> None:
        storage, machine = session.storage, session.machine
        if storage.is_down or self.is_coordinator_down:
            machine.session = None
            return
        self.calls["storage_ping_checkin"] += 1
        message = {"storage": storage.credentials, "machine": {"uuid": machine.uuid}, **self.rules.session_settings}
        answer = self.coordinator.call("storage_ping_checkin", message)["machine"]
        session.waiting = list(answer["scheduled_sources"])
        if not session.waiting:
            machine.session = None
            return
        storage.sessions.add(session)
        self.rules.opened(self, session)
        self._go_on(session)

    def _go_on(self, session: Session) -> None:
        """Begin as many of the session's sources as may run side by side, or end it."""
        while session.waiting and len(session.runs) < _PARALLEL_SOURCES:
            name = session.waiting.pop(0)
            self._begin(session, name, session.machine.sources[name])
        if not session.runs:
            self._close(session, is_killed=False)

    def _close(self, session: Session, *, is_killed: bool) -> None:
        for run in list(session.runs):
            self.ends["killed"] += 1
            self._forget(run)
        session.is_over = True
        session.storage.sessions.discard(session)
        session.machine.session = None
        session.machine.find_next_due()
        self.rules.closed(self, session, is_killed=is_killed, has_unreported=session.has_unreported)

    def _begin(self, session: Session, name: str, source: Source) -> None:
        now, chance = self.clock.seconds, self._chance
        is_first = not source.has_backup
        drawn = chance.random()
        outcome = "success"
        seconds = fleet_mix.duration_seconds(chance, size_gib=source.drawn.size_gib, is_first=is_first)
        if drawn < fleet_mix.KILLED_SHARE:
            outcome, seconds = "killed", seconds * chance.random()
        elif drawn < fleet_mix.KILLED_SHARE + fleet_mix.FAILED_SHARE:
            outcome, seconds = "failure", fleet_mix.failure_seconds(chance)
        run = Run(name, session, source.due, now, is_first, outcome, now + seconds)
        source.is_running = True
        session.runs.add(run)
        self.starts.append(Start(now, source.due, is_first, source))
        session.machine.find_next_due()
        self.at(run.end, self._end, run)

    def _end(self, run: Run) -> None:
        if run not in run.session.runs:
            return
        if run.outcome == "killed":
            # What kills a run kills the session, and its other runs with it.
            self._close(run.session, is_killed=True)
        else:
            self._report(run, 0)

    def _report(self, run: Run, tries: int) -> None:
        if run not in run.session.runs:
            return
        if self.is_coordinator_down:
            if tries < len(_REPORT_PAUSES_SECONDS):
                self.at(self.clock.seconds + _REPORT_PAUSES_SECONDS[tries], self._report, run, tries + 1)
                return
            self.ends["unreported"] += 1
            # The tree is there: the next run finds it unchanged.
            run.session.machine.sources[run.source_name].has_backup |= run.outcome == "success"
            run.session.has_unreported = True
            self._forget(run)
            self._go_on(run.session)
            return
        session = run.session
        is_good = run.outcome == "success"
        report = {
            "success": is_good,
            "snapshot": f"{run.source_name}_20260601-000000_{len(self.starts) & 0xFFFF:04x}" if is_good else None,
            "summary": SUMMARY if is_good else "rsync: connection unexpectedly closed (code 12)",
            "time_begin": self.clock.now().timestamp() - (self.clock.seconds - run.begin),
            "time_end": self.clock.now().timestamp(),
        }
        machine = {"uuid": session.machine.uuid, "sources": {run.source_name: report}}
        self.calls["storage_ping_source_update"] += 1
        self.coordinator.call(
            "storage_ping_source_update", {"storage": session.storage.credentials, "machine": machine}
        )
        self.ends[run.outcome] += 1
        session.machine.sources[run.source_name].has_backup |= is_good
        self._forget(run)
        self._read_due(session.machine)
        self._go_on(session)

    def _forget(self, run: Run) -> None:
        run.session.runs.discard(run)
        run.session.machine.sources[run.source_name].is_running = False
        run.session.machine.find_next_due()

    # Outages

    def storage_goes_down(self, storage: Storage) -> None:
        """Every session ends without a report."""
        storage.is_down = True
        for session in list(storage.sessions):
            self._close(session, is_killed=True)

    # Samples

    def _sample(self) -> None:
        now = self.clock.seconds
        self.at(now + PING_SECONDS, self._sample)
        running = sum(len(session.runs) for storage in self.storages.values() for session in storage.sessions)
        waiting = late = 0
        for machine in self.machines:
            if machine.next_due <= now:
                for source in machine.sources.values():
                    if not source.is_running and source.due <= now:
                        waiting += 1
                        late += now - source.due > 2 * PING_SECONDS
        self.samples.append((now, running, waiting, late))

    def backlog(self) -> set[Source]:
        """The sources that are due now and not running."""
        now = self.clock.seconds
        return {
            source
            for machine in self.machines
            for source in machine.sources.values()
            if source.due <= now and not source.is_running
        }
