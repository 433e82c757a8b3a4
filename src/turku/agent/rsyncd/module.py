"""An rsync module: a directory that the agent's rsyncd offers to one storage for one session."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import UNSET, UnsetType

from turku.core.secret import Secret, generate_secret
from turku.protocol.messages import SourceCredentials


@dataclass(frozen=True)
class Module:
    """A directory that rsyncd offers, with credentials that are valid for this session only."""

    name: str
    path: str
    writable: bool = False
    hidden: tuple[Path, ...] = ()
    """Directories below the path that the daemon does not show."""
    emptied: tuple[Path, ...] = ()
    """Directories below the path that the daemon shows as empty."""
    one_file_system: bool | UnsetType = UNSET
    """The source's option, which ``emptied`` implements."""
    username: str = field(default_factory=lambda: str(uuid.uuid4()))
    password: Secret = field(default_factory=generate_secret)

    @property
    def credentials(self) -> SourceCredentials:
        return SourceCredentials(
            username=self.username, password=self.password.reveal(), one_file_system=self.one_file_system
        )

    @property
    def secrets_text(self) -> str:
        """The content of the module's secrets file."""
        return f"{self.username}:{self.password.reveal()}\n"
