"""``turku-agent update-config``, and ``turku-update-config``: register this machine and send its sources."""

from __future__ import annotations

import argparse

from turku.agent.commands import setup
from turku.agent.config import loading
from turku.core import log
from turku.core.cli import options as common
from turku.core.cli.arguments import Parser
from turku.core.cli.program import Command


def add_arguments(parser: Parser) -> None:
    """Add the options that the contract names."""
    common.add_wait(parser)
    common.add_registration(parser)


def run(options: argparse.Namespace) -> int:
    """Register this machine, and send what it wants backed up."""
    log.set_up("turku-update-config", debug=options.debug)
    from turku.agent import registration

    agent = loading.load(
        options.config_dir, api_auth_name=options.api_auth_name, api_auth_secret=options.api_auth_secret
    )
    setup.wait(options.wait)
    registration.update_config(setup.settled(agent))
    return 0


COMMAND = Command(
    "update-config",
    "Register this machine with the coordinator, and send what it wants backed up.",
    run,
    (
        ("Send the sources after a change:", "{prog}"),
        ("Register with an Auth that no file has:", "{prog} --api-auth-name web --api-auth-secret SECRET"),
        ("Show the calls that are made:", "{prog} --debug"),
    ),
    add_arguments,
)
