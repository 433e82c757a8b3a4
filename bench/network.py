"""The data path over a line with delay and rate, beside restic over sftp and borg over ssh, in turns, in one run.

Run by hand from the checkout: `.venv/bin/python -m bench.network`. Everything between machine and storage, and between
machine and coordinator, passes a relay (`bench/relay.py`): once with 30 ms there and back and 200 Mbit/s, once with
80 ms and 50 Mbit/s. The steps and the tree are those of `bench/data_path.py`. It runs in a network namespace of its own
and so as root: the storage has to see its machine at another address than its own, or nothing is compressed.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import contenders, data_path, document, source_tree
from bench.contenders import Borg, Contender, Restic, Server, Turku
from bench.own_disk import own_disk
from bench.relay import Line, Relay
from tests.support.fleet import Fleet
from tests.support.sshd import Sshd

from turku.core import command
from turku.core.cli import entry
from turku.errors import CommandFailed, TurkuError

FILES = 40_000
QUICK_FILES = 2_000
LINES = (Line(milliseconds=30, megabits=200), Line(milliseconds=80, megabits=50))
NAMES = (Turku.name, Restic.name, Borg.name)
_MACHINE_ADDRESS = "10.255.255.1"
_IN_NAMESPACE = "TURKU_BENCH_NAMESPACE"


class OverLine(data_path.Run):
    """The measurements over one line."""

    first_times = 1

    def __init__(
        self, directory: Path, fleet: Fleet, tree: source_tree.SourceTree, *, server: Server, api_url: str
    ) -> None:
        super().__init__(directory, fleet, tree, NAMES)
        self._server = server
        self._api_url = api_url

    def all_contenders(self, life: str) -> list[Contender]:
        return [
            Turku(self.fleet.directory / f"turku-{life}", self.tree.path, self.fleet, api_url=self._api_url),
            *(peer(self.directory / f"{peer.name}-{life}", self.tree.path, self._server) for peer in (Restic, Borg)),
        ]


def over(line: Line, directory: Path, tree: source_tree.SourceTree) -> dict[str, Any]:
    """Return what was measured over that line, as the file holds it."""
    directory.mkdir()
    with ExitStack() as stack:

        def relayed(port: int) -> int:
            return stack.enter_context(Relay(port, line, source_address=_MACHINE_ADDRESS)).port

        # Relays end after whoever uses them.
        fleet = Fleet(directory / "fleet")
        with fleet:
            fleet.storage("primary", reached_through=relayed)
            direct = fleet.coordinator.port
            api_url = fleet.coordinator.url.replace(f":{direct}", f":{relayed(direct)}")
            run = OverLine(directory, fleet, tree, server=_server(directory, stack, relayed), api_url=api_url)
            run.round(1)
    return {
        "milliseconds": line.milliseconds,
        "megabits": line.megabits,
        "steps": {
            step: {name: [asdict(each) for each in all_of_them] for name, all_of_them in by_name.items()}
            for step, by_name in run.found.items()
        },
    }


def _server(directory: Path, stack: ExitStack, relayed: Callable[[int], int]) -> Server:
    """Return an sshd for the peers' repositories, with a key that may do anything."""
    keys = directory / "peers-authorized_keys"
    sshd = stack.enter_context(Sshd(directory / "peers", authorized_keys=keys))
    key = sshd.new_key("client")
    keys.write_text(key.with_suffix(".pub").read_text())
    ssh = (
        *("ssh", "-F", "none", "-i", str(key), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    )
    return Server(relayed(sshd.port), sshd.user, ssh)


def _require_namespace() -> None:
    """Begin anew in a network namespace of its own, unless this is it. Raises CommandFailed without root."""
    if os.environ.get(_IN_NAMESPACE):
        for argv in (
            ["ip", "link", "set", "lo", "up"],
            ["ip", "address", "add", f"{_MACHINE_ADDRESS}/32", "dev", "lo"],
        ):
            command.run(argv, timeout_seconds=30)
        return
    if os.geteuid() != 0:
        raise CommandFailed("a network namespace takes root", hint="run it as root")
    argv = ["unshare", "--net", sys.executable, "-m", "bench.network", *sys.argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, _IN_NAMESPACE: "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=FILES, help="of the tree, 17 KB on average (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a small tree: does everything work?")
    parser.add_argument("--result", type=Path, help="the file (default: bench/figures/network.json, unless --quick)")
    parser.add_argument("--directory", type=Path, help="where trees and repositories lie for the time; default: TMPDIR")
    arguments = parser.parse_args()
    _require_namespace()
    if arguments.quick:
        arguments.files = QUICK_FILES
    contenders.require()
    needed = arguments.files * data_path.DISK_BYTES_PER_FILE + 2**30
    begun, clock = datetime.now(UTC), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="turku-bench-", dir=arguments.directory) as text,
        own_disk(Path(text), needed_bytes=needed, useful_bytes=2 * needed) as directory,
    ):
        tree = source_tree.make(directory / "tree", arguments.files)
        found: dict[str, Any] = {
            "begun": begun.isoformat(timespec="seconds"),
            "command": "python -m bench.network",
            "machine": contenders.machine(),
            "versions": contenders.versions(),
            "files": tree.count,
            "size_bytes": tree.size_bytes,
            "lines": [],
        }
        for number, line in enumerate(LINES):
            print(line, flush=True)
            found["lines"].append(over(line, directory / f"line-{number}", tree))
    found["minutes"] = round((time.monotonic() - clock) / 60, 1)
    print(document.network_table(found))
    document.write_result(found, "network", result=arguments.result, is_figure=not arguments.quick)


if __name__ == "__main__":
    try:
        main()
    except TurkuError as error:
        entry.print_error(error)
        sys.exit(1)
