"""50,000 generated requests over all calls to a real `turku-api serve`: no 5xx, and the workers' memory stays.

Run by hand from the checkout: `.venv/bin/python -m bench.fuzz_calls [--requests N] [--seed N]`. The coordinator has two
workers and SQLite, its throttle of bad credentials off. The exit code is 1 where a request was answered with a server
error or not at all, or where memory grew by more than the limit. A request is made of the seed and its number alone.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.support.api_messages import lawful_messages
from tests.support.coordinator import Coordinator
from tests.support.generated_requests import Fuzz
from tests.support.http_cast import HttpCast

REQUESTS = 50_000
SLICE = 500
"""Memory is looked at after each so many requests."""
RENEWED_EVERY = 5_000
"""A new cast: a request may have rotated a secret away, and the rest would only be told 403."""
GROWTH_LIMIT_MIB = 15.0
_PAGE_MIB = 4096 / 2**20


def workers(coordinator: Coordinator) -> dict[int, float]:
    """Process id to resident memory in MiB, of the server's children."""
    assert coordinator._child is not None
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == coordinator._child.pid:
            found[int(path.parent.name)] = int(fields[21]) * _PAGE_MIB
    return found


def prepared(coordinator: Coordinator, seed: int) -> Fuzz:
    """A fuzz that speaks for a machine and a storage of its own."""
    cast = HttpCast.introduce(coordinator)
    # An earlier storage may have been made to promise more space than any.
    cast.operator(f"Machine.objects.filter(pk=alice.pk).update(storage=Storage.objects.get(name={cast.bob.name!r}))")
    code = coordinator.manage("machine", "re-enrol", cast.alice.uuid, "--raw").strip()
    lawful = lawful_messages(
        cast.alice, cast.bob, machine_auth=cast.machine_auth, storage_auth=cast.storage_auth, re_enrol_code=code
    )
    return Fuzz(coordinator.port, lawful, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    environment = {"TURKU_BAD_CREDENTIALS_PER_MINUTE": "0"}
    memory: list[float] = []
    seen: set[int] = set()
    failures: list[str] = []
    statuses: dict[int, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix="turku-fuzz-") as directory,
        Coordinator(Path(directory) / "state", workers=2, environment=environment) as coordinator,
    ):
        begun = time.monotonic()
        for start in range(0, options.requests, RENEWED_EVERY):
            end = min(start + RENEWED_EVERY, options.requests)
            fuzz = prepared(coordinator, options.seed)
            for first in range(start, end, SLICE):
                fuzz.run(range(first, min(first + SLICE, end)), connections=options.connections)
                resident = workers(coordinator)
                memory.append(sum(resident.values()))
                seen |= set(resident)
            failures += fuzz.failures
            for status, count in fuzz.statuses.items():
                statuses[status] = statuses.get(status, 0) + count
            print(f"{end:7,} requests, {memory[-1]:.1f} MiB in {len(resident)} workers", flush=True)
        seconds = time.monotonic() - begun
        server_errors = [line for line in coordinator.last_lines if "Traceback" in line]
    quarter = max(1, len(memory) // 4)
    early, late = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
    print(f"{options.requests:,} requests in {seconds:.0f} s ({options.requests / seconds:.0f}/s), seed {options.seed}")
    print("answers: " + ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items())))
    print(
        f"memory of both workers: {early:.1f} MiB in the first quarter, {late:.1f} MiB in the last "
        f"({late - early:+.1f}, limit +{GROWTH_LIMIT_MIB:g}); {len(seen)} worker processes were seen"
    )
    for failure in failures[:20]:
        print(f"FAILED: {failure}")
    grew = late - early > GROWTH_LIMIT_MIB
    print("memory GREW" if grew else "memory is steady")
    print(f"{len(failures)} server errors or missing answers")
    return 1 if failures or server_errors or grew else 0


if __name__ == "__main__":
    sys.exit(main())
