"""The host that is set up: its root directory, accounts, programs and service manager."""

import os
import pwd
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from turku.core import command
from turku.core.command import CompletedProgram
from turku.errors import CommandFailed

PROGRAM_DIRECTORIES: Final = tuple(map(Path, ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")))
"""The directories in which systemd, cron and sudo look for programs."""
_TIMEOUT_SECONDS: Final = 120.0

Runner = Callable[[Sequence[str]], CompletedProgram]
Feeder = Callable[[Sequence[str], bytes], CompletedProgram]


class Account(NamedTuple):
    """A user of the host."""

    name: str
    uid: int
    gid: int
    home: Path
    shell: str


def run_program(argv: Sequence[str]) -> CompletedProgram:
    """Run a program to its end. Raises CommandFailed if it fails, also with what it printed on standard output."""
    return _checked(command.run(argv, timeout_seconds=_TIMEOUT_SECONDS, check=False))


def feed_program(argv: Sequence[str], content: bytes) -> CompletedProgram:
    """Run a program with this on its standard input, which nobody else sees. Raises CommandFailed if it fails."""
    return _checked(command.run(argv, timeout_seconds=_TIMEOUT_SECONDS, input_bytes=content, check=False))


def _checked(ended: CompletedProgram) -> CompletedProgram:
    if ended.exit_code != 0:
        lines = [*ended.last_lines, *ended.stdout.decode("utf-8", "replace").splitlines()[-command.KEPT_LINES :]]
        raise CommandFailed(f"{' '.join(ended.argv)} ended with exit code {ended.exit_code}", details="\n".join(lines))
    return ended


@dataclass(frozen=True)
class Host:
    """A host, with its file system below ``root``. Tests pass a directory of their own, and record the programs."""

    root: Path = Path("/")
    run: Runner = run_program
    feed: Feeder = feed_program
    search_path: str = field(
        default_factory=lambda: os.pathsep.join((os.environ.get("PATH", ""), *map(str, PROGRAM_DIRECTORIES), "/sbin"))
    )

    @property
    def is_this_one(self) -> bool:
        """True if the host is the one that this program runs on, and not a directory with another system."""
        return self.root == Path("/")

    @property
    def has_systemd(self) -> bool:
        """True if systemd is running here as the service manager."""
        return self.path("/run/systemd/system").is_dir()

    def path(self, absolute: str | Path) -> Path:
        """Return where a path of the host lies, as seen from here."""
        return self.root / str(absolute).lstrip("/")

    def find_program(self, name: str) -> str | None:
        """Return the path of a program of this system, or None if it is not installed."""
        return shutil.which(name, path=self.search_path)

    def succeeds(self, *argv: str) -> bool:
        """Run a program that only looks. Return False if it fails or is not installed."""
        try:
            self.run(argv)
        except CommandFailed:
            return False
        return True

    def account(self, name: str) -> Account | None:
        """Return the user of this name, or None."""
        if self.is_this_one:
            try:
                found = pwd.getpwnam(name)
            except KeyError:
                return None
            return Account(name, found.pw_uid, found.pw_gid, Path(found.pw_dir), found.pw_shell)
        for words in self._lines("/etc/passwd"):
            if words[0] == name and len(words) >= 7:
                return Account(name, int(words[2]), int(words[3]), Path(words[5]), words[6])
        return None

    def group_id(self, name: str) -> int | None:
        """Return the number of the group of this name, or None."""
        if self.is_this_one:
            import grp

            try:
                return grp.getgrnam(name).gr_gid
            except KeyError:
                return None
        return next((int(words[2]) for words in self._lines("/etc/group") if words[0] == name), None)

    def program_directory(self, name: str) -> Path:
        """Return the directory of the program ``name``, as units, sudo and sshd should name it."""
        found = next((each for each in PROGRAM_DIRECTORIES if os.access(self.path(each / name), os.X_OK)), None)
        return found if found is not None else Path("/usr/local/bin")

    def _lines(self, file: str) -> list[list[str]]:
        try:
            text = self.path(file).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [line.split(":") for line in text.splitlines() if line.count(":") >= 2]


def own_program() -> Path:
    """Return the absolute path of the program that was started, without following a link to it."""
    return Path(os.path.abspath(sys.argv[0]))  # noqa: PTH100  (resolve would follow the link)
