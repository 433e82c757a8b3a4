"""Files with secrets that other users may read, as after ``cat > file`` with the usual umask."""

import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_SECRET: Final = re.compile(rb"secret|password|api_auth(?!_name)|://[^/\s:@]+:[^@\s]+@", re.IGNORECASE)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LIMIT_BYTES: Final = 1024 * 1024
_SUFFIXES: Final = (".json", ".yaml", ".yml")


class SecretFile(NamedTuple):
    """A file that holds a secret. ``fault`` says who else may read or change it, or is empty."""

    path: Path
    fault: str


def in_directories(directories: Iterable[Path]) -> Iterator[SecretFile]:
    """Yield the configuration files of the directories that hold a secret, as far as they can be read."""
    for directory in directories:
        try:
            entries = sorted(directory.iterdir())
        except OSError:
            continue
        yield from of_files(path for path in entries if path.suffix in _SUFFIXES and names_a_secret(path))


def of_files(paths: Iterable[Path], *, allowed_mode: int = 0o600) -> Iterator[SecretFile]:
    """Yield the files that are there. Bits of the mode beyond ``allowed_mode`` are a fault.

    That is so in a private directory, too: a copy of it, or a change of its mode, would show the secret.
    """
    for path in paths:
        try:
            status, owner = path.stat(), path.parent.stat().st_uid
        except OSError:
            continue
        mode, shown = stat.S_IMODE(status.st_mode), shlex.quote(str(path))
        fault = ""
        if mode & _OTHERS & ~allowed_mode:
            fault = f"it holds a secret, and its mode {mode:04o} lets others in: chmod {allowed_mode:04o} {shown}"
        elif status.st_uid not in (0, os.geteuid(), owner):
            fault = f"it holds a secret, and belongs to user {status.st_uid}, who could change it: chown root {shown}"
        yield SecretFile(path, fault)


def names_a_secret(path: Path) -> bool:
    """Return True if the file has a key or an address with a secret in it."""
    try:
        with path.open("rb") as stream:
            return _SECRET.search(stream.read(_LIMIT_BYTES)) is not None
    except OSError:
        return False
