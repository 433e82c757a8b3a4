"""The plan of setup for machines that were registered before."""

from pathlib import Path

import pytest

from turku.agent.setup.config_files import MachineFiles
from turku.agent.setup.plan import plan
from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.registration import RegistrationStep
from turku.core.setup.step import State
from turku.core.setup.units import UnitsStep

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


def test_no_timer_starts_before_the_sources_of_a_machine_that_comes_back_are_here(host: Host) -> None:
    files = MachineFiles({}, {}, {}, FILES.api_url)
    waiting = plan(host, files, Path("/etc/turku-agent"), lambda: None, comes_back=True).steps
    going_on = plan(host, FILES, Path("/etc/turku-agent"), lambda: None, comes_back=True).steps
    assert not any(isinstance(step, UnitsStep) for step in waiting)
    assert any(isinstance(step, UnitsStep) for step in going_on) is host.has_systemd
