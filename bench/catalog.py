"""The catalog of a large source: browsing it, and its cost for a backup.

Run by hand from the checkout: ``.venv/bin/python -m bench.catalog [--rows N] [--files N] [--whole]``.

1. A catalog of 1,000,000 files and 30 snapshots, of generated rows: a directory of 10,000 entries is listed, the
   versions of a path listed, two snapshots compared, a name searched. Each is measured as library, and as a command
   with Python's own start.
2. A source of 200,000 real files behind a real rsync daemon: what its first and its unchanged backups add to the
   catalog, and which part of their time. The same is measured with one file changed, and with ``--whole`` the time and
   memory of reading the whole tree into a catalog that was lost.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.backed_up_machine import backed_up_machine

from turku.core import command
from turku.storage import catalog
from turku.storage.catalog import database
from turku.storage.catalog.versions import GAP
from turku.storage.disk.source_directory import SourceDirectory

MACHINE = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
SNAPSHOTS = 30
LARGE_DIRECTORY = 10_000
PER_DIRECTORY = 100
BROWSING_GOAL_SECONDS = 0.1
GROWTH_GOAL_BYTES = 1_000_000
SHARE_GOAL = 0.1
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_ROUNDS = 7


class Figure(NamedTuple):
    """Medians of some rounds: wall time, and processor time of this process and its children."""

    seconds: float
    processor_seconds: float


def median(action: Callable[[], object]) -> Figure:
    """The first time is not counted."""
    figures = []
    for number in range(_ROUNDS + 1):
        begun, worked = time.perf_counter(), _worked()
        action()
        if number:
            figures.append((time.perf_counter() - begun, _worked() - worked))
    return Figure(*(statistics.median(column) for column in zip(*figures, strict=True)))


def _worked() -> float:
    return sum(os.times()[:4])


def print_figure(what: str, figure: Figure, *, goal_seconds: float | None = None) -> None:
    verdict = (
        "" if goal_seconds is None else f"  (goal {goal_seconds * 1000:g} ms: {_met(figure.seconds < goal_seconds)})"
    )
    wall, processor = figure.seconds * 1000, figure.processor_seconds * 1000
    print(f"  {what:<48} {wall:8.1f} ms, {processor:7.1f} ms of processor{verdict}")


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def snapshot_name(number: int) -> str:
    return f"src_{_BEGINNING + timedelta(days=number):%Y%m%d-%H%M%S}_{number:04x}"


def rows(files: int) -> Iterator[tuple[Any, ...]]:
    """One version each, and of every hundredth file a further one in each snapshot."""
    for number in range(files):
        directory = 1 if number < LARGE_DIRECTORY else 2 + (number - LARGE_DIRECTORY) // PER_DIRECTORY
        name = b"file %07d" % number
        checksum = number.to_bytes(16, "big")
        if number % 100:
            yield (directory, name, GAP, None, 0, 4096, 0o644, 0, 0, 1_700_000_000 * 10**9 + number, checksum)
            continue
        for snapshot in range(1, SNAPSHOTS + 1):
            last = None if snapshot == SNAPSHOTS else snapshot * GAP
            moment = (1_700_000_000 + snapshot) * 10**9
            yield (directory, name, snapshot * GAP, last, 0, 4096, 0o644, 0, 0, moment, checksum)


def fill(place: SourceDirectory, files: int) -> None:
    for number in range(1, SNAPSHOTS + 1):
        place.snapshot(snapshot_name(number)).mkdir(parents=True)
    connection = database.connect(place)
    directories = 2 + (files - LARGE_DIRECTORY) // PER_DIRECTORY
    with database.writing(connection):
        connection.executemany(
            "INSERT INTO directories (id, path) VALUES (?, ?)",
            [(1, b"large"), *((number, b"some/directory/%06d" % number) for number in range(2, directories + 1))],
        )
        connection.executemany(
            "INSERT INTO versions (directory, name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(files),
        )
        # The directories themselves.
        connection.execute(
            "INSERT OR IGNORE INTO directories (path) VALUES (X''), (CAST('some' AS BLOB)), "
            "(CAST('some/directory' AS BLOB))"
        )
        for path in (b"large", b"some", b"some/directory"):
            parent, _slash, name = path.rpartition(b"/")
            connection.execute(
                "INSERT INTO versions (directory, name, first, kind, size, mode, uid, gid, mtime_ns) "
                "SELECT id, ?, ?, 1, 0, 493, 0, 0, 0 FROM directories WHERE path = ?",
                (name, GAP, parent),
            )
        connection.executemany(
            "INSERT INTO snapshots (name, position, moment) VALUES (?, ?, 0)",
            [(os.fsencode(snapshot_name(number)), number * GAP) for number in range(1, SNAPSHOTS + 1)],
        )
    connection.close()


def browsing(directory: Path, files: int) -> None:
    place = SourceDirectory(directory / "volume" / MACHINE, "src")
    begun = time.perf_counter()
    fill(place, files)
    size = database.file_of(place).stat().st_size
    print(f"1. {files:,} files, {SNAPSHOTS} snapshots, one file in a hundred changing each time")
    print(f"  filled in {time.perf_counter() - begun:.1f} s; the catalog takes {size / 2**20:,.0f} MiB")
    newest, oldest = snapshot_name(SNAPSHOTS), snapshot_name(1)

    def opened(ask: Callable[[catalog.Catalog], object]) -> Callable[[], object]:
        def action() -> None:
            with catalog.open_catalog(place, zone=UTC) as found:
                ask(found)

        return action

    def listing(found: catalog.Catalog) -> None:
        assert len(list(found.list(newest, b"large"))) == LARGE_DIRECTORY

    def history(found: catalog.Catalog) -> None:
        assert len(found.history(b"large/file 0000100")) == SNAPSHOTS

    goal = BROWSING_GOAL_SECONDS
    print_figure(f"list a directory of {LARGE_DIRECTORY:,}", median(opened(listing)), goal_seconds=goal)
    print_figure(f"the history of a path, {SNAPSHOTS} versions", median(opened(history)), goal_seconds=goal)
    print_figure("one path in one snapshot", median(opened(lambda found: found.entry(newest, b"large/file 0000001"))))
    print_figure(
        "diff of the last two snapshots",
        median(opened(lambda found: sum(1 for _ in found.diff(snapshot_name(29), newest)))),
    )
    print_figure(
        "diff of the first and the last", median(opened(lambda found: sum(1 for _ in found.diff(oldest, newest))))
    )
    print_figure("find among all names", median(opened(lambda found: list(found.find(b"*0777777")))))
    configuration = configured(directory)
    program = [str(Path(sys.executable).parent / "turku-storage")]

    def run(*arguments: str) -> Callable[[], object]:
        argv = [*program, *arguments, "-c", str(configuration)]
        return lambda: command.run(argv, timeout_seconds=60, capture_limit_bytes=100 * 2**20)

    print_figure("an empty Python", median(lambda: command.run([sys.executable, "-c", "pass"], timeout_seconds=30)))
    print_figure("turku-storage --version", median(lambda: command.run([*program, "--version"], timeout_seconds=30)))
    print_figure(
        f"turku-storage ls, {LARGE_DIRECTORY:,} entries",
        median(run("ls", "src", "large", "--machine", MACHINE)),
        goal_seconds=goal,
    )
    print_figure("turku-storage ls --json", median(run("ls", "src", "large", "--json", "--machine", MACHINE)))
    print_figure(
        "turku-storage versions",
        median(run("versions", "src", "large/file 0000100", "--machine", MACHINE)),
        goal_seconds=goal,
    )


def configured(directory: Path) -> Path:
    configuration = directory / "etc"
    (configuration / "config.d").mkdir(parents=True)
    content = {
        "api_url": "http://127.0.0.1:1/v1",
        "name": "bench",
        "volumes": {"data": {"path": str(directory / "volume")}},
        "var_dir": str(directory / "var"),
        "ssh_ping_host_keys": ["ssh-ed25519 AAAA"],
        "low_water_free_pct": 0,
    }
    (configuration / "config.d" / "config.json").write_text(json.dumps(content))
    return configuration


def make_files(tree: Path, count: int) -> None:
    for number in range(count):
        directory = tree / f"{number // 10_000:02}" / f"{number // PER_DIRECTORY:05}"
        if number % PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"{number:06}").write_bytes(b"%d" % number)


def backing_up(directory: Path, files: int, *, whole: bool) -> None:
    print(f"2. backups of {files:,} real files")
    spent: list[float] = []
    record = catalog.record

    def timed(*arguments: Any, **keywords: Any) -> bool:
        begun = time.perf_counter()
        try:
            return record(*arguments, **keywords)
        finally:
            spent.append(time.perf_counter() - begun)

    catalog.record = timed
    with backed_up_machine(directory / "machine") as machine:
        make_files(machine.source_dir, files)

        def run(what: str) -> None:
            path = database.file_of(machine.place)
            before = path.stat().st_size if path.exists() else 0
            spent.clear()
            begun = time.perf_counter()
            outcome = machine.back_up()
            seconds = time.perf_counter() - begun
            assert outcome.success, outcome.summary
            growth = path.stat().st_size - before
            print(
                f"  {what:<26} run {seconds:7.2f} s, catalog {sum(spent):7.3f} s = {sum(spent) / seconds:6.1%}, "
                f"growth {growth:>11,} bytes"
            )
            if what.startswith("unchanged"):
                print(
                    f"    goals: under {GROWTH_GOAL_BYTES:,} bytes: {_met(growth < GROWTH_GOAL_BYTES)}, "
                    f"under {SHARE_GOAL:.0%}: {_met(sum(spent) / seconds < SHARE_GOAL)}"
                )

        run("first")
        run("unchanged")
        run("unchanged again")
        (machine.source_dir / "00" / "00000" / "000000").write_text("changed")
        run("one file changed")
        if whole:
            read_again(machine.place, files)


def read_again(place: SourceDirectory, files: int) -> None:
    begun = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    catalog.rebuild(place, zone=UTC)
    with catalog.open_catalog(place, zone=UTC) as found:
        count = len(found.snapshots())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"  catalog rebuild            {time.perf_counter() - begun:7.2f} s for {count} snapshots of {files:,}; "
        f"peak memory {peak / 1024:.0f} MiB (before: {before / 1024:.0f} MiB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--directory", type=Path, help="where to work; by default where temporary files lie")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turku-bench-", dir=options.directory) as text:
        if options.rows:
            browsing(Path(text) / "browsing", options.rows)
        if options.files:
            backing_up(Path(text) / "backing up", options.files, whole=options.whole)


if __name__ == "__main__":
    main()
