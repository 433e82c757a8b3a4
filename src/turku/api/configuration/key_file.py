"""Key files: generated once, private, and the same for every process that starts at the same moment."""

from __future__ import annotations

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
"""Different ones in a key that somebody drew: in 64 letters and digits there are about 40."""


def read(path: Path) -> Secret:
    """The text of the file, without surrounding white space. Raises ConfigurationError."""
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
        raise ConfigurationError(f"{path}: is empty", hint="remove it to have a new key generated")
    if not all(line.isprintable() for line in text.splitlines()) or len(set(text)) < _FEWEST_CHARACTERS:
        # What a disk or a power loss leaves of a key, as NUL bytes, everybody knows.
        raise ConfigurationError(
            f"{path}: is damaged: it has NUL or control characters, or hardly any different ones",
            hint="bring it back from a backup, or remove it to have a new key generated",
        )
    return Secret(text)


def read_or_generate(path: Path) -> Secret:
    """The key in the file, which is made where it does not exist (its directory must). Raises ConfigurationError."""
    try:
        is_missing = not path.exists()
    except OSError:
        # The directory is closed to us: reading says so in a sentence.
        is_missing = False
    if is_missing:
        durable.write_new_text(path, generate_secret(KEY_LENGTH).reveal() + "\n")
    return read(path)
