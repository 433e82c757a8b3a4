"""Faults of each kind injected into real backups: no snapshot changes, the next run succeeds, nothing is left over.

Run from the checkout as root (it mounts file systems of its own): `make test-faults`, or `.venv/bin/python -m
bench.faults [--faults N] [--seed N] [--only KIND] [--stage NAME]`. The stages run side by side, each with its share of
the faults: one for each snapshot mode (tests/support/injected_faults.py) and one with a whole fleet
(tests/support/injected_fleet_faults.py). The exit code is 1 where anything was found.
"""

import argparse
import collections
import itertools
import os
import random
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.injected_faults import FAULTS, MODES, Finding, inject, stage
from tests.support.injected_fleet_faults import NAME, VICTIMS, fleet_stage

FAULTS_COUNT = 120
SHARES = {"link-dest": 0.35, "btrfs": 0.25, "reflink": 0.25, NAME: 0.15}
_WORKERS = 2


@dataclass
class Played:
    """The faults of one stage, and what was found."""

    name: str
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0


def kinds_of(name: str) -> list[str]:
    """Return the kinds of fault that the stage knows."""
    return list(VICTIMS if name == NAME else FAULTS)


def play(name: str, kinds: list[str], seed: int) -> Played:
    """Inject these faults on the stage, one after the other, and build a stage that breaks again."""
    played, begin = Played(name), time.monotonic()
    numbered = list(enumerate(kinds))
    while numbered:
        seed_text = f"{seed}-{name}-{numbered[0][0]}"
        with tempfile.TemporaryDirectory(prefix="turku-faults-", dir="/var/tmp", ignore_cleanup_errors=True) as text:
            try:
                _play(played, Path(text), numbered, seed_text)
            except Exception:
                number, kind = numbered.pop(0) if numbered else (-1, "the end")
                played.findings.append(Finding(name, number, kind, traceback.format_exc()))
    played.seconds = time.monotonic() - begin
    return played


def _play(played: Played, directory: Path, numbered: list[tuple[int, str]], seed: str) -> None:
    """Inject faults on a stage of its own, and remove those that were injected from ``numbered``."""
    if played.name == NAME:
        with fleet_stage(directory, seed) as fleet:
            while numbered:
                number, kind = numbered[0]
                try:
                    fleet.inject(number, kind)
                finally:
                    played.findings += fleet.findings
                    fleet.findings.clear()
                played.counts[kind] += 1
                del numbered[0]
        return
    with stage(directory, played.name, seed) as made:
        while numbered:
            number, kind = numbered[0]
            try:
                inject(made, number, kind)
            finally:
                played.findings += made.findings
                made.findings.clear()
            played.counts["not reached" if "none was reached" in made.kind else kind] += 1
            del numbered[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=FAULTS_COUNT, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--only", choices=sorted({*FAULTS, *VICTIMS}), metavar="KIND", help="faults of this kind alone")
    parser.add_argument("--stage", choices=sorted(SHARES), help="on this stage alone")
    parser.add_argument("--workers", type=int, default=_WORKERS, help="stages at once (default: %(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("only root can mount the file systems that faults are injected into", file=sys.stderr)
        return 77
    assert set(SHARES) == {*MODES, NAME}
    names = [name for name in SHARES if options.stage in (None, name)]
    names = [name for name in names if options.only is None or options.only in kinds_of(name)]
    whole = sum(SHARES[name] for name in names)
    print(f"seed {options.seed}, {options.faults} faults on the stages {', '.join(names)}", flush=True)
    begin = time.monotonic()
    played: list[Played] = []
    with ProcessPoolExecutor(options.workers, max_tasks_per_child=1) as pool:
        jobs = []
        for name in names:
            kinds = [options.only] if options.only else kinds_of(name)
            chance = random.Random(f"{options.seed}-{name}")
            # So that a short run has not always the same kinds.
            chance.shuffle(kinds)
            count = max(1, round(options.faults * SHARES[name] / whole))
            chosen = list(itertools.islice(itertools.cycle(kinds), count))
            chance.shuffle(chosen)
            jobs.append(pool.submit(play, name, chosen, options.seed))
        for job in as_completed(jobs):
            done = job.result()
            played.append(done)
            total = done.counts.total()
            print(f"{done.name}: {total} faults in {done.seconds:.0f} s, {len(done.findings)} findings", flush=True)
    counts: collections.Counter[str] = sum((each.counts for each in played), collections.Counter())
    findings = [each for done in played for each in done.findings]
    width = max(map(len, counts), default=0)
    for kind, count in sorted(counts.items()):
        found = sum(each.kind.startswith(kind) for each in findings)
        print(f"  {kind:{width}}  {count:4}" + (f"  {found} FOUND" if found else ""))
    for each in findings:
        print(f"FOUND on {each.stage}, fault {each.number} ({each.kind}): {each.text}")
    print(
        f"{counts.total()} faults in {time.monotonic() - begin:.0f} s, {len(findings)} findings; again with: "
        f"python -m bench.faults --faults {options.faults} --seed {options.seed}"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
