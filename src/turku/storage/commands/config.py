"""``turku-storage config``: show the configuration."""

from turku.core.configuration import display
from turku.storage.config.loading import load_with_files

COMMAND = display.command("turku-storage", load_with_files)
