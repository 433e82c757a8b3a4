"""Faults injected into a whole fleet at work: a real coordinator, sshd, storage and agent, of which something is killed.

The same is true after each as in ``injected_faults.py``.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import trees
from tests.support.backed_up_machine import fingerprint
from tests.support.fleet import Fleet
from tests.support.injected_faults import LONGEST_SECONDS, Finding

from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.storage.containment import watchdog

NAME = "fleet"
VICTIMS = {
    "kill the agent": "",
    "kill the agent's ssh": "ssh",
    "kill the agent's rsync": "rsync",
    "kill the storage's session": "turku-storage-p",
    "kill the storage's sshd": "sshd",
}
"""Kinds, with the name of the process that is killed, as the kernel has it, or "" for the agent itself."""


@dataclass
class FleetStage:
    """A machine of the fleet, with a source."""

    fleet: Fleet
    machine: PrivateMachine
    source_dir: Path
    chance: random.Random
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)

    def change_source(self) -> None:
        for _ in range(5):
            path = self.source_dir / f"f{self.chance.randrange(20)}"
            path.write_bytes(self.chance.randbytes(self.chance.choice((10, 20_000, 400_000))))

    def inject(self, number: int, kind: str) -> None:
        """Let one fault happen, and look."""

        def find(text: str) -> None:
            self.findings.append(Finding(NAME, number, kind, text))

        self.change_source()
        self.fleet.make_due(self.machine)
        argv: list[str | Path] = [programs.DIRECTORY / "turku-agent-ping", "--config-dir", self.machine.config_dir]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ping:
            time.sleep(self.chance.uniform(0, self.seconds))
            for pid in self._victims(ping.pid, VICTIMS[kind]):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            try:
                ping.wait(LONGEST_SECONDS)
            except subprocess.TimeoutExpired:
                find(f"the ping did not end within {LONGEST_SECONDS:g} s")
                ping.kill()
        self._check(find)
        self._go_on(find)

    def _victims(self, ping: int, name: str) -> list[int]:
        if not name:
            return [ping]
        below = [ping, *watchdog.descendants(ping)]
        # The storage's processes are the sshd's, which is not the agent's child.
        mark = str(self.fleet.directory).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            with suppress(OSError):
                is_ours = pid in below or mark in (entry / "cmdline").read_bytes() or self._is_of_a_session(pid)
                listens = name == "sshd" and pid in self._listeners()
                if is_ours and not listens and (entry / "comm").read_text().strip() == name:
                    found.append(pid)
        return found

    def _listeners(self) -> set[int]:
        return {sshd.pid for sshd in self.fleet.sshds.values() if sshd.pid is not None}

    def _is_of_a_session(self, pid: int) -> bool:
        return any(pid in watchdog.descendants(listener) for listener in self._listeners())

    def _check(self, find: Any) -> None:
        there = {path.name: path for path in self.fleet.snapshots(self.machine, "files")}
        for name, before in self.known.items():
            if name not in there:
                find(f"snapshot {name} is gone")
            elif fingerprint(there[name].resolve()) != before:
                find(f"snapshot {name} has changed")
        self.known = {name: fingerprint(path.resolve()) for name, path in there.items()}

    def _go_on(self, find: Any) -> None:
        # A storage that was killed says nothing, and its slot is its own for some minutes more.
        self.fleet.execute("UPDATE queue_slot SET date_expires = '2000-01-01 00:00:00' WHERE machine_id IS NOT NULL")
        deadline = time.monotonic() + LONGEST_SECONDS
        while True:
            self.fleet.make_due(self.machine)
            ended = self.machine.ping(check=False)
            different = self._differences()
            if ended.exit_code == 0 and not different:
                break
            # The session before may be ending still.
            if time.monotonic() > deadline:
                find(f"the next backup failed: {ended.last_lines}, {different[:5]}")
                break
            time.sleep(0.5)
        self._check(find)
        left = [path.name for path in (self.machine.var_dir / "run").glob("*")]
        if left:
            find(f"left over: {left}")

    def _differences(self) -> list[str]:
        snapshots = self.fleet.snapshots(self.machine, "files")
        return trees.differences(self.source_dir, snapshots[-1].resolve()) if snapshots else ["no snapshot"]


@contextmanager
def fleet_stage(directory: Path, seed: str) -> Iterator[FleetStage]:
    """A fleet that has made a backup."""
    source_dir = directory / "files"
    source_dir.mkdir(parents=True)
    with Fleet(directory / "fleet") as fleet:
        fleet.storage("primary")
        machine = fleet.machine("web-0", {"files": {"path": str(source_dir)}})
        stage = FleetStage(fleet, machine, source_dir, random.Random(seed))
        stage.change_source()
        begin = time.monotonic()
        machine.ping()
        stage.seconds = time.monotonic() - begin
        stage._check(print)
        yield stage
