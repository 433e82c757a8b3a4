"""The delay of a backup while a hundred snapshots of 200,000 files that left history are removed.

Run by hand from the checkout, as root: `.venv/bin/python -m bench.background_removal`. A machine has two sources on one
volume: a large one, whose history is made of hard links, and a small one. Backups of both are measured. Then the
snapshots expire, which renames them, and backups are measured again while `turku-storage gc --background` removes the
renamed trees, as a timer would have it. The goal is that a backup takes as long as it did. All is installed commands on
a fresh ext4 of its own. The result is `bench/figures/background_removal.json`.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import contenders, document
from bench.own_disk import own_disk
from tests.support.fleet import Fleet

from turku.core import command
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage

FILES, SNAPSHOTS = 200_000, 100
SMALL_FILES = 2_000
FILES_IN_DIRECTORY = 100
SLOWER_FACTOR, SLOWER_SECONDS = 1.25, 0.5
"""The largest difference of two medians that is no delay yet: the remover and the backup share the processors."""


def make_files(tree: Path, count: int) -> None:
    """Small files, a hundred in a directory."""
    content = os.urandom(200)
    for number in range(count):
        path = tree / f"{number // 10_000:03}" / f"{number // FILES_IN_DIRECTORY % 100:02}" / f"{number:07}"
        if number % FILES_IN_DIRECTORY == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class Site:
    """The fleet of the benchmark, and what is done in it."""

    def __init__(self, fleet: Fleet, directory: Path, files: int) -> None:
        self.fleet = fleet
        self.trees = {"large": directory / "large", "small": directory / "small"}
        make_files(self.trees["large"], files)
        make_files(self.trees["small"], SMALL_FILES)
        # What left history leaves the disk too, with the next chance.
        self.storage: PrivateStorage = fleet.storage(
            "primary", trash_days=0, retention_floor="", minimum_period_seconds=0
        )
        sources = {name: {"path": str(path), "retention": "last 1 snapshots"} for name, path in self.trees.items()}
        self.machine: PrivateMachine = fleet.machine("bench", sources)
        self.machine.ping()

    @property
    def snapshots_dir(self) -> Path:
        """Of the large source."""
        return self.storage.machine_directory(self.machine.uuid) / "large.snapshots"

    def back_up(self, source: str) -> float:
        """The seconds that a backup takes of which one file in a hundred is new."""
        files = sorted(path for path in self.trees[source].rglob("*") if path.is_file())
        for path in files[::100]:
            path.write_bytes(os.urandom(201))
        before = len(self.fleet.runs(self.machine, source))
        self.fleet.make_due(self.machine, source)
        begun = time.perf_counter()
        self.machine.ping()
        seconds = time.perf_counter() - begun
        runs = self.fleet.runs(self.machine, source)
        assert len(runs) == before + 1, "no run was recorded"
        assert runs[-1]["success"], runs[-1]["summary"]
        return seconds

    def expire(self, count: int) -> float:
        """Leave that many old snapshots of the large source, and return the seconds of the backup that retires them."""
        newest = (self.snapshots_dir / "latest").resolve()
        today = datetime.now(UTC)
        for number in range(count):
            moment = today - timedelta(days=number + 1)
            name = f"large_{moment:%Y%m%d-%H%M%S}_{number:04x}"
            command.run(["cp", "-al", newest, self.snapshots_dir / name], timeout_seconds=600)
            record = {"name": name, "base": None, "sync_begin": moment.isoformat(), "sync_finish": moment.isoformat()}
            (self.snapshots_dir / f"{name}.json").write_text(json.dumps(record))
        os.sync()
        return self.back_up("large")

    def left(self) -> int:
        """Return the number of trees that wait to be removed."""
        return len(list(self.snapshots_dir.glob(".deleting-*")))

    @contextmanager
    def removing(self) -> Iterator[None]:
        """`turku-storage gc --background`, started again as often as it ends, for the length of the block."""
        over = threading.Event()
        argv: list[str | Path] = [programs.DIRECTORY / "turku-storage", "gc", "--background"]
        argv += ["--config-dir", self.storage.config_dir]
        failures: list[str] = []

        def keep_on() -> None:
            while not over.is_set() and not failures:
                with command.start(argv) as child:
                    while child.poll() is None and not over.wait(0.05):
                        pass
                    if child.poll():
                        failures.append("\n".join(child.last_lines))

        thread = threading.Thread(target=keep_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not failures, failures[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--snapshots", type=int, default=SNAPSHOTS)
    parser.add_argument("--rounds", type=int, default=7, help="backups of each source, before and meanwhile")
    parser.add_argument("--quick", action="store_true", help="60 snapshots of 10,000 files: does everything work?")
    parser.add_argument("--directory", type=Path, help="for the file behind the file system; default: TMPDIR")
    parser.add_argument("--result", type=Path, help="the file, unless --quick: bench/figures/background_removal.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.files, arguments.snapshots, arguments.rounds = 10_000, 60, 2
    needed = arguments.files * arguments.snapshots * 150 + arguments.files * 40_000 + 2**30
    with (
        tempfile.TemporaryDirectory(prefix="turku-bench-", dir=arguments.directory) as text,
        own_disk(Path(text), needed_bytes=needed) as directory,
        Fleet(directory / "fleet") as fleet,
    ):
        found = measure(Site(fleet, directory, arguments.files), arguments)
    print(document.background_removal_table(found))
    document.write_result(found, "background_removal", result=arguments.result, is_figure=not arguments.quick)


def measure(site: Site, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the content of the file of figures."""
    begun = datetime.now(UTC)
    backups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def take(when: str) -> None:
        for _ in range(arguments.rounds):
            for source in site.trees:
                seconds = site.back_up(source)
                backups[source][when].append(round(seconds, 3))
                print(f"  {when:10} {source:6} {seconds:6.2f} s", flush=True)

    # What this leaves behind is removed before it is measured.
    site.back_up("large")
    with site.removing():
        _wait_until_removed(site)
    take("alone")
    retiring = site.expire(arguments.snapshots)
    print(f"  {site.left()} trees to remove; the backup that retired them took {retiring:.2f} s", flush=True)
    before, removal_begun = site.left(), time.perf_counter()
    assert before, "nothing is left to be removed: more snapshots are needed"
    with site.removing():
        time.sleep(2)
        take("meanwhile")
        after = site.left()
    removed_seconds = time.perf_counter() - removal_begun
    assert after, "there was nothing left to remove during the last backup: more snapshots are needed"
    return {
        "begun": begun.isoformat(timespec="seconds"),
        "machine": contenders.machine(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "files": arguments.files,
        "snapshots": arguments.snapshots,
        "backups": {source: dict(by_when) for source, by_when in backups.items()},
        "retiring_seconds": round(retiring, 2),
        "trees_at_first": before,
        "trees_left": after,
        "removal_seconds": round(removed_seconds, 1),
        "is_delayed": {
            "retiring": is_delayed([retiring], backups["large"]["alone"]),
            **{source: is_delayed(each["meanwhile"], each["alone"]) for source, each in backups.items()},
        },
    }


def is_delayed(meanwhile: list[float], alone: list[float]) -> bool:
    """Return True if backups took longer than chance has it."""
    return statistics.median(meanwhile) > SLOWER_FACTOR * statistics.median(alone) + SLOWER_SECONDS


def _wait_until_removed(site: Site) -> None:
    while site.left():
        time.sleep(0.2)


if __name__ == "__main__":
    main()
