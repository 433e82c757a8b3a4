"""The user and the environment file of the coordinator, which its commands use as its service does.

An administrator runs ``turku-api health`` as root. Without this, SQLite would create files that the service cannot
open, and the command would look at a database of the default settings.
"""

import os
import pwd
import re
import shlex
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.core.filesystem.ownership import others_may_change
from turku.errors import ConfigurationError

USER: Final = "turku-api"
FILE: Final = Path("/etc/turku-api/environment")
_LIMIT_BYTES: Final = 1024 * 1024
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PREFIX: Final = "TURKU_"


def become(variables: MutableMapping[str, str], *, file: Path = FILE) -> None:
    """Read the environment file, and go on as the service's user if this is root.

    Nothing is done if a TURKU_* variable is set already, as by systemd, or if this is neither root nor the service's
    user, or if there is no such user. Raises ConfigurationError.
    """
    if any(name.startswith(_PREFIX) for name in variables):
        return
    try:
        account = pwd.getpwnam(USER)
    except KeyError:
        return
    if os.geteuid() not in (0, account.pw_uid):
        return
    for name, value in read_file(file).items():
        variables.setdefault(name, value)
    if os.geteuid() == 0:
        os.initgroups(USER, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        variables.update(HOME=account.pw_dir, USER=USER, LOGNAME=USER)
        _require_readable(Path(__file__))


def read_file(path: Path) -> dict[str, str]:
    """Return the variables of an environment file, as systemd reads it. A missing file has none.

    Raises ConfigurationError for one that is malformed or that others than root may change.
    """
    try:
        status = path.stat()
        text = durable.read_regular_file(path.resolve(), limit_bytes=_LIMIT_BYTES).decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}", hint=f"chown root:{USER} {path} && chmod 0640 {path}"
        ) from error
    if others_may_change(status):
        raise ConfigurationError(
            f"{path}: others than root may change it (mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid})",
            hint=f"chown root:{USER} {path} && chmod 0640 {path}",
        )
    return parse(text, shown=path)


def parse(text: str, *, shown: Path) -> dict[str, str]:
    """Return the variables of the text of an environment file. Raises ConfigurationError."""
    found = {}
    for number, line in enumerate(text.replace("\\\n", "").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        match = _ASSIGNMENT.fullmatch(stripped)
        if match is None:
            raise ConfigurationError(f"{shown}, line {number}: is not NAME=VALUE")
        found[match[1]] = _value(match[2].strip(), f"{shown}, line {number}: {match[1]}")
    return found


def to_text(variables: Mapping[str, str]) -> str:
    """Return the variables as lines of an environment file, which systemd and a shell read alike."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def _value(text: str, place: str) -> str:
    if text[:1] not in ("'", '"'):
        return re.sub(r"\\(.)", r"\1", text)
    try:
        return "".join(shlex.split(text))
    except ValueError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def _require_readable(program: Path) -> None:
    if not os.access(program, os.R_OK):
        raise ConfigurationError(
            f"the user {USER} cannot read the program, which is at {program}",
            hint="install Turku where every user can read it, such as /opt/turku",
        )
