"""The most memory that agent and storage session take for a source of a million files.

Run by hand from the checkout: `.venv/bin/python -m bench.memory`. A million small files are backed up by installed
commands through a real sshd: for the first time, unchanged, with one in a hundred changed. Memory is looked at four
times a second, of the agent with ssh and rsync, and of the session below sshd with rsync and sandbox. Pages that
processes share are divided among them. The result is `bench/figures/memory.json`.
"""

import argparse
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import contenders, document
from bench.contenders import Turku, running_parts
from bench.measurement import Measurement, measure
from bench.own_disk import own_disk
from tests.support.fleet import Fleet

FILES = 1_000_000
QUICK_FILES = 20_000
FILES_IN_DIRECTORY = 50
_DISK_BYTES_PER_FILE = 24_000
"""Of the file twice, and its inodes, of which ext4 makes one for each 16 KiB."""


def make_files(tree: Path, count: int) -> None:
    """Files of some bytes, fifty in a directory."""
    for number in range(count):
        if number % FILES_IN_DIRECTORY == 0:
            directory = tree / f"{number // 100_000:02}" / f"{number // 1000 % 100:02}" / f"{number // 50 % 20:02}"
            directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / f"a-file-with-the-number-{number:07}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, b"%d\n" % number)
        os.close(descriptor)


def change_files(tree: Path, share: int) -> None:
    """Write one file of ``share`` anew."""
    paths = (Path(top, name) for top, _names, files in os.walk(tree) for name in files)
    for number, path in enumerate(paths):
        if number % share == 0:
            path.write_bytes(b"changed\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_FILES:,} files: does everything work?")
    parser.add_argument("--directory", type=Path, help="for the file behind the file system; default: TMPDIR")
    parser.add_argument("--result", type=Path, help="the file (default: bench/figures/memory.json, unless --quick)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.files = QUICK_FILES
    begun = datetime.now(UTC)
    with (
        tempfile.TemporaryDirectory(prefix="turku-bench-", dir=arguments.directory) as text,
        own_disk(Path(text), needed_bytes=3 * arguments.files * _DISK_BYTES_PER_FILE // 2 + 2**30) as directory,
        Fleet(directory / "fleet") as fleet,
    ):
        tree = directory / "tree"
        make_files(tree, arguments.files)
        fleet.storage("primary")
        steps = measure_steps(fleet, Turku(directory / "fleet" / "bench", tree, fleet))
    found: dict[str, Any] = {
        "begun": begun.isoformat(timespec="seconds"),
        "machine": contenders.machine(),
        "versions": contenders.versions(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "files": arguments.files,
        "steps": {
            step: {"seconds": each.seconds, "peak_bytes": each.peak_bytes, "program_bytes": each.program_bytes}
            for step, each in steps.items()
        },
    }
    print(document.memory_table(found))
    document.write_result(found, "memory", result=arguments.result, is_figure=not arguments.quick)


def measure_steps(fleet: Fleet, turku: Turku) -> dict[str, Measurement]:
    """Return the cost of each kind of backup."""
    parts = running_parts(fleet)
    turku.prepare()
    found = {}
    for step in ("first", "unchanged", "changed"):
        if step == "changed":
            change_files(turku.tree, 100)
        turku.make_due()
        found[step] = measure(turku.back_up, parts)
        turku.require_path(step)
        print(f"  {step:9} {found[step].seconds:7.2f} s, {found[step].peak_bytes}", flush=True)
    return found


if __name__ == "__main__":
    main()
