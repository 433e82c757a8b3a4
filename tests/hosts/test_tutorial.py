"""The tutorial, followed by the letter on bare hosts (issue: seven commands, ten minutes, two for a further machine)."""

import re

import pytest
from tests.hosts import tutorial
from tests.hosts.tutorial import Followed, Step

FIRST_HOSTS = ("turku", "storage", "web-0")
MOST_COMMANDS, MOST_SECONDS = 7, 600.0


def to_the_first_restore(steps: tuple[Step, ...]) -> list[Step]:
    last = next(number for number, step in enumerate(steps) if " restore " in step.command)
    return list(steps[: last + 1])


def test_seven_commands_lead_from_bare_hosts_to_a_verified_restore_within_ten_minutes(template: Followed) -> None:
    steps = to_the_first_restore(template.steps)
    assert {step.host for step in steps} == set(FIRST_HOSTS)
    assert len(steps) <= MOST_COMMANDS, [step.command for step in steps]
    assert sum(step.seconds for step in steps) <= MOST_SECONDS, [(step.command, step.seconds) for step in steps]
    assert re.search(r"verified", "\n".join(steps[-1].output))


def test_a_further_machine_takes_two_commands(template: Followed) -> None:
    steps = [step for step in template.steps if step.host == "web-1"]
    assert len(steps) == 2
    assert "backed up" in "\n".join(steps[-1].output)


def test_the_page_shows_what_the_commands_print(template: Followed, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-tutorial"):
        tutorial.PAGE.write_text(tutorial.written(tutorial.PAGE.read_text(), template.steps))
    shown = list(tutorial.steps(tutorial.PAGE.read_text()))
    differing = [
        f"{step.host}# {step.command}\n{tutorial.difference(step, now)}"
        for step, now in zip(shown, template.steps, strict=True)
        if tutorial.difference(step, now)
    ]
    assert not differing, "\n".join(("run `make tutorial`, which writes the page anew", *differing))
