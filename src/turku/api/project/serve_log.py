"""The log of gunicorn where standard error is the journal's stream: a priority for each line, and no second time."""

import logging
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # gunicorn has no types

from turku.core.cli.output import unguarded
from turku.core.log import JournalStreamFormatter

ACCESS_FORMAT = '%(h)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
"""A line per request, without the time."""


class JournalServerLog(Logger):  # type: ignore[misc]
    """gunicorn's log in the form of all our records. Requests are text of others, which stands behind the priority."""

    def setup(self, cfg: Any) -> None:
        """Set the handlers up as gunicorn does, and replace their form."""
        super().setup(cfg)
        for logger, name in ((self.error_log, "gunicorn"), (self.access_log, "access")):
            for handler in logger.handlers:
                handler.setFormatter(JournalStreamFormatter(name))
                if isinstance(handler, logging.StreamHandler):
                    handler.setStream(unguarded(handler.stream))
