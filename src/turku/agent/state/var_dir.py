"""``var_dir``: the private state of the agent, which belongs to one user, whoever runs a program.

The agent may run as its own user while root runs some programs by hand (a restore, a first registration). Files that
root creates are given to the owner of ``var_dir``, and root follows nothing that this user could have planted.
"""

from __future__ import annotations

import os
from pathlib import Path

from turku.agent.config.loading import foreign_owner
from turku.agent.config.model import AgentConfig
from turku.core import durable
from turku.errors import DurableWriteFailed


def directory(agent: AgentConfig, name: str = "") -> Path:
    """Return the directory of that name in ``var_dir``, or ``var_dir`` itself, and create it (0700) where needed.

    Raises DurableWriteFailed.
    """
    path = durable.make_private_directory(agent.state.var_dir)
    if name:
        path = path / name
        if path.is_symlink():
            raise DurableWriteFailed(
                f"{path} is a symbolic link", hint="var_dir holds nothing but the agent's own state"
            )
        if not path.exists():
            durable.make_private_directory(path)
            give(agent, path)
    return path


def lock_directory(agent: AgentConfig) -> Path:
    """Return ``lock_dir``. It is created where it is missing."""
    if not agent.state.lock_dir.exists():
        durable.make_private_directory(agent.state.lock_dir)
        if agent.state.lock_dir.is_relative_to(agent.state.var_dir):
            give(agent, agent.state.lock_dir)
    return agent.state.lock_dir


def write_text(agent: AgentConfig, path: Path, content: str, *, mode: int = 0o600) -> None:
    """Replace a file in ``var_dir``, durably."""
    durable.write_text(path, content, mode=mode, owner=foreign_owner(agent.state.var_dir))


def give(agent: AgentConfig, path: Path) -> None:
    """Give a path that we created to the owner of ``var_dir``."""
    owner = foreign_owner(agent.state.var_dir)
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)
