"""Checkins a second of a coordinator with 100,000 machines and 300,000 sources, beside a build with the slow hash and
the existing system's queries, and how long the lists of the admin site take.

Run by hand from the checkout: `.venv/bin/python -m bench.coordinator` (as root or not, with `--quick` for a small fleet
that only shows that everything works). Needs the Debian packages `postgresql` and `wrk`. Everything runs on this
machine: an own PostgreSQL server that writes durably, `turku-api serve` with two worker processes, the load generator.
Both builds are measured in turns, on the same rows, with the same load. docs/benchmarks.md has the method and figures.
"""

import argparse
import http.client
import json
import os
import platform
import resource
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import checkin_load, document, filled_database, processor_time
from bench.checkin_load import Figure
from bench.slow_coordinator import COMMON_SECRET
from tests.support.postgresql import PostgresqlServer, binaries

from turku.core import command
from turku.demo.programs import DIRECTORY as PROGRAMS
from turku.demo.programs import free_port

WORKERS = 2
GOALS = {"postgresql": 700.0, "sqlite": 300.0}
P99_GOAL_SECONDS = 0.1
RATIO_GOAL = 100.0
LIST_GOAL_SECONDS = 0.3


@dataclass(frozen=True)
class Site:
    """A filled database, its copy for the slow build, and who calls."""

    name: str
    environment: dict[str, str]
    slow_environment: dict[str, str]
    callers: Path
    slow_callers: Path
    database_pid: int | None = None
    """The database server, where there is one."""


@dataclass(frozen=True)
class Cost:
    """Processor time per call, in seconds, and the share of the machine's processors that others took meanwhile."""

    coordinator: float
    database: float
    load: float
    others: float

    def __str__(self) -> str:
        parts = f"{self.coordinator * 1000:.2f} + {self.database * 1000:.2f} + {self.load * 1000:.2f}"
        return f"CPU {parts} ms/call, others took {self.others:.0%}"

    @property
    def whole(self) -> float:
        return self.coordinator + self.database + self.load


def _child(*argv: str | Path, environment: Mapping[str, str], timeout_seconds: float = 3600) -> str:
    """Return the output of a Python module of the benchmark."""
    completed = command.run(
        [sys.executable, *argv],
        timeout_seconds=timeout_seconds,
        extra_environment={"PYTHONPATH": os.getcwd(), **environment},
        capture_limit_bytes=16 * 1024 * 1024,
    )
    return completed.stdout.decode()


def _fill(name: str, directory: Path, url: str | None, *, machines: int) -> tuple[dict[str, str], Path]:
    state = directory / name
    state.mkdir()
    environment = {"TURKU_STATE_DIR": str(state), "TURKU_ALLOW_INSECURE_COOKIES": "1"}
    if url:
        environment["TURKU_DATABASE_URL"] = url
    callers = state / "callers"
    print(f"{name}: writing {machines:,} machines, {machines * filled_database.SOURCES_PER_MACHINE:,} sources ...")
    command.run([PROGRAMS / "turku-api", "migrate", "-v0"], timeout_seconds=120, extra_environment=environment)
    _child(*("-m", "bench.filled_database", "--callers", callers, "--machines", str(machines)), environment=environment)
    return environment, callers


def _slow_callers(callers: Path) -> Path:
    slow = callers.with_name("slow-callers")
    slow.write_text("".join(f"{line.split()[0]} {COMMON_SECRET}\n" for line in callers.read_text().splitlines()))
    return slow


def postgresql_site(server: PostgresqlServer, directory: Path, *, machines: int) -> Site:
    """The fleet in PostgreSQL."""
    url = server.create_database("turku")
    environment, callers = _fill("postgresql", directory, url, machines=machines)
    slow = {**environment, "TURKU_DATABASE_URL": server.create_database("slow", template="turku")}
    _child("-m", "bench.slow_coordinator", environment=slow)
    pid = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
    return Site("postgresql", environment, slow, callers, _slow_callers(callers), pid)


def sqlite_site(directory: Path, *, machines: int) -> Site:
    """The fleet in SQLite."""
    environment, callers = _fill("sqlite", directory, None, machines=machines)
    slow_state = directory / "sqlite-slow"
    shutil.copytree(environment["TURKU_STATE_DIR"], slow_state)
    slow = {**environment, "TURKU_STATE_DIR": str(slow_state)}
    _child("-m", "bench.slow_coordinator", environment=slow)
    return Site("sqlite", environment, slow, callers, _slow_callers(callers))


@contextmanager
def served(
    argv: list[str | bytes | Path], environment: Mapping[str, str], port: int
) -> Iterator[tuple[str, command.Child]]:
    """The address of a server on that port while it runs, and its process."""
    settings = {"PYTHONPATH": os.getcwd(), **environment}
    with command.start(argv, extra_environment=settings) as child:
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/v1/nothing")
                connection.getresponse().read()
            except OSError:
                if child.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the server did not start:\n" + "\n".join(child.last_lines)) from None
                time.sleep(0.1)
            else:
                break
        yield f"http://127.0.0.1:{port}", child


def ours(site: Site) -> tuple[list[str | bytes | Path], Mapping[str, str], int]:
    """The real `turku-api serve`."""
    port = free_port()
    argv: list[str | bytes | Path] = [PROGRAMS / "turku-api", "serve", "--bind", f"127.0.0.1:{port}"]
    return [*argv, "--workers", str(WORKERS)], site.environment, port


def slow(site: Site) -> tuple[list[str | bytes | Path], Mapping[str, str], int]:
    """The slow build behind the same HTTP server, with as many workers and threads."""
    port = free_port()
    options = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "4"]
    argv: list[str | bytes | Path] = [sys.executable, "-m", "gunicorn", *options, "bench.slow_coordinator:application"]
    return argv, site.slow_environment, port


def measure(
    site: Site, pid: int, address: str, callers: Path, *, seconds: int, connections: int, keep_alive: bool, seed: int
) -> tuple[Figure, Cost]:
    """One figure, and what it cost whom."""
    processes = processor_time.with_descendants(pid)
    database = [] if site.database_pid is None else processor_time.with_descendants(site.database_pid)
    begun = time.monotonic()

    def taken() -> tuple[float, ...]:
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = (processor_time.seconds(processes), processor_time.seconds(database), load.ru_utime + load.ru_stime)
        return (*own, processor_time.of_everybody())

    before = taken()
    figure = checkin_load.measure(
        f"{address}/v1", callers, seconds=seconds, connections=connections, keep_alive=keep_alive, seed=seed
    )
    coordinator, server, load, everybody = (after - was for after, was in zip(taken(), before, strict=True))
    others = (everybody - coordinator - server - load) / ((time.monotonic() - begun) * (os.cpu_count() or 1))
    requests = max(figure.requests, 1)
    return figure, Cost(coordinator / requests, server / requests, load / requests, max(others, 0))


def measure_calls(site: Site, *, seconds: int, connections: int, rounds: int) -> None:
    """Measure both builds in turns and print figures, medians and the ratio."""
    figures: dict[str, list[Figure]] = {"new connections": [], "keep-alive": [], "slow": []}
    costs: dict[str, list[Cost]] = {name: [] for name in figures}

    def note(name: str, measured: tuple[Figure, Cost]) -> None:
        figures[name].append(measured[0])
        costs[name].append(measured[1])
        print(f"  {site.name:10} {name:16} {measured[0]}  {measured[1]}", flush=True)

    for number in range(rounds):
        load = {"seconds": seconds, "connections": connections, "seed": number + 1}
        with served(*ours(site)) as (address, server):
            # Warm, and not counted: after it every connection to the database is open.
            checkin_load.measure(f"{address}/v1", site.callers, **{**load, "seconds": 2}, keep_alive=True)
            for name in ("new connections", "keep-alive"):
                keep_alive = name == "keep-alive"
                note(name, measure(site, server.pid, address, site.callers, **load, keep_alive=keep_alive))
        with served(*slow(site)) as (address, server):
            checkin_load.measure(f"{address}/v1", site.slow_callers, **{**load, "seconds": 2}, keep_alive=False)
            # A call takes seconds.
            load["seconds"] = max(seconds, 15)
            note("slow", measure(site, server.pid, address, site.slow_callers, **load, keep_alive=False))
    slow_rate = statistics.median(figure.requests_per_second for figure in figures["slow"])
    for name in ("new connections", "keep-alive"):
        rate = statistics.median(figure.requests_per_second for figure in figures[name])
        p99 = statistics.median(figure.p99_seconds for figure in figures[name])
        good = rate >= GOALS[site.name] and (site.name == "sqlite" or p99 < P99_GOAL_SECONDS)
        print(
            f"{site.name}, {name}: {rate:.0f}/s, p99 {p99 * 1000:.0f} ms (goal {GOALS[site.name]:.0f}/s"
            f"{'' if site.name == 'sqlite' else ', 100 ms'}): {'met' if good else 'MISSED'}; "
            f"{rate / slow_rate:.0f} times the slow build's {slow_rate:.1f}/s"
            f"{'' if site.name == 'sqlite' else ': met' if rate / slow_rate >= RATIO_GOAL else ': MISSED'}"
        )
        whole, slow_whole = (statistics.median(cost.whole for cost in costs[each]) for each in (name, "slow"))
        print(
            f"  processor time of a call: {whole * 1000:.2f} ms, {slow_whole / whole:.0f} times less than the slow "
            f"build's {slow_whole * 1000:.0f} ms"
        )
    print(flush=True)


def measure_lists(site: Site) -> list[dict[str, Any]]:
    """Measure every list of the admin site, print the slowest page of each, and return a row for each list."""
    with served(*ours(site)) as (address, _server):
        lines = _child("-m", "bench.admin_lists", address, environment=site.environment).splitlines()
    pages = [json.loads(line) for line in lines]
    late = [page for page in pages if page["seconds"] > LIST_GOAL_SECONDS]
    print(f"{site.name}: {len(pages)} pages of lists, {len(late)} over {LIST_GOAL_SECONDS * 1000:.0f} ms")
    rows = []
    for name in sorted({page["list"] for page in pages}):
        of_list = sorted((page for page in pages if page["list"] == name), key=lambda page: page["seconds"])
        opened = next(page["seconds"] for page in of_list if page["page"] == "as it opens")
        median = statistics.median(page["seconds"] for page in of_list)
        print(
            f"  {name:20} opens in {opened * 1000:4.0f} ms, median {median * 1000:4.0f} ms, slowest "
            f"{of_list[-1]['seconds'] * 1000:4.0f} ms ({of_list[-1]['page']})"
        )
        rows.append(
            {
                "database": site.name,
                "list": name,
                "pages": len(of_list),
                "opens_seconds": opened,
                "median_seconds": median,
                "slowest_seconds": of_list[-1]["seconds"],
                "slowest_page": of_list[-1]["page"],
            }
        )
    print(flush=True)
    return rows


def write_lists(rows: list[dict[str, Any]], *, machines: int) -> None:
    """Keep what was found of the lists, for the page of the documentation."""
    found = {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "machines": machines,
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "goal_seconds": LIST_GOAL_SECONDS,
        "rows": rows,
    }
    (document.FIGURES / "admin_lists.json").write_text(json.dumps(found, indent=1) + "\n")
    document.rewrite()


def describe_machine() -> str:
    """Processor, versions and present load, for the head of a report."""
    import django
    import gunicorn  # type: ignore[import-untyped]

    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    kernel = platform.release().partition("-")[0]
    postgresql = command.run([(binaries() or Path("/")) / "postgres", "--version"], timeout_seconds=10).stdout.decode()
    return (
        f"{os.cpu_count()} x {models[0] if models else platform.machine()}; Linux {kernel}; "
        f"Python {platform.python_version()}, Django {django.__version__}, gunicorn {gunicorn.__version__}, "
        f"{postgresql.strip()}, SQLite {sqlite3.sqlite_version}; load average {os.getloadavg()[0]:.1f} at the start"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--machines", type=int, default=filled_database.MACHINES)
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="side by side (default: %(default)s)")
    parser.add_argument("--only", choices=tuple(GOALS), help="one database")
    parser.add_argument("--without-lists", action="store_true", help="leave the admin site out")
    parser.add_argument("--lists-alone", action="store_true", help="leave the calls out")
    parser.add_argument("--quick", action="store_true", help="a fleet of 1,000 and short measurements")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.machines, arguments.seconds, arguments.rounds = 1000, 3, 1
    checkin_load.require()
    print(describe_machine(), flush=True)
    options = {"seconds": arguments.seconds, "connections": arguments.connections, "rounds": arguments.rounds}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="turku-bench-") as text:
        if arguments.only != "sqlite":
            with PostgresqlServer(durable=True) as server:
                site = postgresql_site(server, Path(text), machines=arguments.machines)
                if not arguments.lists_alone:
                    measure_calls(site, **options)
                if not arguments.without_lists:
                    rows += measure_lists(site)
        if arguments.only != "postgresql":
            site = sqlite_site(Path(text), machines=arguments.machines)
            if not arguments.lists_alone:
                measure_calls(site, **options)
            if not arguments.without_lists:
                rows += measure_lists(site)
    if rows and not arguments.quick:
        write_lists(rows, machines=arguments.machines)


if __name__ == "__main__":
    main()
