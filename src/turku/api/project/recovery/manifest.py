"""The manifest of a backup of the coordinator: its versions, and the size and checksum of each file.

A backup is a directory. The manifest is written last, and the directory gets its name after that, so a directory
without a manifest is no backup.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from turku.core import durable
from turku.core.filesystem import openat2
from turku.errors import UsageError

FILE = "manifest.json"
FORMAT = 1
_LIMIT_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BackupManifest(msgspec.Struct, frozen=True):
    """The description of one backup."""

    format: int
    made: str
    """The time at which it was begun, in ISO 8601 with its zone."""
    program: str
    """The version of the program that made it."""
    engine: str
    """``sqlite3`` or ``postgresql``."""
    migrations: dict[str, list[str]]
    """The migrations that the database had, by app."""
    rows: dict[str, int]
    """The number of machines and other rows that people ask for, by name."""
    files: dict[str, "ListedFile"]
    """The files, by their path in the backup."""
    tables: dict[str, list[str]] = {}
    """The columns of each table that is a file of the backup, in their order there."""


class ListedFile(msgspec.Struct, frozen=True):
    """The content that a file must have."""

    size_bytes: int
    sha256: str


class OpenedBackup:
    """A backup whose files are open and as its manifest lists them.

    They are opened once, by the user who may read them. Another user may write their content to its place.
    """

    def __init__(self, path: Path, manifest: BackupManifest, files: Mapping[str, int]) -> None:
        self.path = path
        self.manifest = manifest
        self._files = files

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Yield a stream that reads the file from its beginning."""
        with os.fdopen(os.dup(self._files[name]), "rb") as stream:
            stream.seek(0)
            yield stream

    def content(self, name: str) -> bytes:
        """Return the content of a small file."""
        with self.stream(name) as stream:
            return stream.read(_LIMIT_BYTES)


def write(directory: Path, manifest: BackupManifest) -> None:
    """Write the manifest durably."""
    durable.write_bytes(directory / FILE, msgspec.json.format(msgspec.json.encode(manifest), indent=4) + b"\n")


def listed(directory: Path) -> dict[str, ListedFile]:
    """Return all files below the directory, as a manifest lists them."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                found[str(path.relative_to(directory))] = _listed(stream)
    return found


@contextmanager
def opened(path: Path) -> Iterator[OpenedBackup]:
    """Open the backup at the path, or the newest one below it, and verify all of its files.

    Raises UsageError where there is none, or where a file is missing, unlisted or different.
    """
    path = _chosen(path)
    with ExitStack() as stack:
        try:
            directory = os.open(path, openat2.DIRECTORY)
            stack.callback(os.close, directory)
            manifest = _read(path, directory)
            files = {}
            for name in manifest.files:
                files[name] = _open(directory, name)
                stack.callback(os.close, files[name])
        except OSError as error:
            raise UsageError(
                f"the backup {path} cannot be read: {error.strerror}: {error.filename}",
                hint="copy it again, or take an older one",
            ) from error
        faults = [name for name, descriptor in files.items() if not _is_as_listed(descriptor, manifest.files[name])]
        if faults:
            raise UsageError(
                f"the backup {path} is damaged: {', '.join(faults)} is not what the manifest says",
                hint="copy it again, or take an older one",
            )
        yield OpenedBackup(path, manifest, files)


def _chosen(path: Path) -> Path:
    if (path / FILE).exists():
        return path
    with suppress(OSError):
        complete = [each for each in sorted(path.iterdir()) if not each.name.startswith(".") and (each / FILE).exists()]
        if complete:
            return complete[-1]
    raise UsageError(f"{path} is not a backup of a coordinator, and has none in it", hint="it needs a manifest.json")


def _read(path: Path, directory: int) -> BackupManifest:
    content = durable.read_regular_file_in(directory, FILE, limit_bytes=_LIMIT_BYTES)
    try:
        manifest = msgspec.json.decode(content, type=BackupManifest)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise UsageError(f"{path / FILE} is damaged: {error}", hint="take an older backup") from error
    if manifest.format != FORMAT:
        raise UsageError(
            f"{path} has format {manifest.format}, which this version does not know",
            hint=f"it was made by version {manifest.program}: install that one or a newer one",
        )
    return manifest


def _open(directory: int, name: str) -> int:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise UsageError(f"the manifest lists {name!r}, which is not a path inside the backup")
    inner = os.dup(directory)
    try:
        for part in parts[:-1]:
            further = os.open(part, openat2.DIRECTORY | os.O_NOFOLLOW, dir_fd=inner)
            os.close(inner)
            inner = further
        return os.open(parts[-1], _FLAGS, dir_fd=inner)
    finally:
        os.close(inner)


def _is_as_listed(descriptor: int, expected: ListedFile) -> bool:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        return _listed(stream) == expected


def _listed(stream: BinaryIO) -> ListedFile:
    digest, size_bytes = hashlib.sha256(), 0
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    return ListedFile(size_bytes, digest.hexdigest())
