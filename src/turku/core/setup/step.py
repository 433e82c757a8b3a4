"""A step of setup, and the steps that write files."""

import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from msgspec.structs import replace

from turku.core import durable
from turku.core.setup.host import Host
from turku.core.setup.host_files import LIMIT_BYTES, HostFile
from turku.core.setup.record import Kind, Made, Record, Reload, digest_of
from turku.core.setup.services import reload_services
from turku.errors import ConfigurationError, DurableWriteFailed, TurkuError


class State(Enum):
    """The state of a step on a host."""

    DONE = "done"
    NEEDED = "needed"
    KEPT = "kept"
    """Somebody else made or edited the thing, and it stays as it is."""


@dataclass(frozen=True)
class Finding:
    """The state of a step, and the reason for it."""

    state: State
    reason: str = ""


DONE = Finding(State.DONE)


class Step(ABC):
    """One change of a host. It can be repeated: a killed run is finished by the next one."""

    title: str
    """The change as an order, such as ``create the user turku-storage``."""

    @abstractmethod
    def find(self, host: Host, record: Record) -> Finding:
        """Return whether the step is needed, and why. Nothing is changed."""

    @abstractmethod
    def apply(self, host: Host, record: Record) -> None:
        """Take the step. It first records what it makes. Raises TurkuError."""


@dataclass(frozen=True)
class Action(Step):
    """A step of a program's own, which leaves nothing for teardown to undo."""

    title: str
    is_needed: Callable[[Host], Finding]
    act: Callable[[Host], None]

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (not a thing that is recorded)
        return self.is_needed(host)

    def apply(self, host: Host, record: Record) -> None:  # noqa: ARG002  (not a thing that is recorded)
        self.act(host)


@dataclass(frozen=True)
class FileStep(Step):
    """A file with this content. One that somebody else made, or edited since, is kept and named.

    With ``keeps_edits`` one that was edited is replaced by content that was made from it.
    """

    place: Path
    content: bytes
    mode: int = 0o644
    group: str = "root"
    purpose: str = ""
    reload: Reload = Reload.NONE
    keeps_edits: bool = False
    """True if the content has what the present file has, so that an edit is not lost with it."""
    check_content: Callable[[Host, bytes], None] | None = None
    """Raises TurkuError for content that must not be written."""
    check_host: Callable[[Host], None] | None = None
    """Raises TurkuError if the host does not work with the file, which is then taken back."""

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"write {self.place}{f' ({self.purpose})' if self.purpose else ''}"

    def find(self, host: Host, record: Record) -> Finding:
        made = record.find(Kind.FILE, str(self.place))
        try:
            found = durable.read_regular_file(host.path(self.place), limit_bytes=LIMIT_BYTES)
            mode = stat.S_IMODE(host.path(self.place).stat().st_mode)
        except FileNotFoundError:
            return Finding(State.NEEDED)
        except OSError as error:
            return Finding(State.KEPT, f"it is there, and cannot be read as a file: {error.strerror}")
        if found == self.content or (self.keeps_edits and _is_same_json(found, self.content)):
            return self._find_written(made, mode)
        if made is not None and made.wrote(found):
            return Finding(State.NEEDED, "replaces that of an earlier setup")
        return self._find_edited(made)

    def _find_edited(self, made: Made | None) -> Finding:
        if made is None:
            return Finding(State.KEPT, "another one is there, which setup did not write")
        if self.keeps_edits:
            return Finding(State.NEEDED, "keeps what the present one has besides")
        return Finding(State.KEPT, "it was edited since setup wrote it")

    def _find_written(self, made: Made | None, mode: int) -> Finding:
        if mode & ~self.mode:
            return Finding(State.NEEDED, f"its mode {mode:04o} lets others in")
        return DONE if made is None or made.is_finished else Finding(State.NEEDED, "finishes an interrupted setup")

    def apply(self, host: Host, record: Record) -> None:
        path = host.path(self.place)
        make_directory(path.parent, 0o755)
        gid = host.group_id(self.group)
        if gid is None:
            raise ConfigurationError(f"there is no group {self.group}, to which {self.place} is to belong")
        if self.check_content is not None:
            self.check_content(host, self.content)
        before = record.find(Kind.FILE, str(self.place))
        made = Made(Kind.FILE, str(self.place), digest_of(self.content), reload=self.reload)
        record.add(replace(made, is_finished=False, earlier="" if before is None else before.digest))
        found = path.read_bytes() if path.exists() else None
        self._write(path, self.content, gid)
        try:
            if self.check_host is not None:
                self.check_host(host)
        except TurkuError:
            if found is None:
                path.unlink(missing_ok=True)
                record.remove(made)
            else:
                self._write(path, found, gid)
            raise
        if self.reload is not Reload.SYSTEMD:
            reload_services(host, [self.reload])
        record.add(made)

    def _write(self, path: Path, content: bytes, gid: int) -> None:
        # A killed run leaves the file that it was writing.
        durable.remove_temporary_files(path.parent, name_prefix=path.name)
        durable.write_bytes(path, content, mode=self.mode, owner=(0, gid) if os.geteuid() == 0 else None)


def _is_same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def host_file_step(file: HostFile, host: Host, program: str, *, purpose: str = "") -> FileStep | None:
    """Return the step that installs a file of the program, or None if a distribution's package has installed it."""
    if file.packaged(host) is not None:
        return None
    reload = {"systemd": Reload.SYSTEMD, "sshd": Reload.SSHD}.get(file.kind, Reload.NONE)
    content = file.content(host.program_directory(program))
    return FileStep(file.place, content, mode=file.mode, purpose=purpose, reload=reload)


def make_directory(path: Path, mode: int) -> None:
    """Create the directory and its parents where they do not exist. Raises DurableWriteFailed."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o755)
            each.chmod(mode if each == path else 0o755)
            durable.fsync_directory(each.parent)
    except OSError as error:
        raise DurableWriteFailed(f"cannot create {path}: {error.strerror or error}") from error
