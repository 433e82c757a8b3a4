"""Key files: generated once, by `turku-api migrate`, and private."""

import os
import stat
from pathlib import Path

from turku.core import durable
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError

KEY_LENGTH = 64
"""Characters of a generated key: 380 bits."""
MISSING_HINT = (
    "if this coordinator had data, the file is missing: restore its copy; only for a new coordinator: turku-api migrate"
)
_FILE_LIMIT_BYTES = 64 * 1024
_FEWEST_CHARACTERS = 8
"""Distinct characters of a random key. 64 letters and digits have about 40."""


def read(path: Path) -> Secret:
    """Return the text of the file without surrounding white space. Raises ConfigurationError."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_FILE_LIMIT_BYTES)
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: is missing", hint=MISSING_HINT) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}", hint="does the file belong to the user that runs turku-api?"
        ) from error
    require_private(path, mode)
    if not text:
        raise ConfigurationError(f"{path}: is empty", hint="remove it to generate a new key")
    if not all(line.isprintable() for line in text.splitlines()) or len(set(text)) < _FEWEST_CHARACTERS:
        # A disk error or power loss may leave a key of NUL bytes, which anybody can guess.
        raise ConfigurationError(
            f"{path}: is damaged: it has control characters, or too few distinct characters",
            hint="restore it from a backup, or remove it to generate a new key",
        )
    return Secret(text)


def require_private(path: Path, mode: int) -> None:
    """Raise ConfigurationError if the mode of a key's file lets other users read or change it."""
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ConfigurationError(
            f"{path}: other users may read or change this key (mode {stat.S_IMODE(mode):04o})", hint=f"chmod 600 {path}"
        )


def generate_if_missing(path: Path) -> None:
    """Write a new key if there is no file. The directory must exist. Raises DurableWriteFailed."""
    if not os.path.lexists(path):
        durable.write_new_text(path, generate_secret(KEY_LENGTH).reveal() + "\n")
