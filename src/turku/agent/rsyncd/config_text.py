"""The modules that the agent's rsync daemons offer, and the text of rsyncd.conf, rendered here for all of them."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import UNSET, UnsetType

from turku.core.secret import Secret, generate_secret
from turku.protocol.messages import SourceCredentials

PERCENT_VARIABLE = "TURKU_PERCENT"
"""The environment variable that holds a percent sign. The daemon needs it for paths that contain one."""


@dataclass(frozen=True)
class Module:
    """A directory that rsyncd offers, with credentials that are valid for this session only."""

    name: str
    path: str
    """The path that rsyncd serves."""
    writable: bool = False
    hidden: tuple[Path, ...] = ()
    """Directories and files below the path that the daemon does not show."""
    emptied: tuple[Path, ...] = ()
    """Directories below the path that the daemon shows as empty."""
    one_file_system: bool | UnsetType = UNSET
    """The source's option, which ``emptied`` implements."""
    real_path: str = ""
    """The directory's own path, where ``path`` is that of an open directory."""
    username: str = field(default_factory=lambda: str(uuid.uuid4()))
    password: Secret = field(default_factory=generate_secret)

    @property
    def credentials(self) -> SourceCredentials:
        return SourceCredentials(
            username=self.username, password=self.password.reveal(), one_file_system=self.one_file_system
        )

    @property
    def lasting_path(self) -> str:
        """The path of the directory in later sessions."""
        return self.real_path or self.path

    @property
    def secrets_text(self) -> str:
        """The content of the module's secrets file."""
        return f"{self.username}:{self.password.reveal()}\n"


@dataclass(frozen=True)
class ModuleSection:
    """A module with the settings of its section."""

    module: Module
    secrets_file: Path
    settings: Mapping[str, str] = field(default_factory=dict)


def render(
    sections: Iterable[ModuleSection],
    *,
    address: str,
    port: int,
    lock_file: Path,
    connections: int,
    user_and_group: tuple[str, str] | None,
    change_root: bool,
    settings: Mapping[str, str],
) -> str:
    """Return the text of rsyncd.conf.

    ``connections`` is the most that one module serves at the same time. Without ``user_and_group`` the daemon keeps its
    user. ``change_root`` locks it into the path of each module. ``settings`` are further global settings.
    """
    lines = _lines(
        {
            "address": address,
            "port": str(port),
            "reverse lookup": "no",
            "forward lookup": "no",
            "hosts allow": f"127.0.0.0/8 ::1 {address}",
            "list": "no",
            "max connections": str(connections),
            "lock file": str(lock_file),
            # Links are transferred as they are. Without chroot rsyncd would rewrite them by default.
            "munge symlinks": "no",
            "numeric ids": "yes",
            "strict modes": "yes",
            **({} if user_and_group is None else {"uid": user_and_group[0], "gid": user_and_group[1]}),
            "use chroot": "yes" if change_root else "no",
            **settings,
        }
    )
    for section in sections:
        module = section.module
        lines += [
            f"[{module.name}]",
            *_lines(
                {
                    "path": quoted_path(module.path),
                    "read only": "no" if module.writable else "yes",
                    "auth users": module.username,
                    "secrets file": str(section.secrets_file),
                    **section.settings,
                }
            ),
        ]
    return "\n".join(lines) + "\n"


def _lines(settings: Mapping[str, str]) -> list[str]:
    return [f"{name} = {value}" for name, value in settings.items()]


def quoted_path(path: str) -> str:
    """Return the path in the form that rsyncd.conf needs.

    rsyncd.conf has no quoting, so the path is written such that rsyncd changes nothing in it. The slash at the end
    keeps a last blank or backslash. ``/./`` would mean another chroot and is left out. ``%NAME%`` would be expanded,
    therefore each percent sign comes from a variable.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "".join(("/", *(f"{part}/" for part in parts))).replace("%", f"%{PERCENT_VARIABLE}%")
