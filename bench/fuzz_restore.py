"""10,000 restores from a storage that answers and sends malformed things: nothing but what was asked for is written.

Run by hand from the checkout: `.venv/bin/python -m bench.fuzz_restore [--sessions N] [--first N] [--seed N]`. Each
session is a fork of the real agent with a real rsyncd and a real sender (see tests/support/fuzzed_restores.py). The
exit code is 1 where anything around what was asked for changed, a session did not end in time, took more memory than
allowed or showed a traceback, or an honest one among them failed.
"""

import argparse
import collections
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.support.fuzzed_restores import LIMIT_SECONDS, Ended, FuzzedRestores

SESSIONS = 10_000
_SESSIONS_AT_ONCE = 25
"""Of one worker, before it tells of them."""


def sessions(seed: int, numbers: range) -> list[Ended]:
    """Play these sessions, one after the other."""
    with (
        tempfile.TemporaryDirectory(prefix="turku-fuzz-", dir="/var/tmp") as directory,
        FuzzedRestores(Path(directory), seed=seed) as restores,
    ):
        return [restores.run(number) for number in numbers]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument(
        "--workers", type=int, default=4, help="at once: much of a session is waiting (default: %(default)s)"
    )
    options = parser.parse_args()
    seconds: list[float] = []
    largest_mib = 0.0
    codes: collections.Counter[tuple[str, int | None]] = collections.Counter()
    failures = 0
    end = options.first + options.sessions
    ranges = [
        range(first, min(first + _SESSIONS_AT_ONCE, end)) for first in range(options.first, end, _SESSIONS_AT_ONCE)
    ]
    with ProcessPoolExecutor(options.workers) as pool:
        for done in as_completed([pool.submit(sessions, options.seed, numbers) for numbers in ranges]):
            for ended in done.result():
                seconds.append(ended.seconds)
                largest_mib = max(largest_mib, ended.largest_mib)
                codes[ended.kind, ended.exit_code] += 1
                if ended.faults:
                    failures += 1
                    text = f"{'; '.join(ended.faults)}: {ended.output[-2000:]}"
                    print(f"FAILED {ended.number} ({ended.kind}): {text}", flush=True)
            print(f"{len(seconds):,} sessions, {failures} failed", flush=True)
    ordered = sorted(seconds)
    print(
        f"{len(ordered):,} sessions; median {ordered[len(ordered) // 2]:.2f} s, 99 of 100 within "
        f"{ordered[len(ordered) * 99 // 100]:.2f} s, longest {ordered[-1]:.2f} s (limit {LIMIT_SECONDS:g} s); "
        f"largest {largest_mib:.0f} MiB; {failures} FAILED"
    )
    for kind in sorted({kind for kind, _code in codes}):
        counts = {code: count for (each, code), count in codes.items() if each == kind}
        print(
            f"  {kind}: " + ", ".join(f"exit code {code}: {count:,}" for code, count in sorted(counts.items(), key=str))
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
