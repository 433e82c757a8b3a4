"""10,000 malformed requests to the forced command `turku-storage-ping UUID`: each ends soon, with a sentence.

Run by hand from the checkout: `.venv/bin/python -m bench.fuzz_session [--requests N] [--real N] [--seed N]`. Each
request is a process of its own. Most are forks of this one, which has the imports already. The first ``--real`` ones
are the installed command as sshd would start it. The exit code is 1 where one took longer than the limit, succeeded,
showed a traceback, or took more memory than allowed.
"""

import argparse
import collections
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.forked_command import Ended, forked
from tests.support.malformed_session_requests import malformed

from turku.core import command
from turku.demo.programs import DIRECTORY as PROGRAMS
from turku.errors import MalformedMessage, TunnelRefused
from turku.storage import cli

REQUESTS = 10_000
REAL_REQUESTS = 500
LIMIT_SECONDS = 2.0
MEMORY_LIMIT_MIB = 40.0
"""On top of what one run has with the smallest request."""
UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
OUTPUT_LIMIT_BYTES = 5_000
"""As much goes into the log: more would fill the storage's disk."""
EXIT_CODES = (MalformedMessage.exit_code, TunnelRefused.exit_code)
"""The exit codes of refusals. A request that is well-formed after all names a port at which nothing listens."""
_TIMEOUT_SECONDS = 20.0


@dataclass
class Tally:
    """The results of the runs of one kind."""

    name: str
    seconds: list[float] = field(default_factory=list)
    exit_codes: collections.Counter[int | None] = field(default_factory=collections.Counter)
    largest_mib: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, number: int, ended: Ended, *, memory_limit_mib: float) -> None:
        self.seconds.append(ended.seconds)
        self.exit_codes[ended.exit_code] += 1
        self.largest_mib = max(self.largest_mib, ended.largest_mib)
        faults = [
            *(["killed: it did not end"] if ended.exit_code is None else []),
            *([f"exit code {ended.exit_code}"] if ended.exit_code not in (*EXIT_CODES, None) else []),
            *(["a traceback"] if "Traceback" in ended.output or "[internal]" in ended.output else []),
            *(["no sentence"] if "error [" not in ended.output else []),
            *([f"{len(ended.output)} bytes of output"] if len(ended.output) > OUTPUT_LIMIT_BYTES else []),
            *([f"{ended.seconds:.2f} s"] if ended.seconds > LIMIT_SECONDS else []),
            *([f"{ended.largest_mib:.0f} MiB"] if ended.largest_mib > memory_limit_mib else []),
        ]
        if faults:
            self.failures.append(f"{number}: {', '.join(faults)}: {ended.output[-300:]!r}")

    def report(self) -> None:
        if not self.seconds:
            return
        codes = ", ".join(f"{code}: {count:,}" for code, count in sorted(self.exit_codes.items(), key=str))
        ordered = sorted(self.seconds)
        print(
            f"{self.name}: {len(ordered):,} requests; median {statistics.median(ordered) * 1000:.0f} ms, "
            f"99 of 100 within {ordered[len(ordered) * 99 // 100] * 1000:.0f} ms, longest {ordered[-1] * 1000:.0f} ms; "
            f"largest {self.largest_mib:.1f} MiB"
        )
        print(f"  exit codes: {codes}; {len(self.failures)} FAILED" if self.failures else f"  exit codes: {codes}")
        for failure in self.failures[:20]:
            print(f"  FAILED: {failure}")


def configured(directory: Path) -> Path:
    """A configuration directory of a storage whose coordinator is nowhere."""
    config_dir = directory / "etc"
    (config_dir / "config.d").mkdir(parents=True)
    (directory / "volume").mkdir(mode=0o700)
    content = {
        "api_url": "http://127.0.0.1:1/v1",
        "name": "primary",
        "secret": "0123456789012345678901234567890",
        "volumes": {"data": {"path": str(directory / "volume")}},
        "var_dir": str(directory / "var"),
        "ssh_ping_host_keys": ["ssh-ed25519 AAAA"],
        "log_file": str(directory / "log"),
    }
    path = config_dir / "config.d" / "config.json"
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return config_dir


def real(config_dir: Path, body: bytes) -> Ended:
    """Run the installed command. The memory that it took is not known."""
    begun = time.monotonic()
    completed = command.run(
        [PROGRAMS / "turku-storage-ping", UUID, "--config-dir", config_dir],
        timeout_seconds=_TIMEOUT_SECONDS,
        input_bytes=body,
        check=False,
    )
    output = completed.stdout.decode("utf-8", "replace") + "\n".join(completed.last_lines)
    return Ended(completed.exit_code, output, time.monotonic() - begun, 0.0)


def run_forked(config_dir: Path, body: bytes) -> Ended:
    """A run in a fork of this process."""
    argv = ["turku-storage-ping", UUID, "--config-dir", str(config_dir)]
    return forked(cli.ping_entry, argv, input_bytes=body, timeout_seconds=_TIMEOUT_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="forked runs (default: %(default)s)")
    parser.add_argument("--real", type=int, default=REAL_REQUESTS, help="real commands besides (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20261124)
    options = parser.parse_args()
    import turku.storage.config.loading
    import turku.storage.session.server  # noqa: F401  (so that the forks have it)

    forks, commands = Tally("forked"), Tally("installed command")
    with tempfile.TemporaryDirectory(prefix="turku-fuzz-") as directory:
        config_dir = configured(Path(directory))
        least = run_forked(config_dir, b"{}\n.\n").largest_mib
        limit = least + MEMORY_LIMIT_MIB
        for number in range(options.real):
            commands.add(number, real(config_dir, malformed(options.seed, number)), memory_limit_mib=limit)
        for number in range(options.requests):
            forks.add(number, run_forked(config_dir, malformed(options.seed, number)), memory_limit_mib=limit)
        log_mib = (Path(directory) / "log").stat().st_size / 2**20
    commands.report()
    forks.report()
    print(f"smallest request: {least:.1f} MiB; limits: {LIMIT_SECONDS:g} s, {limit:.1f} MiB; log: {log_mib:.1f} MiB")
    return 1 if forks.failures or commands.failures else 0


if __name__ == "__main__":
    sys.exit(main())
