"""A fresh ext4 to measure on: where nobody else writes, and nobody removed anything a moment ago.

That matters more than it seems. ext4 passes over inodes that were freed in the last minutes, so that creating a file
takes many times as long on a disk where a large tree was just removed, whoever did it.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.loop_volume import loop_volume

from turku.core import command
from turku.errors import CommandFailed


@contextmanager
def own_disk(directory: Path, *, needed_bytes: int, useful_bytes: int = 0) -> Iterator[Path]:
    """An empty directory with room for ``needed_bytes``, gone after the block with all that is in it.

    With room for up to ``useful_bytes``, where there is as much. A file system of its own for root, in a file in
    ``directory``, or without root a plain directory there. Raises CommandFailed where there is no room.
    """
    # Whoever ends this ends its children too, and removes its trees.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise CommandFailed(
            f"{directory} has {free / 1e9:.0f} GB free, and {needed_bytes / 1e9:.0f} GB are needed",
            hint="--directory names another place, --quick takes a small tree",
        )
    if os.geteuid() != 0:
        print("not root: this is measured on the disk as it is, where others may have just removed much")
        yield directory
        return
    size_bytes = max(needed_bytes, min(useful_bytes, int(free * 0.9)))
    with loop_volume("ext4", size_bytes=size_bytes, directory=directory) as volume:
        found = command.run(["findmnt", "--noheadings", "--output", "SOURCE", volume], timeout_seconds=30)
        # Nothing is cached twice, where the disk below can do that.
        command.run(["losetup", "--direct-io=on", found.stdout.decode().strip()], timeout_seconds=30, check=False)
        yield volume
