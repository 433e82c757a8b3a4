"""Lost files, back and verified by one command, against plain rsync through the same kind of tunnel.

Run by hand from the checkout: `.venv/bin/python -m bench.restore`. Everything of a source of 5,000 files is removed
before each turn. The turns are `turku-agent restore SOURCE --in-place --yes`, from its start to its end, and `rsync -a`
of the same snapshot into restore mode, whose tunnel stands already, and once more with the time that it takes to open
and close that. The tree is compared after each. It is all on a fresh file system. Both seconds and processor seconds of
everything that takes part are printed, as others use processors too.

The time that one command takes besides the files (two programs, ssh, a permission) is always the same: half a second.
With `--file-bytes` the files are larger ones, beside which that is less.
"""

import argparse
import os
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

from bench import source_tree
from bench.contenders import running_parts
from bench.measurement import Measurement, measure
from bench.own_disk import own_disk
from tests.support.fleet import Fleet
from tests.support.restore_mode import restore_mode
from tests.support.trees import differences

from turku.demo import programs

FILES = 5000
ROUNDS = 5
DISK_BYTES_PER_FILE = 90_000
_SECONDS = re.compile(r" in ([0-9.]+) s \(")
"""The time that the command itself prints: from when the storage may write to the last file compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--file-bytes", type=int, default=0, help="further bytes for each file")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--programs", action="store_true", help="tell the processor time of each program")
    options = parser.parse_args()
    with (
        own_disk(
            options.directory, needed_bytes=options.files * (DISK_BYTES_PER_FILE + 3 * options.file_bytes) + 200_000_000
        ) as disk,
        Fleet(disk / "fleet") as fleet,
    ):
        tree = source_tree.make(disk / "home", options.files)
        _enlarge(tree, options.file_bytes)
        fleet.storage("primary")
        machine = fleet.machine("machine", {"home": {"path": str(tree.path)}}, restore_path=str(tree.path))
        machine.ping()
        [snapshot] = fleet.snapshots(machine, "home")
        parts = running_parts(fleet)
        verified: list[Measurement] = []
        plain: list[Measurement] = []
        opened: list[Measurement] = []
        transfers: list[float] = []

        def restore() -> None:
            completed = programs.run(
                *("turku-agent", "restore", "--config-dir", machine.config_dir, "home", "--in-place", "--yes")
            )
            lines = [*completed.stdout.decode().splitlines(), *completed.last_lines]
            assert any(f"{options.files:,} verified" in line for line in lines), lines
            found = next(match for line in lines if (match := _SECONDS.search(line)))
            transfers.append(float(found[1]))

        def open_and_send() -> None:
            with restore_mode(machine) as mode:
                mode.send(snapshot)

        for number in range(options.rounds):
            verified.append(_measured(tree.path, snapshot, restore, parts))
            with restore_mode(machine) as mode:
                plain.append(_measured(tree.path, snapshot, lambda: mode.send(snapshot), parts))
            opened.append(_measured(tree.path, snapshot, open_and_send, parts))
            print(f"round {number + 1}: restore {_shown(verified[-1])}; rsync -a {_shown(plain[-1])}", flush=True)
            if options.programs:
                print("  restore", _by_program(verified[-1]), "\n  rsync  ", _by_program(plain[-1]))
    total = tree.size_bytes + options.files * options.file_bytes
    print(f"{options.files:,} files, {total / 1e6:.0f} MB, median of {options.rounds} rounds:")
    ours = _medians(verified)
    print(f"  {'turku-agent restore, verified':38} {ours[0]:6.2f} s   {ours[1]:6.2f} s of processors")
    transfer = statistics.median(transfers)
    print(f"  {'  of that, with the tunnel open':38} {transfer:6.2f} s")
    for name, turns in (("rsync -a, tunnel open already", plain), ("rsync -a, with opening the tunnel", opened)):
        theirs = _medians(turns)
        print(
            f"  {name:38} {theirs[0]:6.2f} s   {theirs[1]:6.2f} s of processors   "
            f"ratio {ours[0] / theirs[0]:.2f}, of processors {ours[1] / theirs[1]:.2f}"
        )
    print(f"  both with the tunnel open: ratio {transfer / _medians(plain)[0]:.2f} (at most 1.3)")


def _medians(turns: list[Measurement]) -> tuple[float, float]:
    return (
        statistics.median(each.seconds for each in turns),
        statistics.median(each.processor_seconds for each in turns),
    )


def _enlarge(tree: source_tree.SourceTree, further_bytes: int) -> None:
    for number in range(tree.count if further_bytes else 0):
        path = tree.file(number)
        status = path.stat()
        with path.open("ab") as stream:
            stream.write(os.urandom(further_bytes))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _measured(tree: Path, snapshot: Path, action: Callable[[], object], parts: dict[str, int]) -> Measurement:
    for entry in tree.iterdir():
        shutil.rmtree(entry)
    found = measure(action, parts)
    assert differences(snapshot, tree) == []
    return found


def _shown(found: Measurement) -> str:
    others = f", others had {found.others_share:.0%}" if found.others_share > 0.1 else ""
    return f"{found.seconds:.2f} s ({found.processor_seconds:.2f} s of processors{others})"


def _by_program(found: Measurement) -> str:
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in sorted(found.program_seconds.items()) if seconds > 0)


if __name__ == "__main__":
    main()
