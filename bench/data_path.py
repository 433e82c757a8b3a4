"""The data path against restic, borg and rsnapshot: backups and restores of one tree, in turns, in one run.

Run by hand from the checkout: `.venv/bin/python -m bench.data_path`. A round is the whole life of a backup with each
program: two first ones in opposite orders, some of an unchanged tree, some with one file in a hundred changed, a
restore of everything, and one file out of it. Each step is done by one program after the other, and each program comes
first in turn. Rounds are added while there is time. It is all on a fresh file system. Everything written before a step
is flushed before it, and no cache is dropped for anybody. The restored files are compared with those that were backed
up. The result is a file of JSON, from which the tables and plots of `docs/benchmarks.md` are made by `python -m
bench.document`, which this runs at the end.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import contenders, document, source_tree
from bench.contenders import PEERS, Contender, Turku, TurkuWithoutProperties, running_parts
from bench.measurement import Measurement, measure
from bench.own_disk import own_disk
from tests.support.fleet import Fleet

from turku.core import command
from turku.core.cli import entry
from turku.errors import TurkuError

FILES = 187_000
QUICK_FILES = 6_000
FIRST_TIMES = 2
UNCHANGED_TIMES = 3
CHANGED_TIMES = 3
CHANGE_AGE_SECONDS = 3.0
"""The age of a change before the next session. A file that changed within two seconds before a session is read by the
next one, too, which no night's work is."""
ONE_FILE_TIMES = 2
DISK_BYTES_PER_FILE = 250_000
"""Source, eight repositories and four restored trees."""
FIRST, UNCHANGED, CHANGED, WHOLE, ONE = "first", "unchanged", "changed", "restore", "one file"


class Run:
    """The measurements of all rounds."""

    first_times = FIRST_TIMES

    def __init__(self, directory: Path, fleet: Fleet, tree: source_tree.SourceTree, names: Sequence[str]) -> None:
        self.directory = directory
        self.fleet = fleet
        self.tree = tree
        self.names = names
        self.found: dict[str, dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
        self.added: dict[str, tuple[float, float]] = {}
        """Bytes and inodes that an unchanged snapshot added, in the last round."""
        self.kept: dict[str, int] = {}
        """Bytes on the disk after the first backup."""
        self._turn = 0
        self._generation = 0
        self._restores_made = 0
        self._parts = running_parts(fleet)

    def round(self, number: int) -> None:
        """A whole life with each program."""
        self._turn += 1
        for again in range(self.first_times):
            made = self._contenders(f"{number}-{again + 1}")
            ordered = self._rotated(made)
            # Who came last comes first then: memory and disk that nobody used for a while are dearer than others.
            self._in_order(FIRST, ordered[::-1] if again % 2 else ordered, lambda each: each.back_up())
        used = {each.name: source_tree.used(*each.kept_in) for each in made}
        self.kept = {name: size for name, (size, _inodes) in used.items()}
        for _ in range(UNCHANGED_TIMES):
            self._step(UNCHANGED, made, lambda each: each.back_up())
        for each in made:
            size, inodes = source_tree.used(*each.kept_in)
            before_size, before_inodes = used[each.name]
            self.added[each.name] = ((size - before_size) / UNCHANGED_TIMES, (inodes - before_inodes) / UNCHANGED_TIMES)
        for _ in range(CHANGED_TIMES):
            self._generation += 1
            self.tree.change(self._generation)
            time.sleep(CHANGE_AGE_SECONDS)
            self._step(CHANGED, made, lambda each: each.back_up())
        self._restores(WHOLE, made, "")
        for again in range(ONE_FILE_TIMES):
            self._restores(ONE, made, source_tree.relative_path((self.tree.count * (2 + again)) // 7))

    def _contenders(self, life: str) -> list[Contender]:
        made = [each for each in self.all_contenders(life) if each.name in self.names]
        for each in made:
            each.directory.mkdir()
            each.prepare()
        return made

    def all_contenders(self, life: str) -> list[Contender]:
        """Return new ones, not prepared yet."""
        return [
            Turku(self.fleet.directory / f"turku-{life}", self.tree.path, self.fleet),
            TurkuWithoutProperties(self.fleet.directory / f"without-{life}", self.tree.path, self.fleet),
            *(peer(self.directory / f"{peer.name}-{life}", self.tree.path) for peer in PEERS),
        ]

    def _step(self, step: str, all_of_them: Sequence[Contender], action: Callable[[Contender], object]) -> None:
        self._turn += 1
        self._in_order(step, self._rotated(all_of_them), action)

    def _rotated(self, all_of_them: Sequence[Contender]) -> tuple[Contender, ...]:
        """Each comes first in turn."""
        start = self._turn % len(all_of_them)
        return (*all_of_them[start:], *all_of_them[:start])

    def _in_order(self, step: str, ordered: Sequence[Contender], action: Callable[[Contender], object]) -> None:
        for each in ordered:
            each.make_due()
            if step == FIRST:
                _warm(self.tree.path)
            measurement = measure(lambda each=each: action(each), self._parts)  # type: ignore[misc]
            each.require_path(step)
            self.found[step][each.name].append(measurement)
            print(
                f"  {step:9} {each.name:9} {measurement.seconds:7.2f} s, processor {measurement.processor_seconds:6.2f}"
                f" s, others {measurement.others_share:4.0%}",
                flush=True,
            )

    def _restores(self, step: str, all_of_them: Sequence[Contender], path: str) -> None:
        # Nothing is removed before the end: ext4 looks for inodes past those that were freed in the last minute, and
        # whoever comes next would pay for that.
        self._restores_made += 1
        original, targets = self.tree.path / path, self.directory / f"restored-{self._restores_made}"
        targets.mkdir()
        restored = targets

        def restore(each: Contender) -> None:
            nonlocal restored
            restored = each.restore(targets / each.name, path)
            if path:
                # From command to verified file.
                source_tree.require_same_content(original, restored)

        for each in all_of_them:
            if not path:
                _warm(*each.kept_in)
            self._step(step, [each], restore)
            if not path:
                source_tree.require_same(original, restored, properties=each.keeps)


def _warm(*directories: Path) -> None:
    """Read it all once: what the system let go of meanwhile must not be one program's misfortune."""
    script = 'exec find "$@" -type f -exec cat {} + >/dev/null'
    command.run(["sh", "-c", script, "sh", *directories], timeout_seconds=900)


def result(run: Run, begun: datetime, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the content of the file of figures."""
    return {
        "begun": begun.isoformat(timespec="seconds"),
        "minutes": round((datetime.now(UTC) - begun).total_seconds() / 60, 1),
        "command": f"python -m bench.data_path --minutes {arguments.minutes:g}"
        + (" --quick" if arguments.quick else ""),
        "machine": contenders.machine(),
        "versions": contenders.versions(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "is_quick": arguments.quick,
        "files": run.tree.count,
        "size_bytes": run.tree.size_bytes,
        "steps": {
            step: {name: [asdict(each) for each in all_of_them] for name, all_of_them in by_name.items()}
            for step, by_name in run.found.items()
        },
        "unchanged_adds": {
            name: {"bytes": round(size), "inodes": round(inodes, 1)} for name, (size, inodes) in run.added.items()
        },
        "kept_bytes": run.kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=FILES, help="of the tree, 17 KB on average (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=11, help="rounds begin while they will end within (default: %(default)s)"
    )
    names = [Turku.name, TurkuWithoutProperties.name, *(peer.name for peer in PEERS)]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="for a look at some; makes no table")
    parser.add_argument("--quick", action="store_true", help="a small tree and one round: does everything work?")
    parser.add_argument("--result", type=Path, help="the file (default: bench/figures/data_path.json, unless --quick)")
    parser.add_argument("--directory", type=Path, help="where trees and repositories lie for the time; default: TMPDIR")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.files, arguments.minutes = QUICK_FILES, 0
    contenders.require()
    needed = arguments.files * DISK_BYTES_PER_FILE + 2**30
    begun, clock = datetime.now(UTC), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="turku-bench-", dir=arguments.directory) as text,
        own_disk(Path(text), needed_bytes=needed, useful_bytes=2 * needed) as directory,
        Fleet(directory / "fleet") as fleet,
    ):
        tree = source_tree.make(directory / "tree", arguments.files)
        print(
            f"{tree.count:,} files, {tree.size_bytes / 1e9:.2f} GB, made in {time.monotonic() - clock:.0f} s",
            flush=True,
        )
        fleet.storage("primary")
        run = Run(directory, fleet, tree, arguments.only)
        number = 0
        while True:
            number += 1
            began, free = time.monotonic(), shutil.disk_usage(directory).free
            print(f"round {number}", flush=True)
            run.round(number)
            now, left = time.monotonic(), shutil.disk_usage(directory).free
            is_late = now - clock + (now - began) * 1.05 > arguments.minutes * 60
            if is_late or left < 1.2 * (free - left):
                break
        found = result(run, begun, arguments)
    is_whole = arguments.only == names
    if is_whole:
        print(document.data_path_table(found))
    document.write_result(found, "data_path", result=arguments.result, is_figure=is_whole and not arguments.quick)


if __name__ == "__main__":
    try:
        main()
    except TurkuError as error:
        entry.print_error(error)
        sys.exit(1)
