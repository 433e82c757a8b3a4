"""Restore drills: a sample of the newest snapshot is restored into a scratch directory, checked and removed.

The sample is random, besides the paths that the operator declares. A contained rsync restores it and sees only the
snapshot, read-only, and the scratch directory. Each file is compared with the catalog's checksum, and the operator's
own check program may examine the whole.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from turku.core import command, durable, sampling
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import is_within
from turku.errors import CommandFailed, TurkuError
from turku.storage import catalog
from turku.storage.catalog import CatalogEntry, EntryKind
from turku.storage.config.model import IntegrityConfig, StorageConfig
from turku.storage.containment import bubblewrap, sandbox
from turku.storage.containment.capabilities import DEVICE_CAPABILITY, FILE_CAPABILITY, OWNER_CAPABILITIES
from turku.storage.disk import history
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import disk_usage
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import remove_tree
from turku.storage.integrity.drill_comparison import DrillComparison
from turku.storage.integrity.drill_record import DrillResult
from turku.storage.rsync.arguments import attribute_options
from turku.storage.rsync.file_system_support import FileSystemSupport, probe_file_system
from turku.storage.rsync.request import TransferOptions

SPARE_SHARE = 0.05
"""The share of the file system that a drill leaves free."""
_RESTORE_SECONDS = 4 * 3600.0
_DEVICES = (EntryKind.BLOCK, EntryKind.CHARACTER)
_FILE_CAPABILITIES = "security.capability"
_READ_ERRORS = (11, 23)
"""The exit codes of rsync for files that could not be read."""
_LOG = logging.getLogger(__name__)


def drill(configuration: StorageConfig, place: SourceDirectory, *, clock: Clock = SYSTEM_CLOCK) -> DrillResult:
    """Run a drill of the source and return its result.

    Whatever goes wrong is a problem of the drill, and no error of the domain is raised. The scratch directory is
    removed at the end.
    """
    begin = clock.now()
    made = DrillResult(place, begin, begin)
    try:
        with scratch(configuration, place) as directory:
            _DrillRun(configuration, made, directory, clock).run()
    except TurkuError as error:
        made.problems.append("; ".join(part for part in (error.message, error.details) if part))
    except OSError as error:
        made.problems.append(f"{error.strerror or error}: {error.filename!r}")
    made.end = clock.now()
    log = _LOG.debug if made.is_good else _LOG.error
    log("%s of %s: restore drill: %s", place.source, place.machine_dir.name, "; ".join(made.summary.splitlines()))
    return made


@contextmanager
def scratch(configuration: StorageConfig, place: SourceDirectory) -> Iterator[Path]:
    """Yield a private directory that is removed at the end of the block."""
    # The operator chose this directory, which may be a link. It is resolved once, and no link is followed later.
    parent = durable.make_private_directory(configuration.integrity.drill_directory).resolve()
    directory = parent / f"{place.machine_dir.name}-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        remove_tree(directory)


def remove_leftovers(configuration: IntegrityConfig) -> None:
    """Remove what killed drills left. No drill may be running."""
    if configuration.drill_directory.is_dir():
        for entry in configuration.drill_directory.iterdir():
            remove_tree(entry)


class _Ended(CommandFailed):
    """A program that ended with another exit code than 0."""

    def __init__(self, program_code: int, last_lines: Sequence[str]) -> None:
        super().__init__(f"ended with exit code {program_code}", details="\n".join(last_lines))
        self.program_code = program_code


class _DrillRun:
    def __init__(self, configuration: StorageConfig, made: DrillResult, directory: Path, clock: Clock) -> None:
        self._clock = clock
        self._configuration = configuration
        self._made = made
        self._directory = directory
        self._restored = directory / "restored"

    def run(self) -> None:
        made, place = self._made, self._made.place
        newest = history.base(place, self._configuration.state.timezone, now=self._clock.now())
        if newest is None:
            made.problems.append("there is no snapshot yet")
            return
        made.snapshot = newest.name
        with catalog.open_catalog(place, zone=self._configuration.state.timezone) as known:
            chosen = self._chosen(known.files(newest.name, b""))
        if self._lacks_room(newest.path, chosen):
            return
        self._restored.mkdir(mode=0o700)
        system = self._file_system()
        if not (system.devices or system.fake_super):
            # Devices are left out, as a backup leaves them out.
            chosen = [entry for entry in chosen if entry.kind not in _DEVICES]
        self._restore(newest.path, chosen, system)
        with DirectoryTree(self._restored) as tree, DirectoryTree(newest.path) as stored:
            comparison = DrillComparison(made, tree, stored, system)
            for entry in chosen:
                comparison.compare(entry)
        if self._configuration.integrity.drill_check_program is not None:
            self._check(self._configuration.integrity.drill_check_program)

    def _chosen(self, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
        """Return the declared entries, and a random sample of the others within the limits."""
        configuration, place = self._configuration, self._made.place
        declared = [
            os.fsencode(path.strip("/"))
            for path in configuration.integrity.drill_paths_of(place.machine_dir.name, place.source)
        ]
        missing = set(declared)
        wanted: list[CatalogEntry] = []

        def others() -> Iterator[CatalogEntry]:
            for entry in entries:
                above = [path for path in declared if is_within(entry.path, path)]
                missing.difference_update(above)
                if above:
                    wanted.append(entry)
                elif entry.kind in (EntryKind.FILE, EntryKind.LINK):
                    yield entry

        drawn = sampling.draw(others(), configuration.integrity.drill_files)
        self._made.problems += [f"{os.fsdecode(path)}: declared in drill_paths, and not there" for path in missing]
        return [*wanted, *sampling.within(drawn, configuration.integrity.drill_bytes, lambda entry: entry.size)]

    def _lacks_room(self, stored: Path, chosen: Sequence[CatalogEntry]) -> bool:
        usage = shutil.disk_usage(self._directory)
        with DirectoryTree(stored) as tree:
            needed = disk_usage.copy_bytes(tree, ((entry.path, entry.size) for entry in chosen))
        needed += int(usage.total * SPARE_SHARE)
        if usage.free < needed:
            self._made.problems.append(
                f"{self._directory.parent} has {usage.free} bytes free, and the drill needs {needed}"
            )
        return usage.free < needed

    def _file_system(self) -> FileSystemSupport:
        """Return what a contained rsync can keep in the scratch directory."""
        system = probe_file_system(self._configuration, self._directory)
        if not (system.privileged_attributes and bubblewrap.is_contained(self._configuration.limits)):
            return system
        # It does not get what root needs to read all files: the drill shows that files can be restored.
        return replace(system, privileged_attributes=(_FILE_CAPABILITIES,))

    def _restore(self, tree: Path, chosen: Sequence[CatalogEntry], system: FileSystemSupport) -> None:
        configuration = self._configuration
        listing = self._directory / "files"
        # A name that begins with a '#' or a semicolon would be a comment.
        listing.write_bytes(b"".join(b"./" + entry.path + b"\0" for entry in chosen))
        argv = [
            *configuration.receiving.rsync_command,
            "--archive",
            "--numeric-ids",
            "--hard-links",
            "--sparse",
            *attribute_options(TransferOptions(), system),
            *(["--fake-super"] if system.fake_super else []),
            *([] if system.devices or system.fake_super else ["--no-devices"]),
            "--from0",
            f"--files-from={listing}",
            "--",
            "./",
            f"{self._restored}/",
        ]
        try:
            try:
                self._receive(argv, tree, system)
            except _Ended as error:
                if error.program_code not in _READ_ERRORS:
                    raise
                # A passing read error does not fail the drill. rsync goes on with the other files.
                _LOG.warning(
                    "%s: restore drill: %s. It is tried again: %s",
                    self._made.place.source,
                    error.message,
                    "; ".join(error.details.splitlines()),
                )
                self._receive(argv, tree, system)
        except CommandFailed as error:
            self._made.problems.append("; ".join(part for part in (error.message, error.details[-2000:]) if part))

    def _receive(self, argv: Sequence[str], tree: Path, system: FileSystemSupport) -> None:
        with fs.opened(tree) as opened:
            self._run(
                argv,
                # The operator's own rsync may lie outside the system directories that the sandbox shows.
                readable={
                    sandbox.WORKING_DIRECTORY: tree,
                    **{str(path): path for path in sandbox.rsync_programs(self._configuration.receiving.rsync_command)},
                },
                directory=sandbox.WORKING_DIRECTORY,
                opened=opened,
                timeout_seconds=_RESTORE_SECONDS,
                capabilities=[
                    *([FILE_CAPABILITY] if system.privileged_attributes else []),
                    *([DEVICE_CAPABILITY] if system.devices and not system.fake_super else []),
                ],
            )

    def _check(self, program: Sequence[str]) -> None:
        made = self._made
        extra = {
            "TURKU_DRILL_DIRECTORY": str(self._restored),
            "TURKU_DRILL_MACHINE": made.place.machine_dir.name,
            "TURKU_DRILL_SOURCE": made.place.source,
            "TURKU_DRILL_SNAPSHOT": made.snapshot,
        }
        words = [Path(word) for word in program if word.startswith("/")]
        readable = [path for path in words if path.is_file() and not path.is_relative_to("/usr")]
        try:
            lines = self._run(
                program,
                readable={str(path): path for path in readable},
                directory=str(self._directory),
                timeout_seconds=self._configuration.integrity.drill_check_seconds,
                extra_environment=extra,
            )
            made.check = lines[-1] if lines else "found it good"
        except CommandFailed as error:
            made.problems.append("; ".join(["check program", error.message, *error.details.splitlines()[-5:]]))

    def _run(
        self,
        argv: Sequence[str],
        *,
        readable: Mapping[str, Path],
        directory: str,
        opened: int | None = None,
        timeout_seconds: float,
        extra_environment: dict[str, str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """Run a contained program and return the last lines that it printed.

        It sees the scratch directory and what is ``readable``, by the names given there, and no network. It starts in
        ``directory``, which is the ``opened`` one. With root it has ``capabilities`` beside those that let it read and
        write all of that.
        """
        configuration = self._configuration
        working_directory = self._directory if opened is None else Path(f"/proc/self/fd/{opened}")
        if bubblewrap.is_contained(configuration.limits):
            # It sees only what is restored and the target, so the right to read and write all of that harms nobody.
            held = (*OWNER_CAPABILITIES, "CAP_DAC_READ_SEARCH", *capabilities)
            argv = bubblewrap.wrap(
                argv if opened is None else bubblewrap.in_same_directory(opened, argv),
                readable=readable,
                writable={str(self._directory): self._directory},
                directory=directory,
                capabilities=held if os.geteuid() == 0 else None,
                options=bubblewrap.sandbox_availability(configuration.limits).options,
            )
        with command.start(argv, working_directory=working_directory, extra_environment=extra_environment) as child:
            code = child.wait(timeout_seconds)
            lines = child.last_lines
        if code != 0:
            raise _Ended(code, lines)
        return lines
