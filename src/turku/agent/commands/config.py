"""``turku-agent config``: show the configuration."""

from turku.agent.config.loading import load_with_files
from turku.core.configuration import display

COMMAND = display.command("turku-agent", load_with_files)
