"""A real file system of a wanted kind, in a file behind a loop device. Only root can have one.

    with loop_volume("btrfs") as directory: ...

The mount is in a mount namespace of this process alone and the file has no name any more, so that all of it is gone
with the process, however that ends. A process that is started from this one sees it too. ``handed_down`` is the
environment that tells tests in it where the volumes lie.
"""

import ctypes
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from turku.core import command

_MAKE = {
    "ext4": ["mkfs.ext4", "-q"],
    "btrfs": ["mkfs.btrfs", "--quiet", "--metadata", "single"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
}
_SIZE_BYTES = 768 * 1024 * 1024
_CLONE_NEWNS = 0x20000
_TIMEOUT_SECONDS = 60.0
_VARIABLE = "LOOP_VOLUME_"


def can_have_one(kind: str) -> bool:
    """Return True if a test is not skipped when it asks for it."""
    return _VARIABLE + kind in os.environ or os.geteuid() == 0


@contextmanager
def loop_volume(
    kind: str, *, size_bytes: int = _SIZE_BYTES, directory: Path | None = None, inodes: int | None = None
) -> Iterator[Path]:
    """Yield the mount point of an empty file system of that kind, for the block. The test is skipped without root.

    The file takes what is written to it: in memory, where there is room for it, or else in ``directory``. ``inodes`` is
    about the number that an ext4 is to have.
    """
    if inherited := os.environ.get(_VARIABLE + kind):
        yield Path(inherited)
        return
    if os.geteuid() != 0:
        pytest.skip(f"only root can mount a {kind} of its own")
    enter_own_mount_namespace()
    with tempfile.TemporaryDirectory(prefix="turku-loop-") as name:
        mount_point = Path(name)
        with tempfile.NamedTemporaryFile(dir=directory or _image_directory(size_bytes)) as image:
            image.truncate(size_bytes)
            options = [] if inodes is None else ["-N", str(inodes)]
            command.run([*_MAKE[kind], *options, image.name], timeout_seconds=_TIMEOUT_SECONDS)
            command.run(["mount", "-o", "loop", image.name, mount_point], timeout_seconds=_TIMEOUT_SECONDS)
        try:
            yield mount_point
        finally:
            # Whoever still has a file of it open keeps it until then.
            command.run(["umount", "--lazy", mount_point], timeout_seconds=_TIMEOUT_SECONDS)


def handed_down(volumes: dict[str, Path]) -> dict[str, str]:
    """The environment for tests in a child: they use these volumes instead of making their own."""
    return {_VARIABLE + kind: str(path) for kind, path in volumes.items()}


@functools.cache
def enter_own_mount_namespace() -> None:
    """Let nobody else see what this process mounts from now on, or skip the test where that cannot be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        pytest.skip(f"no mounts of our own here: {os.strerror(ctypes.get_errno())}")
    command.run(["mount", "--make-rprivate", "/"], timeout_seconds=_TIMEOUT_SECONDS)


def _image_directory(size_bytes: int) -> Path | None:
    memory = Path("/dev/shm")
    try:
        status = os.statvfs(memory)
    except OSError:
        return None
    return memory if status.f_bavail * status.f_frsize > 2 * size_bytes else None
