"""The dirty flag of a source: it tells that the storage went down while rsync was writing.

Data that was written and not flushed may then be there with its size and time but without its content. rsync's quick
check would take such a file for complete, so the next run compares contents.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.errors import TurkuError
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def unclean_shutdown(place: SourceDirectory, *, boot_id: Path = _BOOT_ID) -> bool:
    """Return True if a run was writing when the system that holds this source went down."""
    try:
        return fs.read_file(_mark(place), limit_bytes=4096) != boot_id.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        # An unreadable flag may say so. Comparing contents once too often is better than not at all.
        return error.errno in fs.SAYS_NOTHING


@contextmanager
def writing(place: SourceDirectory, *, boot_id: Path = _BOOT_ID) -> Iterator[None]:
    """Set the dirty flag of the source for the length of the block.

    It is cleared when all that was written is on the disk. If a run fails, what it wrote is flushed. A killed run
    leaves the flag, which counts from the next start of the system on.
    """
    try:
        mark = boot_id.read_text(encoding="utf-8")
    except OSError:
        yield
        return
    fs.remove_temporary_files(place.machine_dir, file_name=_mark(place).name)
    # A flag from before the last start stays until a run that compared contents has succeeded.
    if not unclean_shutdown(place, boot_id=boot_id):
        fs.write_bytes(_mark(place), mark.encode())
    try:
        yield
    except (TurkuError, OSError):
        if not unclean_shutdown(place, boot_id=boot_id):
            fs.sync(_mark(place))
            fs.unlink(_mark(place))
        raise
    fs.unlink(_mark(place))


def forget_if_nothing_is_left(place: SourceDirectory) -> None:
    """Clear the flag if no tree that an earlier run wrote to is left. Raises OSError."""
    fs.remove_temporary_files(place.machine_dir, file_name=_mark(place).name)
    if not any(fs.exists(tree) for tree in (place.staging, place.cloning, place.former_tree)):
        fs.unlink(_mark(place))


def _mark(place: SourceDirectory) -> Path:
    return place.machine_dir / f".{place.source}.writing"
