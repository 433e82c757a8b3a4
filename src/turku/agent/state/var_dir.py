"""``var_dir``: the private state of the agent, which belongs to one user, whoever runs a program.

The agent may run as its own user while root runs some programs by hand (a restore, a first registration). Files that
root creates are given to the owner of ``var_dir``, and root follows nothing that this user could have planted.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.agent.config.loading import foreign_owner
from turku.agent.config.model import AgentConfig, AgentState
from turku.core import durable
from turku.errors import DurableWriteFailed


def directory(configuration: AgentState, name: str = "") -> Path:
    """Return the directory of that name in ``var_dir``, or ``var_dir`` itself, and create it (0700) where needed.

    Raises DurableWriteFailed.
    """
    path = durable.make_private_directory(configuration.var_dir)
    if name:
        path = path / name
        if path.is_symlink():
            raise DurableWriteFailed(
                f"{path} is a symbolic link", hint="var_dir holds nothing but the agent's own state"
            )
        if not path.exists():
            durable.make_private_directory(path)
            give(configuration, path)
    return path


def lock_directory(configuration: AgentState) -> Path:
    """Return ``lock_dir``. It is created where it is missing."""
    if not configuration.lock_dir.exists():
        durable.make_private_directory(configuration.lock_dir)
        if configuration.lock_dir.is_relative_to(configuration.var_dir):
            give(configuration, configuration.lock_dir)
    return configuration.lock_dir


def write_text(configuration: AgentState, path: Path, content: str, *, mode: int = 0o600) -> None:
    """Replace a file in ``var_dir``, durably."""
    durable.write_text(path, content, mode=mode, owner=foreign_owner(configuration.var_dir))


def give(configuration: AgentState, path: Path) -> None:
    """Give a path that we created to the owner of ``var_dir``."""
    owner = foreign_owner(configuration.var_dir)
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def runtime_directory(configuration: AgentState) -> Path:
    """Return the directory (0700) for private directories of single runs.

    They have the configuration of rsyncd, one-time passwords and host keys.
    """
    path = directory(configuration, "run")
    # Root follows no link that the agent's user puts there meanwhile.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return path


@contextmanager
def fresh_directory(agent: AgentConfig, purpose: str) -> Iterator[Path]:
    """Give a new directory (0700) for the length of the block.

    The caller holds the lock of ``purpose``. Directories that killed runs of this purpose left are removed first.
    """
    base = runtime_directory(agent.state)
    for left in base.glob(f"{purpose}-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=base, ignore_cleanup_errors=True) as path:
        yield Path(path)


def write_private(path: Path, content: str) -> Path:
    """Write ``content`` to a new file (0600) and return its path. The file need not survive a crash.

    Bytes of file names that are not UTF-8 are written as they are. Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(content)
    return path
