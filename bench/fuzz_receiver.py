"""10,000 backups from a hostile rsync daemon: each ends soon, and changes nothing but what is its own.

Run by hand from the checkout, as root (without, only in the modes that need no file system of their own):
`.venv/bin/python -m bench.fuzz_receiver [--sessions N] [--seed N] [--mode MODE] [--seconds N]`.

A session is the product's own `back_up`, with the real rsync in the real sandbox. Half of them go through a relay that
damages what a real daemon says (`tests/support/mutating_relay.py`), half talk to a daemon whose conversation is made by
a grammar (`tests/support/hostile_conversations.py`). Sessions come in episodes: 40 on a machine of their own that has
history, in one of the four snapshot modes, with an honest backup after each 20 of them. After each session all that it
may not change is compared with what it was, content included. What is wrong is printed with the arguments that repeat
the episode up to it, and the exit code is 1.
"""

import argparse
import collections
import ctypes
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from tests.support.fuzzed_volume import MODES, FuzzedVolume, fuzzed_volume
from tests.support.hostile_conversations import HostileDaemon
from tests.support.loop_volume import loop_volume
from tests.support.mutating_relay import MutatingRelay, Plan

from turku.storage.backup.job import BackupReport
from turku.storage.containment import sandbox, watchdog
from turku.storage.fs.remove import remove_tree

SESSIONS = 10_000
EPISODE_SESSIONS = 40
HONEST_EVERY = 20
WORKERS = 2
LIMIT_SECONDS = 20.0
"""Three runs of rsync of 3 s each, and the time to end them. Two cores may have other work."""
HONEST_LIMIT_SECONDS = 60.0
"""With a look at all snapshots, beside its backup."""
MEMORY_LIMIT_MIB = 60.0
"""On top of what the process has before its first session."""
CHILD_LIMIT_MIB = 400.0
"""A child that is ended for its memory may have taken more until it was looked at."""
STAYS_SHARE = 0.04
"""Of the relay's sessions: the relay does not hang up when nobody says anything."""
KINDS = ("relay", "grammar")
FILE_SYSTEMS = {"link-dest": "ext4", "none": "ext4", "btrfs": "btrfs", "reflink": "xfs"}
_VOLUME_BYTES = 400 * 1024 * 1024
_LEFT_SECONDS = 3.0
_EXIT_CODE = re.compile(r"\(rsync exit code (\d+)\)")
_BOUND = re.compile(r"\((max_run_\w+|low_water_free_pct)")
_SET_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Session:
    """The result of one session."""

    kind: str
    mode: str
    outcome: str
    seconds: float
    connections: int


@dataclass
class Tally:
    """The results of many sessions."""

    sessions: list[Session] = field(default_factory=list)
    honest: collections.Counter[str] = field(default_factory=collections.Counter)
    believed_lies: int = 0
    faults: list[str] = field(default_factory=list)
    own_mib: float = 0.0
    grown_mib: float = 0.0
    child_mib: float = 0.0

    def add(self, other: "Tally") -> None:
        self.sessions += other.sessions
        self.honest += other.honest
        self.believed_lies += other.believed_lies
        self.faults += other.faults
        self.own_mib = max(self.own_mib, other.own_mib)
        self.grown_mib = max(self.grown_mib, other.grown_mib)
        self.child_mib = max(self.child_mib, other.child_mib)

    def report(self) -> None:
        print(f"{'kind':8} {'mode':10} {'sessions':>8} {'success':>8} {'median':>8} {'99 of 100':>10} {'longest':>8}")
        for kind in KINDS:
            for mode in MODES:
                self._row(kind, mode, [each for each in self.sessions if (each.kind, each.mode) == (kind, mode)])
        self._row("all", "", self.sessions)
        for kind in KINDS:
            counts = collections.Counter(each.outcome for each in self.sessions if each.kind == kind)
            print(f"{kind}: " + ", ".join(f"{name}: {count:,}" for name, count in counts.most_common()))
        honest = ", ".join(f"{name}: {count:,}" for name, count in self.honest.most_common())
        print(
            f"honest backups: {honest}; files of theirs with content that was sent under their size and time before: "
            f"{self.believed_lies:,}"
        )
        print(
            f"memory at most: {self.own_mib:.1f} MiB of the session's process, {self.grown_mib:.1f} more than before "
            f"the first session; {self.child_mib:.1f} MiB of any process that it started"
        )

    def _row(self, kind: str, mode: str, sessions: list[Session]) -> None:
        if sessions:
            seconds = sorted(each.seconds for each in sessions)
            successes = sum(each.outcome.startswith("success") for each in sessions)
            print(
                f"{kind:8} {mode:10} {len(sessions):8,} {successes:8,} {statistics.median(seconds):7.2f}s "
                f"{seconds[len(seconds) * 99 // 100]:9.2f}s {seconds[-1]:7.2f}s"
            )


class TookTooLong(BaseException):
    """The error for a session that did not end. No handler of the product catches it."""


class _Log(logging.Handler):
    """Looks for what must never be in a log."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:
            text = f"a record that cannot be formatted: {record.msg!r}"
            self.found.append(text)
        if record.exc_info and record.exc_info[0] is not None:
            self.found.append(f"{text}: {''.join(traceback.format_exception(*record.exc_info))}")
        elif "Traceback" in text or "internal error" in text.lower():
            self.found.append(text)


class Worker:
    """Runs episodes in this process, on volumes of its own."""

    def __init__(self, directory: Path, modes: tuple[str, ...], seed: int) -> None:
        self._directory = directory
        self._modes = modes
        self._seed = seed
        self._stack = ExitStack()
        self._mounted: dict[str, Path] = {}
        self._log = _Log()
        self._first_mib = 0.0
        self.tally = Tally()

    def __enter__(self) -> "Worker":
        libc = ctypes.CDLL(None)
        # What a sandbox might leave behind becomes a child of ours, and is seen.
        libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
        logging.getLogger().handlers = [self._log]
        logging.getLogger().setLevel(logging.DEBUG)
        signal.signal(signal.SIGALRM, _too_long)
        # Where a greeting does not come: it is bounded, and 30 s of it are too dear to wait for often.
        sandbox._CONNECT_TIMEOUT_SECONDS = 2.0
        if os.geteuid() == 0:
            for kind in sorted({FILE_SYSTEMS[mode] for mode in self._modes}):
                mounted = self._stack.enter_context(loop_volume(kind, size_bytes=_VOLUME_BYTES))
                self._mounted[kind] = mounted
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def episode(self, number: int, sessions: int) -> None:
        """Run so many sessions on a new machine, and end at the first fault."""
        mode = self._modes[number % len(self._modes)]
        directory = self._directory / f"{number}"
        directory.mkdir()
        volume = Path(tempfile.mkdtemp(dir=self._mounted.get(FILE_SYSTEMS[mode], self._directory)))
        try:
            with fuzzed_volume(directory, volume, mode) as fuzzed:
                # The machine's daemon is none of a session's.
                daemon = watchdog.descendants(os.getpid())
                for session in range(sessions):
                    faults = self._session(fuzzed, number, session, daemon)
                    if session % HONEST_EVERY == HONEST_EVERY - 1 or session == sessions - 1:
                        faults += self._honest(fuzzed)
                    self.tally.believed_lies += fuzzed.believed_lies
                    fuzzed.believed_lies = 0
                    if faults:
                        again = f"--seed {self._seed} --mode {mode} --episode {number} --sessions {session + 1}"
                        self.tally.faults.append("\n  ".join([f"{mode}: repeat with {again}", *faults[:20]]))
                        return
        finally:
            remove_tree(volume)
            shutil.rmtree(directory)

    def _honest(self, fuzzed: FuzzedVolume) -> list[str]:
        self.tally.honest[fuzzed.mode] += 1
        signal.setitimer(signal.ITIMER_REAL, HONEST_LIMIT_SECONDS)
        try:
            return fuzzed.honest_faults()
        except TookTooLong:
            return [f"the honest backup did not end within {HONEST_LIMIT_SECONDS:g} s"]
        except Exception:
            return [f"the honest backup raised: {traceback.format_exc()}"]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _session(self, fuzzed: FuzzedVolume, episode: int, number: int, daemon: list[int]) -> list[str]:
        draw = random.Random(f"{self._seed}/{fuzzed.mode}/{episode}/{number}")
        kind = draw.choice(KINDS)
        if draw.random() < 0.7:
            fuzzed.change_source(draw.randrange(1000))
        options = {"preserve_hard_links": draw.random() < 0.2, "compress": draw.choice(("off", "off", "on"))}
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        _forget_peak()
        outcome: BackupReport | None = None
        faults: list[str] = []
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
        try:
            with _hostile(kind, draw, fuzzed) as hostile:
                outcome = fuzzed.session(hostile.port, **options)
                seconds = time.monotonic() - begun
        except TookTooLong:
            faults.append(f"the session did not end within {LIMIT_SECONDS:g} s")
        except Exception:
            faults.append(f"back_up raised: {traceback.format_exc()}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if outcome is not None:
            self.tally.sessions.append(Session(kind, fuzzed.mode, _in_short(outcome), seconds, hostile.connections))
        faults += [f"the log: {text}" for text in self._log.found]
        self._log.found.clear()
        faults += _left(descriptors, threads, daemon)
        faults += self._memory_faults()
        faults += fuzzed.faults(outcome)
        if faults:
            changes = getattr(hostile, "changes", "")
            faults.append(f"it was the {kind} that did it: {changes}; {outcome}"[:2000])
        return faults

    def _memory_faults(self) -> list[str]:
        own, child = _peak_mib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        self._first_mib = self._first_mib or own
        tally = self.tally
        had_too_much = tally.child_mib > CHILD_LIMIT_MIB
        tally.own_mib, tally.child_mib = max(tally.own_mib, own), max(tally.child_mib, child)
        tally.grown_mib = max(tally.grown_mib, own - self._first_mib)
        found = [f"{own:.1f} MiB of memory"] if own - self._first_mib > MEMORY_LIMIT_MIB else []
        return [*found, *([f"{child:.1f} MiB in a child"] if child > CHILD_LIMIT_MIB and not had_too_much else [])]


@contextmanager
def _hostile(kind: str, draw: random.Random, fuzzed: FuzzedVolume) -> Iterator[MutatingRelay | HostileDaemon]:
    if kind == "grammar":
        with HostileDaemon(draw) as daemon:
            yield daemon
        return
    # Which of up to three connections are touched: the dry run, what follows it, all.
    touched = draw.choice((0, 1, None)) if fuzzed.mode in ("link-dest", "reflink") else None
    hangs_up = draw.random() >= STAYS_SHARE
    key = draw.random()

    def plan_of(number: int) -> Plan | None:
        if touched not in (None, number):
            return None
        return Plan(random.Random(f"{key}/{number}"), hangs_up=hangs_up)

    with MutatingRelay(fuzzed.machine.daemon.port, plan_of) as relay:
        yield relay


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TookTooLong


def _in_short(outcome: BackupReport) -> str:
    if outcome.success:
        return f"success {outcome.strategy}" + (" (quarantined)" if outcome.findings else "")
    if match := _BOUND.search(outcome.summary):
        return match[1]
    if match := _EXIT_CODE.search(outcome.summary):
        return f"rsync {match[1]}"
    return re.sub(r"\d+", "N", outcome.summary.splitlines()[0])[:60]


def _left(descriptors: int, threads: int, daemon: list[int]) -> list[str]:
    """Return the remains of a session after its end: descriptors, threads, processes."""
    deadline = time.monotonic() + _LEFT_SECONDS
    while True:
        found = []
        if (count := len(os.listdir("/proc/self/fd"))) > descriptors:
            found.append(f"{count - descriptors} descriptors are left open")
        if (count := threading.active_count()) > threads:
            names = ", ".join(each.name for each in threading.enumerate())
            found.append(f"{count - threads} threads are left, of {names}")
        for process in _children(daemon):
            with suppress(OSError):
                if os.waitpid(process, os.WNOHANG) == (0, 0):
                    found.append(f"process {process} is left: {Path(f'/proc/{process}/cmdline').read_bytes()!r}")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def _children(daemon: list[int]) -> list[int]:
    """Ours, but for the machine's daemon."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += [int(word) for word in (thread / "children").read_text().split()]
    return [each for each in found if each not in daemon]


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


# --- the workers and their parent


def _work(options: argparse.Namespace, number: int, directory: Path, modes: tuple[str, ...], to: Connection) -> None:
    os.nice(options.nice)
    (directory / f"{number}").mkdir()
    deadline = time.monotonic() + options.seconds
    length = options.episode_sessions
    episodes = range(number, -(-options.sessions // length), options.workers)
    with Worker(directory / f"{number}", modes, options.seed) as worker:
        for episode in [options.episode] if options.episode is not None else episodes:
            if time.monotonic() > deadline:
                break
            left = options.sessions - (0 if options.episode is not None else episode * length)
            worker.episode(episode, min(left, length))
            to.send(worker.tally)
            worker.tally = Tally()
    to.send(None)


def _run(options: argparse.Namespace, modes: tuple[str, ...], directory: Path) -> Tally:
    tally = Tally()
    begun = time.monotonic()
    context = multiprocessing.get_context("fork")
    receiving = []
    for number in range(options.workers):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(options, number, directory, modes, theirs), daemon=True)
        process.start()
        theirs.close()
        receiving.append(ours)
    while receiving:
        for each in multiprocessing.connection.wait(receiving):
            assert isinstance(each, Connection)
            try:
                found = each.recv()
            except EOFError:
                tally.faults.append("a worker ended")
                found = None
            if found is None:
                receiving.remove(each)
                continue
            tally.add(found)
            print(f"{time.monotonic() - begun:6.0f} s  {len(tally.sessions):7,} sessions", flush=True)
            for fault in found.faults:
                print(f"FAULT {fault}", flush=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--mode", choices=MODES, action="append", help="of the snapshots; default: each in turn")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no episode after so long")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes (default: %(default)s)")
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--episode-sessions", type=int, default=EPISODE_SESSIONS, help="default: %(default)s")
    parser.add_argument("--episode", type=int, help="only this one, as a fault names it")
    options = parser.parse_args()
    if options.episode is not None:
        options.workers = 1
    possible = MODES if os.geteuid() == 0 else ("link-dest", "none")
    modes = tuple(mode for mode in options.mode or possible if mode in possible)
    begun = time.monotonic()
    # Its workers are ended with it, and inherit this: what they mounted is unmounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="turku-fuzz-") as directory:
        tally = _run(options, modes, Path(directory))
    print(f"{len(tally.sessions):,} sessions in {time.monotonic() - begun:.0f} s, seed {options.seed}")
    tally.report()
    for fault in tally.faults[:20]:
        print(f"FAULT {fault}")
    print(f"{len(tally.faults)} faults")
    return 1 if tally.faults or not tally.sessions else 0


if __name__ == "__main__":
    sys.exit(main())
