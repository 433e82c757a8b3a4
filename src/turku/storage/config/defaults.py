"""Defaults that a session needs before it has a slot, when little memory may be used: without msgspec (threats M11)."""

from pathlib import Path
from typing import Final

DEFAULT_DIRECTORY: Final = Path("/etc/turku-storage")
DEFAULT_VAR_DIR: Final = "/var/lib/turku-storage"
DEFAULT_LOG_FILE: Final = "systemd"
DEFAULT_HISTORY_SESSIONS: Final = 4
