"""A storage's disk: a file system in a file, mounted as an administrator would mount it."""

import shutil
from pathlib import Path
from typing import Self

from tests.hosts.host import run

_SIZE_BYTES = 2 * 1024**3


class Volume:
    """An ext4 of its own at ``mount_point``, with ``nosuid,nodev``. With ``image`` it is a copy of that one."""

    def __init__(self, directory: Path, *, image: Path | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.image = directory / "volume.ext4"
        self.mount_point = directory / "mounted"
        if image is None:
            with self.image.open("wb") as file:
                file.truncate(_SIZE_BYTES)
            run("mkfs.ext4", "-q", "-m", "0", self.image)
        else:
            run("cp", "--sparse=always", image, self.image)

    def __enter__(self) -> Self:
        self.mount_point.mkdir(exist_ok=True)
        run("mount", "-o", "loop,nosuid,nodev", self.image, self.mount_point)
        return self

    def __exit__(self, *_: object) -> None:
        run("umount", self.mount_point)
        shutil.rmtree(self.mount_point)
