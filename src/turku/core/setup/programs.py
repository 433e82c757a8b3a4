"""The step that makes programs of a virtual environment known to systemd, sudo and sshd."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from turku.core import durable
from turku.core.filesystem.ownership import others_may_change
from turku.core.setup.host import PROGRAM_DIRECTORIES, Host, own_program
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import DONE, Finding, State, Step, make_directory
from turku.errors import ConfigurationError

_LINKS = Path("/usr/local/bin")


@dataclass(frozen=True)
class LinkStep(Step):
    """A symbolic link, such as that of a program in ``/usr/local/bin``."""

    place: Path
    leads_to: Path

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"link {self.place} to {self.leads_to}"

    def find(self, host: Host, record: Record) -> Finding:
        path = host.path(self.place)
        with suppress(OSError):
            if path.readlink() == self.leads_to:
                return DONE
        if os.path.lexists(path) and record.find(Kind.LINK, str(self.place)) is None:
            return Finding(State.KEPT, "something else is there")
        return Finding(State.NEEDED)

    def apply(self, host: Host, record: Record) -> None:
        path = host.path(self.place)
        make_directory(path.parent, 0o755)
        record.add(Made(Kind.LINK, str(self.place), str(self.leads_to)))
        durable.write_symbolic_link(path, str(self.leads_to))


def require(host: Host, needed: Mapping[str, str]) -> None:
    """Raise ConfigurationError with all needed programs that are not installed. ``needed`` has the package of each."""
    missing = {name: package for name, package in needed.items() if host.find_program(name) is None}
    if missing:
        raise ConfigurationError(
            f"not installed on this host: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(dict.fromkeys(missing.values()))}",
        )


def program_steps(host: Host, *names: str) -> list[Step]:
    """Return the steps that link programs into a directory where services look for them, for those that are in none.

    Raises ConfigurationError if another user than root could replace them, because root will run them.
    """
    missing = [
        name for name in names if not any(os.access(host.path(each / name), os.X_OK) for each in PROGRAM_DIRECTORIES)
    ]
    directory = own_program().parent
    others = others_directory(directory) if missing else None
    if others is not None:
        raise ConfigurationError(
            f"root is to run the programs in {directory}, and another user could replace them by writing to {others}",
            hint="install Turku below a directory that belongs to root, such as /opt/turku, or from packages",
        )
    return [LinkStep(_LINKS / name, directory / name) for name in missing]


def others_directory(directory: Path) -> Path | None:
    """Return the directory, of this one and those above it, that another user than root may change. None if none is."""
    for each in (directory, *directory.parents):
        if others_may_change(each.stat(), is_sticky_enough=True):
            return each
    return None
