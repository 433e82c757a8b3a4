"""Files of a program for its host: units, users, directories, and snippets for sshd, sudo and cron.

They are package data, in ``host_files/<kind>/<name>``. A distribution's package installs units, users and directories
below ``/usr/lib``. Setup installs what is not there below ``/etc``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.core.setup.host import Host

PLACES: Final = {
    "systemd": "/etc/systemd/system",
    "sysusers.d": "/etc/sysusers.d",
    "tmpfiles.d": "/etc/tmpfiles.d",
    "sshd": "/etc/ssh/sshd_config.d",
    "sudoers": "/etc/sudoers.d",
    "cron": "/etc/cron.d",
}
"""The directory in which an administrator's files of each kind take effect."""
PACKAGE_PLACES: Final = {
    "systemd": ("/usr/lib/systemd/system", "/lib/systemd/system"),
    "sysusers.d": ("/usr/lib/sysusers.d",),
    "tmpfiles.d": ("/usr/lib/tmpfiles.d",),
}
"""The directories into which a distribution's packages put them."""
_MODES: Final = {"sudoers": 0o440}
_BINDIR: Final = "@BINDIR@"
LIMIT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class HostFile:
    """A file of a program for its host. ``package`` is the Python package that has it, such as ``turku.agent``."""

    package: str
    kind: str
    name: str

    @property
    def mode(self) -> int:
        return _MODES.get(self.kind, 0o644)

    @property
    def place(self) -> Path:
        """The path at which setup installs it."""
        return Path(PLACES[self.kind], self.name)

    def content(self, program_directory: Path) -> bytes:
        """Return the text, with the directory of the program filled in."""
        text = (_directory(self.package) / self.kind / self.name).read_text(encoding="utf-8")
        return text.replace(_BINDIR, str(program_directory)).encode()

    def packaged(self, host: Host) -> Path | None:
        """Return the path at which a distribution's package installed it, or None."""
        places = (Path(place, self.name) for place in PACKAGE_PLACES.get(self.kind, ()))
        return next((place for place in places if host.path(place).is_file()), None)

    def installed(self, host: Host) -> Path | None:
        """Return the path at which it takes effect on the host, or None if it is not installed."""
        return self.place if host.path(self.place).is_file() else self.packaged(host)


def all_of(package: str, *kinds: str) -> tuple[HostFile, ...]:
    """Return the files of a program, of these kinds or of all."""
    top = _directory(package)
    found = (
        HostFile(package, kind.name, file.name)
        for kind in top.iterdir()
        if kind.is_dir() and (not kinds or kind.name in kinds)
        for file in kind.iterdir()
        if file.is_file()
    )
    return tuple(sorted(found, key=lambda each: (each.kind, each.name)))


def timers(package: str) -> list[str]:
    """Return the names of a program's timers, without ``.timer``."""
    units = (Path(file.name) for file in all_of(package, "systemd"))
    return [unit.stem for unit in units if unit.suffix == ".timer"]


def outdated(package: str, program: str, *, host: Host | None = None) -> Iterator[str]:
    """Yield a sentence for each installed file that differs from that of this version of the program."""
    host = host or Host()
    for file in all_of(package):
        place = file.installed(host)
        if place is None:
            continue
        try:
            found = durable.read_regular_file(host.path(place).resolve(), limit_bytes=LIMIT_BYTES)
        except PermissionError:
            # A snippet for sudo is only for root to read.
            continue
        except OSError as error:
            yield f"{place} cannot be read: {error.strerror}"
            continue
        if found != file.content(host.program_directory(program)):
            yield (
                f"{place} differs from the one of this version: it is from another version, or was edited "
                f"('{program} setup' shows and replaces what setup installed)"
            )


def _directory(package: str) -> Traversable:
    return resources.files(package) / "host_files"
