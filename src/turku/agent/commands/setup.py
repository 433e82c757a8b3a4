"""The beginning of every subcommand: logging, the configuration, and an interrupted change of keys."""

import argparse
import logging
import random
from collections.abc import Callable

from turku.agent.config import loading
from turku.agent.config.model import AgentConfig
from turku.agent.identity import machine_identity
from turku.core import log
from turku.core.cli.listing import Say
from turku.core.cli.program import Run
from turku.core.clock import SYSTEM_CLOCK, Clock

_LOG = logging.getLogger(__name__)


def configured(step: Callable[[argparse.Namespace, AgentConfig, Say], int], *, is_settled: bool = False) -> Run:
    """Return a command that loads the configuration and takes the step with it.

    With ``is_settled`` it finishes an interrupted change of this machine's keys first.
    """

    def run(options: argparse.Namespace) -> int:
        log.set_up("turku-agent", debug=options.debug)
        agent = loading.load(options.config_dir)
        return step(options, settled(agent) if is_settled else agent, print)

    return run


def settled(agent: AgentConfig) -> AgentConfig:
    """Return the configuration after a change of secret and key that a killed run left is finished or removed."""
    if not machine_identity.has_staged_files(agent.state):
        return agent
    from turku.agent.identity import rotation

    agent = rotation.resume(agent)
    rotation.remove_leftovers(agent.state)
    return agent


def wait(longest_seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
    """Sleep a random part of this time."""
    if longest_seconds:
        part = random.uniform(0, longest_seconds)  # noqa: S311  (spreads load, guards nothing)
        _LOG.debug("sleeping for %.1f s", part)
        clock.sleep(part)
