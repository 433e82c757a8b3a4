"""Private directories for the files of one run: the configuration of rsyncd, one-time passwords, host keys."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.state import var_dir


def base(configuration: AgentState) -> Path:
    """Return the directory that contains them (0700)."""
    path = var_dir.directory(configuration, "run")
    if stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)
    return path


@contextmanager
def fresh(agent: AgentConfig, purpose: str) -> Iterator[Path]:
    """Give a new directory (0700) for the length of the block.

    The caller holds the lock of ``purpose``. Directories that killed runs of this purpose left are removed first.
    """
    directory = base(agent.state)
    for left in directory.glob(f"{purpose}-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=directory, ignore_cleanup_errors=True) as path:
        yield Path(path)


def write_private(path: Path, content: str) -> Path:
    """Write ``content`` to a new file (0600) and return its path. The file need not survive a crash.

    Bytes of file names that are not UTF-8 are written as they are. Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(content)
    return path
