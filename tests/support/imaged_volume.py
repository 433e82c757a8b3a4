"""A volume in an image file whose state at any moment can be had, as a power loss leaves it. Only root has one.

    with ImagedVolume("ext4", directory) as volume:
        volume.path                   where it is mounted
        image = volume.moment()       the disk as it is now: everything that was written to it, and nothing else
        volume.fail()                 from now on the disk gives errors
        volume.replace(image)         mounted anew from that image, in the same place: its journal is recovered

The image lies on an XFS of its own, which clones a file in one step. All is in a mount namespace of this process.
"""

import fcntl
import itertools
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.support.loop_volume import loop_volume

from turku.core import command
from turku.errors import CommandFailed

_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    # Mixed, as small ones are to be: what a full disk had for files is there for directories afterwards.
    "btrfs": ["mkfs.btrfs", "--quiet", "--mixed"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
}
SIZE_BYTES = {"ext4": 96 << 20, "btrfs": 320 << 20, "xfs": 320 << 20}
_FICLONE = 0x40049409
_TIMEOUT_SECONDS = 60.0
_UNMOUNT_SECONDS = 5.0


class ImagedVolume:
    """A mounted image, as a context manager."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.path = directory / "volume"
        self._directory = directory
        self._numbers = itertools.count()
        self._stack = ExitStack()
        self._image = Path()
        self._disk = Path()

    def __enter__(self) -> "ImagedVolume":
        self.path.mkdir(parents=True)
        size = SIZE_BYTES[self.kind]
        with ExitStack() as stack:
            self._disk = stack.enter_context(loop_volume("xfs", size_bytes=4 * size + (512 << 20)))
            self._image = self._new_image()
            with self._image.open("wb") as file:
                file.truncate(size)
            command.run([*_MAKE[self.kind], self._image], timeout_seconds=_TIMEOUT_SECONDS)
            self._mount()
            stack.callback(self._unmount)
            self.path.chmod(0o700)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def moment(self) -> Path:
        """Return an image of the disk as it is at this moment."""
        image = self._new_image()
        with self._image.open("rb") as source, image.open("wb") as target:
            fcntl.ioctl(target, _FICLONE, source.fileno())
        return image

    def fail(self) -> None:
        """Let the disk give errors from now on, for all that is not in memory."""
        os.truncate(self._image, 0)

    def replace(self, image: Path) -> None:
        """Let the volume be what that image has: the other one goes, as nobody uses it any more."""
        self._unmount()
        self._image.unlink()
        self._image = image
        self._mount()

    def _new_image(self) -> Path:
        return self._disk / f"image-{next(self._numbers)}"

    def _mount(self) -> None:
        command.run(["mount", "-o", "loop", self._image, self.path], timeout_seconds=_TIMEOUT_SECONDS)

    def _unmount(self) -> None:
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while True:
            try:
                command.run(["umount", self.path], timeout_seconds=_UNMOUNT_SECONDS)
                return
            except CommandFailed:
                # A process that was killed a moment ago has files open still.
                if time.monotonic() > deadline:
                    command.run(["umount", "--lazy", self.path], timeout_seconds=_TIMEOUT_SECONDS)
                    return
                time.sleep(0.1)
