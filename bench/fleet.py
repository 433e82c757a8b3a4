"""A fleet over a simulated week against the real coordinator on a fast clock: load, queues, and a day's outage.

Run by hand from the checkout: `.venv/bin/python -m bench.fleet` (`--quick` for a small fleet that only shows that
everything works, `--machines`, `--days`, `--outage` for more). The coordinator runs in this process, on a PostgreSQL
server of the benchmark's own or, with `--database sqlite`, on SQLite. Nothing listens on the network. Prints tables.
`--output DIRECTORY` also writes figures.json and plots. docs/scale.md has the method, and carries the figures on.
"""

import argparse
import gc
import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import line_plots, processor_time, schedule_spread
from bench.coordinator_in_process import (
    CallCost,
    CoordinatorInProcess,
    RowsWritten,
    SimulatedClock,
    rows_written,
    table_sizes,
)
from bench.line_plots import Line, Panel
from bench.session_rules import CoordinatorSlots, SessionRules, StorageLimits
from bench.simulated_fleet import DAY_SECONDS, SimulatedFleet, Source, Start
from tests.support.postgresql import PostgresqlServer

HOUR = 3600.0
MACHINES = 2000
MACHINES_PER_STORAGE = 400
WARM_UP_SECONDS = 2 * DAY_SECONDS
"""In which the fleet is enrolled and has its first backups."""
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DRAINED_SHARES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Snapshot:
    """All counters at a moment."""

    calls: dict[str, int]
    sent: dict[str, int]
    answered: dict[str, int]
    database_seconds: float
    rows: dict[str, RowsWritten]
    ends: dict[str, int]
    starts: int


@dataclass
class Drain:
    """The time in which a backlog was worked off. Hours are counted from the end of the outage."""

    kind: str
    begin: float
    end: float
    backlog: int
    unreported: int
    hours: dict[str, float | None] = field(default_factory=dict)


class Experiment:
    """A fleet, its coordinator, and the figures that are taken."""

    def __init__(self, fleet: SimulatedFleet, database_pid: int | None) -> None:
        self.fleet = fleet
        self._database_pid = database_pid
        self.drains: list[Drain] = []

    def database_seconds(self) -> float:
        """Return the processor time of the database server so far, or 0 for SQLite, which is part of this process."""
        if self._database_pid is None:
            return 0.0
        return processor_time.seconds(processor_time.with_descendants(self._database_pid))

    def snapshot(self) -> Snapshot:
        fleet = self.fleet
        answered = {name: len(cost.seconds) for name, cost in fleet.coordinator.costs.items()}
        return Snapshot(
            dict(fleet.calls),
            dict(fleet.sent),
            answered,
            self.database_seconds(),
            rows_written(),
            dict(fleet.ends),
            len(fleet.starts),
        )

    def enrol(self, machines: int, storages: int, *, days: float) -> None:
        """Storages at once, machines spread over the days."""
        fleet = self.fleet
        for number in range(storages):
            fleet.add_storage(f"storage-{number:02}")
        for number in range(machines):
            fleet.at(number / machines * days * DAY_SECONDS, fleet.add_machine)

    def newcomers(self, per_day: float, *, begin: float, end: float) -> None:
        """Further machines while the fleet is at work."""
        count = int(per_day * (end - begin) / DAY_SECONDS)
        for number in range(count):
            self.fleet.at(begin + (number + 0.5) / count * (end - begin), self.fleet.add_machine)

    def outage(self, kind: str, begin: float, *, watch_days: float) -> None:
        """A day without the coordinator, or without the first storage, and some days to recover."""
        fleet, end = self.fleet, begin + DAY_SECONDS
        unreported = fleet.ends["unreported"]
        fleet.run(begin)
        if kind == "coordinator":
            fleet.is_coordinator_down = True
        else:
            storage = next(iter(fleet.storages.values()))
            fleet.storage_goes_down(storage)
        fleet.run(end)
        if kind == "coordinator":
            fleet.is_coordinator_down = False
        else:
            storage.is_down = False
        backlog = fleet.backlog()
        first = len(fleet.starts)
        drain = Drain(kind, begin, end, len(backlog), fleet.ends["unreported"] - unreported)
        fleet.run(end + watch_days * DAY_SECONDS)
        begun: dict[Source, float] = {}
        for start in fleet.starts[first:]:
            if start.source in backlog:
                begun.setdefault(start.source, (start.begin - end) / HOUR)
        hours = sorted(begun.values())
        for share in _DRAINED_SHARES:
            wanted = max(round(share * len(backlog)), 1)
            drain.hours[f"{share:.0%}"] = hours[wanted - 1] if 0 < wanted <= len(hours) else None
        self.drains.append(drain)


@dataclass(frozen=True)
class Sampled:
    """The cost of one of the calls of which a share is sent: processor seconds here, in the database, and rows."""

    here: float
    database: float
    rows: float


def _burst(experiment: Experiment, count: int, act: Callable[[int], Any]) -> Sampled:
    """The cost of an action done ``count`` times: the median here, for others use the processor too, else the mean."""
    rows = sum(row.whole for row in rows_written().values())
    begun, each = experiment.database_seconds(), []
    for number in range(count):
        taken = time.process_time()
        act(number)
        each.append(time.process_time() - taken)
    database = experiment.database_seconds() - begun
    rows = sum(row.whole for row in rows_written().values()) - rows
    return Sampled(statistics.median(each), database / count, rows / count)


def sampled_costs(experiment: Experiment) -> dict[str, Sampled]:
    """The cost of the calls that are sent in part, by bursts of them on the fleet as it is now."""
    fleet = experiment.fleet
    idle = [machine for machine in fleet.machines if machine.next_due > fleet.clock.seconds + HOUR]
    storages = list(fleet.storages.values())

    def checkin(number: int) -> None:
        # A minute apart for each machine, so that each is noted as in life.
        fleet.clock.seconds += 120 / len(idle)
        fleet.checkin(idle[number % len(idle)], "burst")

    def declare(number: int) -> None:
        machine_number = number * 7919 % len(fleet.machines)
        fleet.declare(fleet.machines[machine_number], machine_number)

    return {
        "agent_ping_checkin": _burst(experiment, 2000, checkin),
        "update_config": _burst(experiment, 300, declare),
        "storage_update_config": _burst(
            experiment, 30, lambda number: fleet.report_space(storages[number % len(storages)])
        ),
    }


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def latencies(starts: list[Start]) -> dict[str, dict[str, float]]:
    """Seconds from due to the beginning of the run, of first and of other backups."""
    figures: dict[str, dict[str, float]] = {}
    for name, chosen in (
        ("first backups", [start.begin - start.due for start in starts if start.is_first]),
        ("other backups", [start.begin - start.due for start in starts if not start.is_first]),
    ):
        figures[name] = {
            "count": len(chosen),
            "median_seconds": statistics.median(chosen) if chosen else 0.0,
            "p99_seconds": _percentile(chosen, 0.99),
            "worst_seconds": max(chosen, default=0.0),
        }
    return figures


def week_figures(
    experiment: Experiment, before: Snapshot, after: Snapshot, sampled: dict[str, Sampled], *, days: float
) -> dict[str, Any]:
    """All figures of the measured days, per machine and day where they grow with the fleet."""
    fleet = experiment.fleet
    begin, end = WARM_UP_SECONDS, WARM_UP_SECONDS + DAY_SECONDS * days
    machine_days = len(fleet.machines) * days
    starts = fleet.starts[before.starts : after.starts]
    hourly = [0] * round(days * 24)
    for start in starts:
        hourly[min(int((start.begin - begin) // HOUR), len(hourly) - 1)] += 1
    samples = [sample for sample in fleet.samples if begin <= sample[0] < end]
    checkins = [fleet.checkins_per_minute[minute] / 60 for minute in range(int(begin // 60), int(end // 60))]
    calls = {name: after.calls[name] - before.calls.get(name, 0) for name in after.calls}
    sent = {name: after.sent[name] - before.sent.get(name, 0) for name in after.sent}
    here = {}
    for name, count in calls.items():
        costs = fleet.coordinator.costs.get(name, CallCost()).processor_seconds
        # The median: others use the processor too, and disturb some calls more than others.
        costs = costs[before.answered.get(name, 0) : after.answered.get(name, 0)]
        here[name] = count * statistics.median(costs) if costs else 0.0
    database = after.database_seconds - before.database_seconds
    rows = {name: after.rows[name] - before.rows.get(name, RowsWritten(0, 0, 0)) for name in after.rows}
    unsent_rows = 0.0
    for name, cost in sampled.items():
        unsent = calls.get(name, 0) - sent.get(name, 0)
        here[name] = calls.get(name, 0) * cost.here
        database += unsent * cost.database
        unsent_rows += unsent * cost.rows
    written = {name: row.whole / machine_days for name, row in rows.items() if row.whole}
    return {
        "days": days,
        "machines": len(fleet.machines),
        "sources": sum(len(machine.sources) for machine in fleet.machines),
        "storages": len(fleet.storages),
        "checkins_per_second": {"mean": statistics.mean(checkins), "peak_minute": max(checkins)},
        "starts_per_hour": {"mean": statistics.mean(hourly), "peak": max(hourly), "series": hourly},
        "running": {"mean": statistics.mean(s[1] for s in samples), "peak": max(s[1] for s in samples)},
        "waiting": {"mean": statistics.mean(s[2] for s in samples), "peak": max(s[2] for s in samples)},
        "waiting_over_ten_minutes": {
            "mean": statistics.mean(s[3] for s in samples),
            "peak": max(s[3] for s in samples),
        },
        "due_to_start": latencies(starts),
        "ends": {name: after.ends[name] - before.ends.get(name, 0) for name in after.ends},
        "turned_away": sum(count for hour, count in fleet.turned_away.items() if begin <= hour * HOUR < end),
        "calls_per_machine_day": {name: count / machine_days for name, count in sorted(calls.items())},
        "processor_seconds_per_day": {
            **{name: seconds / days for name, seconds in sorted(here.items())},
            "database server": database / days,
        },
        "rows_written_per_machine_day": {**written, "of calls counted and not sent": unsent_rows / machine_days},
        "runs_per_machine_day": len(starts) / machine_days,
        "starts_spread": _starts_spread(starts, begin),
    }


def _starts_spread(starts: list[Start], begin: float) -> dict[str, Any]:
    moments = [(start.begin - begin) % DAY_SECONDS for start in starts]
    by_hour = schedule_spread.of(moments, first=0, bins=24, bin_seconds=3600)
    by_minute = schedule_spread.of(moments, first=0, bins=1440, bin_seconds=60)
    due = schedule_spread.of(
        ((start.due - begin) % DAY_SECONDS for start in starts), first=0, bins=1440, bin_seconds=60
    )
    return {
        "hour_of_day": list(by_hour.counts),
        "hour_peak_to_mean": by_hour.peak_to_mean,
        "minute_peak_to_mean": by_minute.peak_to_mean,
        "due_minute_peak_to_mean": due.peak_to_mean,
    }


def spreads(sources: int, seed: int) -> tuple[dict[str, Any], dict[str, schedule_spread.Spread]]:
    """The spread of each form of schedule, as figures and as counts."""
    figures, counts = {}, {}
    for form in schedule_spread.FORMS:
        spread = counts[form.frequency] = schedule_spread.of_form(form, sources=sources, seed=seed)
        figures[form.frequency] = {
            "bins": form.bins,
            "bin_seconds": form.bin_seconds,
            "mean": spread.mean,
            "peak_to_mean": spread.peak_to_mean,
            "chance_peak_to_mean": spread.chance_peak_to_mean,
            "chi_square": spread.chi_square,
            "degrees_of_freedom": spread.degrees_of_freedom,
            "probability": spread.probability,
        }
    return figures, counts


# What is printed and drawn


def print_figures(figures: dict[str, Any]) -> None:
    week = figures["week"]
    print(
        f"\n{week['machines']:,} machines with {week['sources']:,} sources on {week['storages']} storages, "
        f"{week['days']:g} simulated days; {figures['seconds']:.0f} s for {figures['simulated_days']:g} days in all\n"
    )
    for label, key in (
        ("checkins a second", "checkins_per_second"),
        ("backups begun an hour", "starts_per_hour"),
        ("running", "running"),
        ("due and not running", "waiting"),
        ("  for over ten minutes", "waiting_over_ten_minutes"),
    ):
        values = {name: value for name, value in week[key].items() if name != "series"}
        print(f"{label:28} " + "  ".join(f"{name} {value:9.1f}" for name, value in values.items()))
    for name, latency in week["due_to_start"].items():
        print(
            f"due to start, {name:14} median {latency['median_seconds'] / 60:6.1f} min  p99 "
            f"{latency['p99_seconds'] / 60:6.1f} min  worst {latency['worst_seconds'] / 60:7.1f} min  "
            f"({latency['count']:,})"
        )
    print(f"ends: {week['ends']}; checkins that got no slot: {week['turned_away']:,}")
    print("\ncall                          per machine and day   processor ms each   seconds per simulated day")
    seconds = week["processor_seconds_per_day"]
    for name, count in week["calls_per_machine_day"].items():
        taken = seconds.get(name, 0.0)
        each = taken / (count * week["machines"]) * 1000 if count else 0.0
        print(f"{name:30} {count:17.2f} {each:19.2f} {taken:19.1f}")
    print(f"{'database server':30} {'':17} {'':19} {seconds['database server']:19.1f}")
    print(f"{'whole':30} {'':17} {'':19} {sum(seconds.values()):19.1f}")
    print("\nrows written per machine and day")
    for name, count in sorted(week["rows_written_per_machine_day"].items(), key=lambda item: -item[1]):
        print(f"  {name:32} {count:9.2f}")
    print("\nbytes per row                      rows     table    indexes")
    for name, size in figures["table_sizes"].items():
        if size["rows"] > 100:
            table, index = size["table_bytes"] / size["rows"], size["index_bytes"] / size["rows"]
            print(f"  {name:28} {size['rows']:9,} {table:9.0f} {index:10.0f}")
    for drain in figures["drains"]:
        hours = "  ".join(
            f"{share} {'not yet' if value is None else f'{value:.1f} h'}" for share, value in drain["hours"].items()
        )
        print(
            f"\na day without {'the coordinator' if drain['kind'] == 'coordinator' else 'one storage'}: "
            f"{drain['backlog']:,} sources due at its end, {drain['unreported']} backups not reported; "
            f"begun after: {hours}"
        )
    print("\nschedule                 bins    mean  peak/mean  by chance  chi-square/df  probability")
    for name, spread in figures["spreads"].items():
        print(
            f"{name:22} {spread['bins']:6} {spread['mean']:7.1f} {spread['peak_to_mean']:10.2f} "
            f"{spread['chance_peak_to_mean']:10.2f} {spread['chi_square'] / spread['degrees_of_freedom']:14.3f} "
            f"{spread['probability']:12.3f}"
        )


def plots(experiment: Experiment, counts: dict[str, schedule_spread.Spread]) -> Iterator[tuple[str, str]]:
    """File names and contents."""
    fleet = experiment.fleet
    whole = [sample[0] for sample in fleet.samples]
    first, last = 0.0, whole[-1]
    ticks = [(day * DAY_SECONDS, _WEEKDAYS[day % 7]) for day in range(int(last / DAY_SECONDS) + 1)]
    shaded = [(drain.begin, drain.end) for drain in experiment.drains]
    samples = [sample for sample in fleet.samples if sample[0] >= first]
    hours: dict[int, int] = {}
    for start in fleet.starts:
        hours[int(start.begin // HOUR)] = hours.get(int(start.begin // HOUR), 0) + 1
    by_hour = [(hour * HOUR, float(hours.get(hour, 0))) for hour in range(int(first // HOUR), int(last // HOUR))]
    checkins = [
        (
            quarter * 900.0,
            sum(fleet.checkins_per_minute[minute] for minute in range(quarter * 15, quarter * 15 + 15)) / 900,
        )
        for quarter in range(int(first // 900), int(last // 900))
    ]

    def panel(title: str, *lines: Line) -> Panel:
        return Panel(title, lines, first, last, ticks, shaded)

    yield (
        "fleet-load.svg",
        line_plots.drawn(
            [
                panel("checkins a second", Line("checkins", checkins)),
                panel("backups begun an hour", Line("begun", by_hour, is_bars=True)),
                panel("backups running", Line("running", [(s[0], s[1]) for s in samples])),
                panel(
                    "sources due and not running",
                    Line("all", [(s[0], s[2]) for s in samples]),
                    Line("for over 10 minutes", [(s[0], s[3]) for s in samples]),
                ),
            ]
        ),
    )
    panels = []
    for form in schedule_spread.FORMS:
        if form.frequency in ("daily", "daily, 2200-0500", "cron H H * * *", "weekly"):
            spread = counts[form.frequency]
            step = 60 if form.bins > 200 else 1
            # Bars of an hour would hide what minutes show: 1,440 narrow ones are drawn.
            points = [(float(number), float(count)) for number, count in enumerate(spread.counts)]
            begin_hour = form.first_second // 3600
            labels = [
                (4.0 * number * step, f"{(begin_hour + 4 * number) % 24:02}:00")
                for number in range(form.bins // (4 * step) + 1)
            ]
            if form.bins <= 200:
                labels = [(day * 24.0, _WEEKDAYS[day]) for day in range(form.bins // 24)]
            unit = "minute" if form.bin_seconds == 60 else "hour"
            title = f"{form.frequency}: sources per {unit}, peak/mean {spread.peak_to_mean:.2f}"
            panels.append(Panel(title, [Line("", points, is_bars=True)], 0, form.bins, labels))
    yield "fleet-spread.svg", line_plots.drawn(panels)


@contextmanager
def database(kind: str) -> Iterator[tuple[str | None, int | None]]:
    """URL and process of a database of our own, which does not wait for the disk: no elapsed time is measured."""
    if kind == "sqlite":
        yield None, None
        return
    with PostgresqlServer() as server:
        pid = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
        yield server.create_database("fleet"), pid


def simulate(arguments: argparse.Namespace, state: Path, url: str | None, pid: int | None) -> tuple[Experiment, Any]:
    """Run everything, and return the experiment and its figures."""
    begun = time.monotonic()
    clock = SimulatedClock()
    with clock.installed():
        coordinator = CoordinatorInProcess(state, url, clock)
        # Failed backups are news to an operator, not to us.
        logging.disable(logging.WARNING)
        rules: SessionRules = (
            CoordinatorSlots(arguments.slots) if arguments.rules == "coordinator" else StorageLimits(arguments.slots)
        )
        fleet = SimulatedFleet(
            coordinator, rules, secrets=coordinator.set_up(), seed=arguments.seed, sent_share=arguments.sent_share
        )
        experiment = Experiment(fleet, pid)
        storages = arguments.storages or max(-(-arguments.machines // MACHINES_PER_STORAGE), 2)
        experiment.enrol(arguments.machines, storages, days=1.25)
        measured_until = WARM_UP_SECONDS + DAY_SECONDS * arguments.days
        experiment.newcomers(arguments.machines * 0.005, begin=WARM_UP_SECONDS, end=measured_until)
        fleet.run(WARM_UP_SECONDS)
        print(f"enrolled: {time.monotonic() - begun:.0f} s", flush=True)
        # The simulation's many objects are none of the coordinator's: it must not pay for looking through them.
        gc.freeze()
        before = experiment.snapshot()
        for day in range(1, round(arguments.days) + 1):
            fleet.run(WARM_UP_SECONDS + DAY_SECONDS * day)
            gc.freeze()
            print(f"day {day} of {arguments.days}: {time.monotonic() - begun:.0f} s", flush=True)
        after = experiment.snapshot()
        moment = measured_until
        for kind in arguments.outage:
            experiment.outage(kind, moment + DAY_SECONDS / 4, watch_days=arguments.watch_days)
            moment = clock.seconds
            print(f"outage of {kind}: {time.monotonic() - begun:.0f} s", flush=True)
        sampled = sampled_costs(experiment)
        figures: dict[str, Any] = {
            "arguments": {name: value for name, value in vars(arguments).items() if name != "output"},
            "week": week_figures(experiment, before, after, sampled, days=arguments.days),
            "sampled": {name: asdict(cost) for name, cost in sampled.items()},
            "drains": [asdict(drain) for drain in experiment.drains],
            "table_sizes": {name: asdict(size) for name, size in sorted(table_sizes().items())},
            "latency_of_calls": {
                name: {
                    "p50_ms": _percentile(cost.seconds, 0.5) * 1000,
                    "p99_ms": _percentile(cost.seconds, 0.99) * 1000,
                }
                for name, cost in coordinator.costs.items()
            },
            "simulated_days": clock.seconds / DAY_SECONDS,
            "seconds": time.monotonic() - begun,
        }
        from django.db import connections

        connections.close_all()
    return experiment, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--machines", type=int, default=MACHINES, help="(default: %(default)s)")
    parser.add_argument("--storages", type=int, help=f"(default: one for {MACHINES_PER_STORAGE} machines)")
    parser.add_argument("--slots", type=int, default=8, help="sessions at a time on a storage (default: %(default)s)")
    parser.add_argument(
        "--rules",
        choices=("coordinator", "storages"),
        default="coordinator",
        help="who says which sessions there are slots for: the coordinator, or each storage by itself, without a queue",
    )
    parser.add_argument("--days", type=int, default=7, help="measured (default: %(default)s)")
    parser.add_argument(
        "--outage",
        action="append",
        choices=("coordinator", "storage", "none"),
        help="for a day, after the measured days; can be given twice (default: coordinator)",
    )
    parser.add_argument("--watch-days", type=float, default=1.0, help="after an outage (default: %(default)s)")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument(
        "--sent-share", type=float, default=0.01, help="of the calls that have nothing to say (default: %(default)s)"
    )
    parser.add_argument("--spread-sources", type=int, default=20_000, help="per schedule (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a directory for figures.json and plots")
    parser.add_argument("--quick", action="store_true", help="100 machines, a day")
    arguments = parser.parse_args()
    arguments.outage = [kind for kind in arguments.outage or ["coordinator"] if kind != "none"]
    if arguments.quick:
        arguments.machines, arguments.days, arguments.watch_days, arguments.spread_sources = 100, 1, 0.5, 2000
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="turku-fleet-") as state, database(arguments.database) as (url, pid):
        experiment, figures = simulate(arguments, Path(state), url, pid)
    figures["spreads"], counts = spreads(arguments.spread_sources, arguments.seed)
    print_figures(figures)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "figures.json").write_text(json.dumps(figures, indent=2, default=str) + "\n")
        for name, content in plots(experiment, counts):
            (arguments.output / name).write_text(content)


if __name__ == "__main__":
    main()
