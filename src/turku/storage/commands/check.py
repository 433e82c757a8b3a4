"""``turku-storage check``: show the configuration as it is used, and what stands in the way."""

from __future__ import annotations

import argparse

from turku.core.cli.program import Command
from turku.storage.commands.setup import EXIT_PROBLEMS, config_dir


def run(options: argparse.Namespace) -> int:
    """Print the report. Return 1 where there is a problem."""
    from turku.core import log
    from turku.storage.commands import check_report
    from turku.storage.config import loading as configuration

    log.set_up("turku-storage", debug=options.debug)
    loaded = configuration.load(config_dir(options))
    return EXIT_PROBLEMS if check_report.report(loaded, print) else 0


COMMAND = Command(
    "check",
    "Show the configuration as it is used, the volumes, what protects this host, and every problem.",
    run,
    (
        ("Check this storage:", "{prog}"),
        ("Show the problems alone:", "{prog} | grep PROBLEM"),
        ("Check another configuration:", "{prog} --config-dir /srv/turku-storage"),
    ),
    exit_codes={1: "There is a problem."},
)
