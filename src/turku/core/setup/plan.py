"""A plan: the steps of a setup, shown as a list, confirmed by one answer, and taken in order."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from turku.core import lock
from turku.core.cli import person
from turku.core.cli.arguments import help_width
from turku.core.cli.listing import Say
from turku.core.setup.host import Host
from turku.core.setup.record import DIRECTORY, Record
from turku.core.setup.step import Finding, State, Step
from turku.errors import UsageError

EXIT_NOT_DONE: Final = 1


@dataclass(frozen=True)
class Plan:
    """The steps that set a program up on a host."""

    program: str
    steps: Sequence[Step]
    host: Host

    def carry_out(self, say: Say, *, is_dry_run: bool = False, is_confirmed: bool = False) -> bool:
        """Show the steps, ask, and take those that are needed. Return True if the host is as planned now.

        With ``is_confirmed`` nobody is asked. Raises UsageError if nobody can be asked, and what a step raises. What
        was done by then stays, and the next run goes on from there.
        """
        record = Record(self.host, self.program)
        findings = [(step, step.find(self.host, record)) for step in self.steps]
        needed = [(step, found) for step, found in findings if found.state is State.NEEDED]
        self._show(findings, needed, say)
        if not needed:
            return True
        if is_dry_run:
            say("Nothing was changed.")
            return False
        if not is_confirmed and not person.says_yes("Do this?"):
            say("Nothing was changed.")
            return False
        with lock.exclusive(self.host.path(DIRECTORY), self.program):
            for number, (step, _found) in enumerate(needed, 1):
                step.apply(self.host, record)
                say(f"[{number}/{len(needed)}] done: {step.title}")
        return True

    def _show(self, findings: Sequence[tuple[Step, Finding]], needed: Sequence[tuple[Step, Finding]], say: Say) -> None:
        done = sum(found.state is State.DONE for _step, found in findings)
        if not needed:
            say(f"{self.program} is set up: all {done} steps were done before.")
        else:
            before = f" ({done} of {len(findings)} steps were done before)" if done else ""
            say(f"To set up {self.program} on this host{before}:")
        for number, (step, found) in enumerate(needed, 1):
            _item(f"{number:>2}.", step.title, found.reason, say)
        for step, found in findings:
            if found.state is State.KEPT:
                _item("kept:", f"not done: {step.title}", found.reason, say)


def require_root() -> None:
    """Raise UsageError for anybody but root, who alone can set a host up."""
    if os.geteuid() != 0:
        raise UsageError("only root can set a host up", hint="use sudo or log in as root")


def _item(mark: str, text: str, reason: str, say: Say) -> None:
    begin = f"  {mark} "
    shown = f"{text}: {reason}" if reason else text
    for line in textwrap.wrap(
        shown,
        help_width(),
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_on_hyphens=False,
        break_long_words=False,
    ):
        say(line)
