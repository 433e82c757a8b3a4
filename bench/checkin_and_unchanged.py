"""Two figures of everyday life: a ping with nothing due, and a backup of 5,000 unchanged files, both end to end.

Run by hand from the checkout: `.venv/bin/python -m bench.checkin_and_unchanged [--rounds N]`. Everything runs on
loopback as installed commands: coordinator on SQLite, sshd, storage, agent. Each figure is the median of its rounds,
with the fastest and slowest, and stands beside what the same machine needs for the least that could be done instead.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.fleet import Fleet

from turku.core import command

FILES = 5_000
PING_GOAL_SECONDS = 0.25
UNCHANGED_GOAL_SECONDS = 1.5


@dataclass(frozen=True)
class Figure:
    """Seconds of wall time of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3f} s  ({min(self.seconds):.3f} to {max(self.seconds):.3f}, {len(self.seconds)} rounds)"


def measure(action: Callable[[], object], rounds: int, *, before: Callable[[], object] = lambda: None) -> Figure:
    """Return the time of each of ``rounds`` actions after a first one. ``before`` runs before each, uncounted."""
    seconds = []
    for number in range(rounds + 1):
        before()
        begun = time.perf_counter()
        action()
        if number:
            seconds.append(time.perf_counter() - begun)
    return Figure(tuple(seconds))


def make_files(tree: Path, count: int) -> None:
    """``count`` files of 1 to 8 KiB in directories of a hundred."""
    content = os.urandom(8192)
    for number in range(count):
        directory = tree / f"{number // 100:03}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:05}").write_bytes(content[: 1024 + number % 7168])


def report(name: str, figure: Figure, *, goal_seconds: float, least: str, least_figure: Figure) -> None:
    """Print a figure beside its goal and the least that could be done."""
    verdict = "met" if figure.median < goal_seconds else "MISSED"
    print(f"{name}\n  {figure}\n  goal {goal_seconds:g} s: {verdict}")
    print(f"  {figure.median / least_figure.median:.1f} times {least}: {least_figure}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="turku-bench-") as text, Fleet(Path(text)) as fleet:
        directory = Path(text)
        make_files(directory / "files", FILES)
        fleet.storage("primary")
        machine = fleet.machine("bench", {"files": {"path": str(directory / "files")}})
        machine.ping()

        idle = measure(machine.ping, rounds)
        python = measure(lambda: command.run([sys.executable, "-c", "pass"], timeout_seconds=30), rounds)
        report(
            "ping with nothing due, start of Python included",
            idle,
            goal_seconds=PING_GOAL_SECONDS,
            least="an empty Python",
            least_figure=python,
        )

        unchanged = measure(machine.ping, rounds, before=lambda: fleet.make_due(machine))
        snapshots = fleet.snapshots(machine, "files")
        base, target = snapshots[-1], directory / "bare"

        def bare() -> None:
            command.run(
                ["rsync", "-a", "--delete", f"--link-dest={base}", f"{directory / 'files'}/", f"{target}/"],
                timeout_seconds=60,
            )

        least = measure(bare, rounds, before=lambda: command.run(["rm", "-rf", target], timeout_seconds=60))
        report(
            f"backup of {FILES:,} unchanged files: checkin, tunnel, transfer, snapshot, retention, report",
            unchanged,
            goal_seconds=UNCHANGED_GOAL_SECONDS,
            least="a bare local rsync --link-dest",
            least_figure=least,
        )


if __name__ == "__main__":
    main()
