"""Key files: generated once, private, and the same for all processes that start at the same time."""

import os
import stat
from pathlib import Path

from turku.core import durable
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError

KEY_LENGTH = 64
"""Characters of a generated key: 380 bits."""
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
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}", hint="does the file belong to the user that runs turku-api?"
        ) from error
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ConfigurationError(
            f"{path}: other users may read or change this key (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    if not text:
        raise ConfigurationError(f"{path}: is empty", hint="remove it to generate a new key")
    if not all(line.isprintable() for line in text.splitlines()) or len(set(text)) < _FEWEST_CHARACTERS:
        # A disk error or power loss may leave a key of NUL bytes, which anybody can guess.
        raise ConfigurationError(
            f"{path}: is damaged: it has control characters, or too few distinct characters",
            hint="restore it from a backup, or remove it to generate a new key",
        )
    return Secret(text)


def read_or_generate(path: Path) -> Secret:
    """Return the key in the file. A missing file is generated. Its directory must exist. Raises ConfigurationError."""
    try:
        is_missing = not path.exists()
    except OSError:
        # The directory is not accessible. Reading the file reports that.
        is_missing = False
    if is_missing:
        durable.write_new_text(path, generate_secret(KEY_LENGTH).reveal() + "\n")
    return read(path)
