"""All benchmarks, one after the other: what `make bench` runs.

`.venv/bin/python -m bench.everything [--quick] [--only NAME ...]`. Each is a process of its own and can be run by hand
with options of its own. One that fails does not keep the others from being run. Ends with a line for each: how long it
took, and whether it ran to its end. The output of each tells the goals that it met.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from bench import document

from turku.demo import programs


@dataclass(frozen=True)
class Benchmark:
    """A module of this package and its arguments."""

    name: str
    arguments: tuple[str, ...] = ()
    quick_arguments: tuple[str, ...] = ("--quick",)
    needs_root: bool = False


ALL = (
    Benchmark("data_path"),
    Benchmark("network", needs_root=True),
    Benchmark("memory"),
    Benchmark(
        "modifying_files",
        ("--size-mib", "1024", "--result", "bench/figures/modifying_files.json"),
        ("--size-mib", "64", "--days", "3"),
        needs_root=True,
    ),
    Benchmark("background_removal", needs_root=True),
    Benchmark("catalog", ("--whole",), ("--rows", "20000", "--files", "2000")),
    Benchmark("restore", (), ("--files", "500", "--rounds", "2")),
    Benchmark("checkin_and_unchanged", (), ("--rounds", "3")),
    Benchmark("coordinator"),
    Benchmark("row_sizes", (), ("--machines", "1000")),
    Benchmark("fleet", ("--machines", "400", "--storages", "2", "--slots", "4", "--database", "sqlite")),
    Benchmark("fuzz_calls", (), ("--requests", "500")),
    Benchmark("fuzz_session", ("--requests", "1000", "--real", "50"), ("--requests", "100", "--real", "5")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and short: does everything work?")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in ALL], metavar="NAME", help="these alone")
    options = parser.parse_args()
    ended = []
    for benchmark in ALL:
        if options.only and benchmark.name not in options.only:
            continue
        if benchmark.needs_root and os.geteuid() != 0:
            ended.append((benchmark.name, 0.0, "left out: it needs root"))
            continue
        arguments = benchmark.quick_arguments if options.quick else benchmark.arguments
        print(f"== {' '.join((benchmark.name, *arguments))}", flush=True)
        begun = time.monotonic()
        code = subprocess.run([sys.executable, "-m", f"bench.{benchmark.name}", *arguments], check=False).returncode
        outcome = "ended well" if code == 0 else f"FAILED, exit code {code}"
        ended.append((benchmark.name, time.monotonic() - begun, outcome))
        print(flush=True)
    if not options.quick:
        document.rewrite()
    print(f"It ran {programs.versions()}.")
    for name, seconds, outcome in ended:
        print(f"{name:24} {seconds / 60:5.1f} minutes  {outcome}")
    if any("FAILED" in outcome for _name, _seconds, outcome in ended):
        sys.exit(1)


if __name__ == "__main__":
    main()
