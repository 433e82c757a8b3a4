"""The change report: it names recently changed entries and sparse files to a storage that asks during its session.

A thread of low priority scans the offered sources and writes lines about each to ssh's standard input
(``changed_entries_messages``). It never waits for the storage longer than the session lasts.

A record per storage and source has the moment of the last session that ended well and the paths of all directories
(``changed_entries.py``). Change times can be compared with the moment as long as nobody sets the clock and the system
is not rebooted. A booting system may give entries any change time before its clock is right, and another system may
have changed its disks before that.
"""

import fcntl
import logging
import os
import select
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import msgspec

from turku.agent.capture.changed_entries import ChangeScan, DirectoryDigests, ScanUncertain
from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.rsyncd.config_text import Module
from turku.agent.state import var_dir
from turku.agent.tunnel.storage_output import StorageOutput
from turku.core import clock, durable
from turku.core.cancellation import Cancellation, Cancelled
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import TurkuError
from turku.protocol import codec
from turku.protocol.machine.changed_entries_messages import (
    CHANGED_ENTRIES_WANTED,
    LINES_LIMIT_BYTES,
    PATHS_LIMIT,
    ChangedEntriesLine,
    FilesWithHolesLine,
)
from turku.protocol.restore_messages import PATH_LIMIT_BYTES, WirePath, wire_path

_DIRECTORY = "changed_entries"
_LIMIT_BYTES = 64 * 1024 * 1024
_CLOCK_TOLERANCE_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MARGIN_NS = 2_000_000_000
"""The tolerance for file systems that store change times in steps of a second, and for small changes of the clock."""
_NICENESS = 10
_END_SECONDS = 2.0
_LOG = logging.getLogger(__name__)


class Moment(msgspec.Struct, frozen=True):
    """A moment by two clocks: one that can be set, and one that runs from the boot of the system."""

    unix_ns: int
    boot_id: str
    boot_ns: int

    def follows(self, earlier: "Moment") -> bool:
        """Return True where the clock ran from the earlier moment to this one and nobody set it meanwhile."""
        passed_ns = self.boot_ns - earlier.boot_ns
        was_set_by_ns = self.unix_ns - earlier.unix_ns - passed_ns
        return (
            bool(self.boot_id)
            and self.boot_id == earlier.boot_id
            and passed_ns > 0
            and self.unix_ns > earlier.unix_ns
            and abs(was_set_by_ns) <= _CLOCK_TOLERANCE_NS
        )


def moment_of(source_of_time: Clock = SYSTEM_CLOCK, *, boot_id: Path = _BOOT_ID) -> Moment:
    """Return the present moment. No moment follows it where the kernel does not report the boot's ID."""
    try:
        start = boot_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        start = ""
    unix_ns = (source_of_time.now() - _EPOCH) // timedelta(microseconds=1) * 1000
    return Moment(max(0, unix_ns), start, clock.boot_nanoseconds())


class SourceRecord(msgspec.Struct, frozen=True):
    """The record of a source with this path."""

    path: str
    moment: Moment
    directories: bytes
    """The content of a ``changed_entries.DirectoryDigests``."""


def read_records(configuration: AgentState, storage_name: str) -> dict[str, SourceRecord]:
    """Return the records of the sources for a storage by name, or none where the file is damaged."""
    path = configuration.var_dir / _DIRECTORY / f"{storage_name}.json"
    try:
        content = durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=dict[str, SourceRecord])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        _LOG.warning(
            "cannot read %s, which is replaced: %s; storages compare all attributes of the next backups", path, error
        )
        return {}


def write_records(configuration: AgentState, storage_name: str, records: Mapping[str, SourceRecord]) -> None:
    """Replace the records of a storage. A failure is only logged, because the next backups just take longer."""
    try:
        path = var_dir.directory(configuration, _DIRECTORY) / f"{storage_name}.json"
        var_dir.write_text(configuration, path, msgspec.json.encode(dict(records)).decode())
    except (OSError, TurkuError) as error:
        _LOG.warning(
            "cannot record the session with storage %s: %s; it will compare all attributes next time",
            storage_name,
            error,
        )


class ChangeReport:
    """The report of one session, which began at ``moment``."""

    def __init__(
        self, agent: AgentConfig, storage_name: str, modules: Sequence[Module], *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.moment = moment_of(clock)
        self._agent = agent
        self._storage_name = storage_name
        self._modules = tuple(modules)
        self._attempt = _Connection(self.moment, self._modules, {})
        self._records: dict[str, SourceRecord] = {}

    def prepare(self, output: StorageOutput) -> None:
        """Begin when the storage asks for the report. An earlier connection's request is forgotten."""
        self._records = read_records(self._agent.state, self._storage_name)
        self._attempt = _Connection(self.moment, self._modules, self._records)
        output.call_on(CHANGED_ENTRIES_WANTED, self._attempt.is_asked.set)

    def sent_to(self, stream: IO[bytes]) -> AbstractContextManager[None]:
        """Write to the stream for the length of the block. The caller keeps the stream."""
        return self._attempt.sent_to(stream)

    def keep(self) -> None:
        """Record this session, which ended well, for the sources that were scanned completely."""
        passed = dict(self._attempt.passed)
        if not passed:
            return
        paths = {module.name: module.lasting_path for module in self._modules}
        # Only due sources are offered. The records of the others stay as long as these sources are configured.
        kept = {name: record for name, record in self._records.items() if name in self._agent.sources}
        for name, directories in passed.items():
            kept[name] = SourceRecord(paths[name], self.moment, directories.content)
        write_records(self._agent.state, self._storage_name, kept)


class _Connection:
    """One connection to the storage."""

    def __init__(self, moment: Moment, modules: Sequence[Module], records: dict[str, SourceRecord]) -> None:
        self.passed: dict[str, DirectoryDigests] = {}
        """The directories of each source that was scanned completely."""
        self._moment = moment
        self._modules = modules
        self._records = records
        self._end = Cancellation()
        self.is_asked = threading.Event()
        """Set when the storage asks for the report, or the session ends."""
        self._left_bytes = LINES_LIMIT_BYTES
        self._left_paths = PATHS_LIMIT

    @contextmanager
    def sent_to(self, stream: IO[bytes]) -> Iterator[None]:
        # An own descriptor, as a scan that hangs on a dead disk may outlive the block and must not write elsewhere.
        descriptor = os.dup(stream.fileno())
        thread = threading.Thread(target=self._run, args=(descriptor,), name="changed entries", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.cancel()
            self.is_asked.set()
            thread.join(_END_SECONDS)

    def _run(self, descriptor: int) -> None:
        try:
            self.is_asked.wait()
            self._end.check()
            with suppress(OSError):
                # On Linux this affects only this thread.
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)
            self._report(descriptor)
        except Cancelled:
            pass
        except BrokenPipeError:
            _LOG.debug("ssh ended before the change report was complete")
        except Exception:
            # The storage then compares all attributes.
            _LOG.exception("internal error in the change report")
        finally:
            os.close(descriptor)

    def _report(self, descriptor: int) -> None:
        comparable = {module.name: earlier for module in self._modules if (earlier := self._earlier(module))}
        # The storage must not wait for a line that could name nothing.
        for module in self._modules:
            if module.name not in comparable:
                self._write(descriptor, _encoded(ChangedEntriesLine(module.name, 0, [], is_complete=False)))
        # The storage takes the sources in their order, so those that it waits for come first.
        for module in sorted(self._modules, key=lambda each: each.name not in comparable):
            earlier = comparable.get(module.name)
            limits = (self._left_bytes - _reserve(self._modules), self._left_paths)
            changed, with_holes = _PathList(*limits), _PathList(*limits)
            # What the daemon shows of the module.
            one = ChangeScan(
                module.path,
                hidden=module.hidden,
                emptied=module.emptied,
                name_with_holes=with_holes.add,
                go_on=self._end.check,
            )
            line = ChangedEntriesLine(module.name, 0, [], is_complete=False)
            holes_line = no_holes_line = FilesWithHolesLine(module.name, [], is_complete=False)
            since_ns = 0
            if earlier is not None:
                record, known = earlier
                since_ns = record.moment.unix_ns - _MARGIN_NS
                one = replace(one, known=known, since_ns=since_ns, name=changed.add)
            try:
                self.passed[module.name] = one.run()
                if changed.are_all:
                    line = ChangedEntriesLine(module.name, since_ns, changed.paths, is_complete=True)
                # Both share the same limit, and the changed entries come first.
                if with_holes.are_all and len(line.paths) + len(with_holes.paths) <= self._left_paths:
                    holes_line = FilesWithHolesLine(module.name, with_holes.paths, is_complete=True)
            except ScanUncertain as reason:
                _LOG.debug("source %s: neither changed entries nor holes can be named: %s", module.name, reason)
            if earlier is not None:
                self._left_paths -= len(line.paths)
                self._write(descriptor, _encoded(line))
            if len(_encoded(holes_line)) > self._left_bytes - _reserve(self._modules):
                holes_line = no_holes_line
            self._left_paths -= len(holes_line.paths)
            self._write(descriptor, _encoded(holes_line))

    def _earlier(self, module: Module) -> tuple[SourceRecord, DirectoryDigests] | None:
        """Return an earlier session's record that can be compared with: of the same path, and of the same clock."""
        record = self._records.get(module.name)
        if record is None or record.path != module.lasting_path or not self._moment.follows(record.moment):
            return None
        if record.moment.unix_ns < _MARGIN_NS:
            return None
        try:
            return record, DirectoryDigests.of(record.directories)
        except ValueError:
            return None

    def _write(self, descriptor: int, content: bytes) -> None:
        """Write all of ``content``. Raises BrokenPipeError, and Cancelled when the session ends."""
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            # The storage reads no more than its limit.
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.register(self._end.descriptor, select.POLLIN)
        left = memoryview(content)
        while left:
            poll.poll()
            self._end.check()
            with suppress(BlockingIOError):
                left = left[os.write(descriptor, left) :]


class _PathList:
    """The paths of one source, up to the limits of a report."""

    def __init__(self, left_bytes: int, left_paths: int) -> None:
        self.paths: list[WirePath] = []
        self.are_all = True
        self._left_bytes = left_bytes
        self._left_paths = left_paths

    def add(self, path: bytes) -> None:
        if not self.are_all:
            return
        wired = wire_path(path)
        self._left_bytes -= len(codec.encode(wired)) + 1
        self._left_paths -= 1
        if self._left_bytes < 0 or self._left_paths < 0 or len(path) > PATH_LIMIT_BYTES:
            self.are_all = False
            self.paths.clear()
        else:
            self.paths.append(wired)


def _encoded(line: ChangedEntriesLine | FilesWithHolesLine) -> bytes:
    return codec.encode(line) + b"\n"


def _reserve(modules: Sequence[Module]) -> int:
    """Return the number of bytes that the lines of all sources take without paths."""
    dated = [ChangedEntriesLine(each.name, 2**63 - 1, [], is_complete=False) for each in modules]
    undated = [FilesWithHolesLine(each.name, [], is_complete=False) for each in modules]
    return sum(map(len, (*map(_encoded, dated), *map(_encoded, undated))))
