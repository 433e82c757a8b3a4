"""The plan of setup for machines that were registered before."""

from dataclasses import replace
from pathlib import Path

import pytest

from turku.agent.setup.config_files import MachineChoices, MachineFiles, configuration
from turku.agent.setup.plan import plan
from turku.core.secret import Secret
from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.registration import RegistrationStep
from turku.core.setup.step import State
from turku.core.setup.units import UnitsStep
from turku.protocol.join_token import JoinKind, JoinToken

FILES = MachineFiles({}, {}, {"etc": {"path": "/etc"}}, "https://turku.example.com/v1")


def registration(made: list[object]) -> RegistrationStep:
    return next(step for step in made if isinstance(step, RegistrationStep))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "run" / "systemd" / "system").mkdir(parents=True)
    (tmp_path / "etc" / "cron.d").mkdir(parents=True)
    return Host(tmp_path)


@pytest.mark.parametrize(("has_identity", "state"), [(True, State.DONE), (False, State.NEEDED)])
def test_a_machine_that_lost_its_identity_registers_again(host: Host, has_identity: bool, state: State) -> None:
    steps = plan(host, FILES, Path("/etc/turku-agent"), lambda: None, has_identity=has_identity).steps
    step = registration(list(steps))
    record = Record(host, "turku-agent")
    record.add(Made(Kind.REGISTRATION, step.address, step.digest))
    assert step.find(host, record).state is state


def test_another_join_token_is_used_and_the_same_or_none_is_not(host: Host) -> None:
    registrations: list[str] = []

    def set_up(token_digest: str) -> State:
        files = replace(FILES, token_digest=token_digest)
        made = plan(host, files, Path("/etc/turku-agent"), lambda: registrations.append(token_digest))
        step, record = registration(list(made.steps)), Record(host, "turku-agent")
        state = step.find(host, record).state
        if state is State.NEEDED:
            step.apply(host, record)
        return state

    assert [set_up(digest) for digest in ("", "first", "", "first")] == [
        State.NEEDED,
        State.NEEDED,
        State.DONE,
        State.DONE,
    ]
    # It is of a coordinator that was made anew at the same address, and knows no machine.
    assert set_up("second") is State.NEEDED
    assert registrations == ["", "first", "second"]


def test_a_token_without_fingerprints_ends_those_of_an_earlier_one(host: Host) -> None:
    place = host.path("/etc/turku-agent/config.d/setup.json")
    place.parent.mkdir(parents=True)
    place.write_text('{"api_url": "https://old.example.com/v1", "api_key_fingerprints": ["old"], "unit_name": "web"}')
    token = JoinToken(JoinKind.MACHINE, "https://turku.example.com/v1", Secret("x" * 30))
    made = configuration(MachineChoices(token, {}, accept_profiles=[Path("/srv")]), host, Path("/etc/turku-agent"))
    assert made.content == {"api_url": token.url, "unit_name": "web", "accept_profiles": ["/srv"]}
    kept = configuration(MachineChoices(None, {}, accept_profiles=[Path("/srv")]), host, Path("/etc/turku-agent"))
    assert kept.content["api_key_fingerprints"] == ["old"]


def test_no_timer_starts_before_the_sources_of_a_machine_that_comes_back_are_here(host: Host) -> None:
    files = MachineFiles({}, {}, {}, FILES.api_url)
    waiting = plan(host, files, Path("/etc/turku-agent"), lambda: None, comes_back=True).steps
    going_on = plan(host, FILES, Path("/etc/turku-agent"), lambda: None, comes_back=True).steps
    assert not any(isinstance(step, UnitsStep) for step in waiting)
    assert any(isinstance(step, UnitsStep) for step in going_on) is host.has_systemd
