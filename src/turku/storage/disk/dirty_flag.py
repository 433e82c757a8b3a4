"""Knowing that the storage went down while rsync was writing.

What was written to a tree and not flushed may then be there with its size and time, but without its content, and the
quick check of rsync would take it for whole. Such a run is followed by one that compares contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.errors import TurkuError
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def unclean_shutdown(place: SourceDirectory, *, boot_id: Path = _BOOT_ID) -> bool:
    """Whether a run was under way when the system that this source lies on was started anew."""
    try:
        return fs.read_file(_mark(place), limit_bytes=4096) != boot_id.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        # What the disk does not give may say so: contents are compared once too often rather than not at all.
        return error.errno in fs.SAYS_NOTHING


@contextmanager
def writing(place: SourceDirectory, *, boot_id: Path = _BOOT_ID) -> Iterator[None]:
    """Mark the source as being written to; the mark goes when all that was written is on the disk.

    A run that fails has its part flushed; one that is killed leaves the mark, which says nothing until the next start.
    """
    try:
        mark = boot_id.read_text(encoding="utf-8")
    except OSError:
        yield
        return
    fs.remove_temporary_files(place.machine_dir, of_just=_mark(place).name)
    # A mark that is there from before the last start stays until a run that compared contents went well.
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
    """Take the mark away where no tree is left that a run before had written to. Raises OSError."""
    fs.remove_temporary_files(place.machine_dir, of_just=_mark(place).name)
    if not any(fs.exists(tree) for tree in (place.staging, place.cloning, place.former_tree)):
        fs.unlink(_mark(place))


def _mark(place: SourceDirectory) -> Path:
    return place.machine_dir / f".{place.source}.writing"
