"""The space that a large file takes that changes a little each day, in the modes that share blocks.

Run by hand from the checkout, as root: `.venv/bin/python -m bench.modifying_files [--size-mib N] [--days N]`. A file of
random content has a share of its 4 KiB pages, drawn anew each day, written with new content, and is backed up each day
through a real rsync daemon, onto a btrfs and an XFS of their own behind loop devices. Space is the figure that the file
system gives as used. The goal is at most 1.2 times the file plus the pages written anew. Each state is read back from
its snapshot at the end. `link-dest`, which keeps a changed file whole, is there to compare with.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.loop_volume import loop_volume

PAGE_BYTES = 4096
GOAL_FACTOR = 1.2
MIB = 1024 * 1024
CASES = (("btrfs", "btrfs"), ("reflink", "xfs"), ("reflink", "btrfs"), ("link-dest", "xfs"))
"""Mode and file system."""


@dataclass(frozen=True)
class Plan:
    """The sizes and days of a measurement."""

    size_bytes: int
    days: int
    share: float

    @property
    def pages_changed(self) -> int:
        return int(self.size_bytes / PAGE_BYTES * self.share)

    @property
    def goal_bytes(self) -> float:
        return GOAL_FACTOR * self.size_bytes + self.days * self.pages_changed * PAGE_BYTES


def make_file(path: Path, size_bytes: int) -> None:
    """A file of random content."""
    with path.open("wb") as stream:
        for _ in range(size_bytes // MIB):
            stream.write(os.urandom(MIB))


def change_pages(path: Path, count: int, chance: random.Random) -> None:
    """Write new content into ``count`` pages of the file."""
    with path.open("r+b") as stream:
        for page in chance.sample(range(path.stat().st_size // PAGE_BYTES), count):
            stream.seek(page * PAGE_BYTES)
            stream.write(os.urandom(PAGE_BYTES))


def digest(path: Path) -> str:
    """The content in short."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def used_bytes(volume: Path) -> int:
    """Return the bytes that the file system has in use, after everything is flushed."""
    os.sync()
    status = os.statvfs(volume)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def back_up(machine: BackedUpMachine) -> float:
    """The seconds it took."""
    begun = time.perf_counter()
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    return time.perf_counter() - begun


def measure(directory: Path, volume: Path, mode: str, plan: Plan) -> dict[str, Any]:
    """The space taken, and the times."""
    before = used_bytes(volume)
    chance = random.Random(plan.size_bytes)
    with backed_up_machine(directory, volume=volume / "machines", snapshot_mode=mode) as machine:
        file = machine.source_dir / "database"
        make_file(file, plan.size_bytes)
        states = [digest(file)]
        first_seconds = back_up(machine)
        later_seconds = []
        for _ in range(plan.days):
            change_pages(file, plan.pages_changed, chance)
            states.append(digest(file))
            later_seconds.append(back_up(machine))
        taken = used_bytes(volume) - before
        kept = [digest(machine.place.snapshot(name) / "database") for name in machine.snapshots()]
        assert kept == states, "a snapshot is not what the file was"
    return {
        "mode": mode,
        "taken_mib": round(taken / MIB),
        "times_the_file": round(taken / plan.size_bytes, 2),
        "first_seconds": round(first_seconds, 1),
        "later_seconds": round(statistics.median(later_seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--percent", type=float, default=1.0, help="of the file's pages that change each day")
    parser.add_argument("--directory", type=Path, help="for the files behind the file systems; default: TMPDIR")
    parser.add_argument("--result", type=Path, help="a file of JSON for what was found")
    options = parser.parse_args()
    begun = datetime.now(UTC)
    cases = []
    plan = Plan(options.size_mib * MIB, options.days, options.percent / 100)
    written = plan.days * plan.pages_changed * PAGE_BYTES
    print(f"a file of {options.size_mib:,} MiB, {plan.days} days, {plan.pages_changed:,} pages of 4 KiB each day")
    print(f"goal: {GOAL_FACTOR} times the file and {written / MIB:,.0f} MiB: {plan.goal_bytes / MIB:,.0f} MiB")
    for mode, kind in CASES:
        size = int(plan.size_bytes * (plan.days + 3 if mode == "link-dest" else 3)) + 1024 * MIB
        with (
            tempfile.TemporaryDirectory(prefix="turku-bench-", dir=options.directory) as text,
            loop_volume(kind, size_bytes=size, directory=Path(text)) as volume,
        ):
            case = {"file_system": kind, **measure(Path(text) / "machine", volume, mode, plan)}
        cases.append(case)
        verdict = "met" if case["times_the_file"] <= plan.goal_bytes / plan.size_bytes else "missed"
        print(
            f"  {mode:9} on {kind:5}: {case['taken_mib']:8,.0f} MiB, {case['times_the_file']:5.2f} times the file "
            f"({verdict}); first {case['first_seconds']:.1f} s, later {case['later_seconds']:.1f} s",
            flush=True,
        )
    if options.result:
        found = {
            "begun": begun.isoformat(timespec="seconds"),
            "size_mib": options.size_mib,
            "days": options.days,
            "percent": options.percent,
            "goal_times_the_file": round(plan.goal_bytes / plan.size_bytes, 2),
            "cases": cases,
        }
        options.result.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
