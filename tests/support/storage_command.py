"""A subcommand of ``turku-storage``, run in this process with a configuration and a clock of the test."""

import contextlib
import io
import logging
import os
from unittest import mock

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.storage import cli
from turku.storage.config import loading
from turku.storage.config.model import StorageConfig


def run(storage: StorageConfig, *arguments: str, clock: Clock = SYSTEM_CLOCK) -> tuple[int, str]:
    """Return the exit code, and what was printed. Raises what the command raises."""
    output = io.StringIO()
    umask = os.umask(0o022)
    handlers = list(logging.getLogger().handlers)
    try:
        with (
            mock.patch.object(loading, "load", return_value=storage),
            mock.patch("turku.storage.commands.setup.SYSTEM_CLOCK", clock),
            contextlib.redirect_stdout(output),
        ):
            return cli.main(arguments), output.getvalue()
    finally:
        # The program's own would stay with all tests after it.
        os.umask(umask)
        logging.getLogger().handlers[:] = handlers
