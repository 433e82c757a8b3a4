"""Private directories for what lives only as long as one run: rsyncd's configuration, one-time passwords, host keys."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.agent.config.model import AgentConfig
from turku.agent.state import var_dir


def base(agent: AgentConfig) -> Path:
    """The directory that holds them, 0700."""
    path = var_dir.directory(agent, "run")
    if stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)
    return path


@contextmanager
def fresh(agent: AgentConfig, purpose: str) -> Iterator[Path]:
    """A new directory (0700), removed with the block.

    The caller holds the lock of ``purpose``; what a killed run of it left behind is removed first.
    """
    directory = base(agent)
    for left in directory.glob(f"{purpose}-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=directory, ignore_cleanup_errors=True) as path:
        yield Path(path)


def write_private(path: Path, content: str) -> Path:
    """The path, where a new file (0600) now holds ``content``; it need not survive a crash.

    Bytes of file names that are not UTF-8 are written as they are.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(content)
    return path
