"""C6: a coordinator proposes sources by profiles. The machine's own configuration alone says which paths it may propose,
and nothing that runs a program, or keeps less than the machine would, comes by a profile."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine
from tests.integration.agent.test_least_privilege import AGENT_USER, READ, READ_AND_LOCK_IN, as_agent_user
from tests.support.hostile_storage import HostileStorage
from tests.support.v1_server import V1Api

from turku.policy.declaration.profiles import SOURCES_LIMIT

PROFILES = "/v2/agent_profiles"


class Proposals:
    """A coordinator that proposes sources to a machine, and says that whatever it names is due."""

    def __init__(self, api: V1Api) -> None:
        self.api = api
        self.truthful = api.answer
        self.profiles: Any = []
        self.digest = "1"
        self.ordered: dict[str, str] = {}
        """Sources that are due by the coordinator's word alone, with their paths."""

    def answer(self, call: str, message: Any) -> tuple[int, Any]:
        """As V1Api has it."""
        if call == PROFILES:
            return 200, {"digest": self.digest, "profiles": self.profiles}
        status, content = self.truthful(call, message)
        if call == "agent_ping_checkin" and status == 200:
            machine = content["machine"]
            if message.get("profiles") != self.digest:
                machine["profiles"] = self.digest
            for name, path in self.ordered.items():
                machine["scheduled_sources"][name] = {
                    "path": path,
                    "storage": {"name": "primary", **self.api.storages["primary"]},
                }
        return status, content

    def propose(self, **sources: Any) -> None:
        self.profiles = [{"name": "hostile", "sources": sources}]
        self.digest += "1"

    @property
    def declared(self) -> dict[str, Any]:
        """The sources that the machine declared last."""
        found: dict[str, Any] = self.api.of_call("update_config")[-1]["machine"]["sources"]
        return found

    @property
    def report(self) -> dict[str, Any]:
        """The last report of the machine on what it was proposed."""
        found: dict[str, Any] = self.api.of_call("update_config")[-1]["machine"]["profiles"]
        return found


@pytest.fixture
def proposals(api: V1Api, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Proposals:
    found = Proposals(api)
    monkeypatch.setattr(api, "answer", found.answer)
    api.due = set()
    return found


@pytest.fixture
def accepted(machine: Machine, tmp_path: Path) -> Path:
    """The directory that the machine accepts, beside one that it does not."""
    directory = tmp_path / "accepted"
    (directory / "good").mkdir(parents=True)
    (directory / "good" / "file").write_text("yours")
    for name in ("outside", "accepted-twin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_text("not yours")
    machine.configure(accept_profiles=[str(directory)])
    (machine.directory / "own").mkdir()
    machine.source("own", machine.directory / "own")
    return directory


OUTSIDE: dict[str, Callable[[Path], Any]] = {
    "elsewhere": lambda _accepted: "/etc",
    "the root": lambda _accepted: "/",
    "two dots": lambda accepted: f"{accepted}/../outside",
    "two dots at the end": lambda accepted: f"{accepted}/good/../..",
    "a twin": lambda accepted: f"{accepted}-twin",
    "the directory above": lambda accepted: str(accepted.parent),
    "relative": lambda accepted: str(accepted).lstrip("/"),
    "two slashes": lambda accepted: f"/{accepted}/good",
    "a dot": lambda accepted: f"{accepted}/./good",
    "a line break": lambda accepted: f"{accepted}/good\npath = /etc",
    "NUL": lambda accepted: f"{accepted}/good\0/../../outside",
    "no text": lambda accepted: [str(accepted)],
    "nothing": lambda _accepted: None,
    "other case": lambda accepted: str(accepted).upper(),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "a program before": {"gonogo_program": ["touch", "/tmp/planted"]},
    "a hook": {"hooks": {"before": "id"}},
    "an unknown option": {"pre-xfer exec": "id"},
    "another rsync": {"rsyncd_command": ["sh", "-c", "id"]},
    "no history": {"snapshot_mode": "none"},
    "no history by the size of files": {"large_rotating_files": True},
    "no history by changes in place": {"large_modifying_files": True},
    "fewer properties": {"not_preserved": ["acls"]},
    "failures for single files": {"incomplete": "fail"},
    "other file systems": {"one_file_system": False},
    "a filter set": {"filter": ["merge operators"]},
    "a merge file": {"filter": [". /etc/shadow"]},
    "a merge file of each directory": {"filter": [": .rules"]},
    "a cleared list": {"filter": ["!"]},
    "two rules in one": {"exclude": ["*.tmp\n+ /etc"]},
    "a retention of nothing": {"retention": "last 0 days"},
    "a list of numbers": {"exclude": [1, 2]},
}
NAMES = ["../x", "", ".", "a/b", "global", "x.snapshots", "OWN", "own", "a\nb", "[etc]"]


def test_c6_without_a_setting_nothing_is_asked_for_or_taken(
    machine: Machine, proposals: Proposals, accepted: Path, hostile: HostileStorage, open_session: StartPing
) -> None:
    machine.configure()
    proposals.propose(good={"path": str(accepted / "good")})
    proposals.ordered = {"good": str(accepted / "good")}
    assert open_session().wait(timeout=60) == 0
    assert proposals.api.of_call(PROFILES) == []
    assert set(proposals.declared) == {"own"}
    assert "profiles" not in proposals.api.of_call("agent_ping_checkin")[-1]
    assert list(hostile.directory.iterdir()) == [], "no session was opened"


def test_c6_no_path_and_no_option_but_accepted_ones_are_taken(
    machine: Machine, proposals: Proposals, accepted: Path, hostile: HostileStorage, open_session: StartPing
) -> None:
    good = {"path": str(accepted / "good")}
    refused: dict[str, Any] = {f"path {name}": {"path": make(accepted)} for name, make in OUTSIDE.items()}
    refused |= {f"option {name}": {**good, **options} for name, options in OPTIONS.items()}
    refused |= dict.fromkeys(NAMES, good)
    proposals.propose(**refused, good=good)
    # The coordinator asks for all of them, whatever the machine declared.
    proposals.ordered = {name: str((source["path"]) or "/etc") for name, source in refused.items()} | {"good": "/etc"}
    open_session()
    offered = hostile.request()["sources"]
    assert set(offered) == {"good", "own"}
    read = hostile.rsync("-a", "rsync://{}/good/", f"{accepted.parent / 'stolen'}/", login=offered["good"])
    assert read.returncode == 0, read.stderr
    assert [path.name for path in (accepted.parent / "stolen").iterdir()] == ["file"]
    assert set(proposals.declared) == {"own", "good"}
    assert proposals.declared["own"] == {"path": str(machine.directory / "own")}
    assert proposals.report["taken"] == {"good": "hostile"}
    assert {each["source"] for each in proposals.report["refused"]} == set(refused)
    check = machine.run("turku-agent", "check", "--offline").stdout
    assert "note: profile hostile: source own is refused: this machine has a source of that name of its own" in check
    hostile.release()


LINKS: dict[str, Callable[[Path], Path]] = {
    "absolute": lambda accepted: accepted / "absolute",
    "relative": lambda accepted: accepted / "relative",
    "on the way": lambda accepted: accepted / "above" / "outside",
    "a chain": lambda accepted: accepted / "chain",
    "back into it": lambda accepted: accepted / "inner",
    "of the kernel": lambda accepted: accepted / "self" / "root" / "etc",
}


@pytest.mark.parametrize("capabilities", [None, READ, READ_AND_LOCK_IN])
def test_c6_a_link_below_an_accepted_directory_leads_nowhere(
    machine: Machine,
    proposals: Proposals,
    accepted: Path,
    hostile: HostileStorage,
    open_session: StartPing,
    capabilities: str | None,
) -> None:
    if capabilities is not None:
        if os.geteuid() != 0:
            pytest.skip("starts the agent as another user")
        machine.var_dir.mkdir(mode=0o700)
        os.chown(machine.var_dir, AGENT_USER, AGENT_USER)
        machine.prefix = as_agent_user(capabilities)
    (accepted / "absolute").symlink_to(accepted.parent / "outside")
    (accepted / "relative").symlink_to("../outside")
    (accepted / "above").symlink_to("..")
    (accepted / "chain").symlink_to("absolute")
    (accepted / "inner").symlink_to("good")
    (accepted / "self").symlink_to("/proc/self")
    proposals.propose(
        good={"path": str(accepted / "good")}, **{name: {"path": str(make(accepted))} for name, make in LINKS.items()}
    )
    proposals.ordered = dict.fromkeys(("good", *LINKS), "/etc")
    session = open_session()
    request = hostile.request()
    assert set(request["sources"]) == {"good"}
    assert set(request["withheld"]) == set(LINKS)
    assert all("by a symbolic link only" in reason for reason in request["withheld"].values())
    for name in LINKS:
        hostile.rsync("-a", f"rsync://{{}}/{name}/", f"{accepted.parent / 'stolen'}/")
    assert not list(accepted.parent.glob("stolen/**/secret"))
    read = hostile.rsync("-a", "rsync://{}/good/", f"{accepted.parent / 'stolen'}/")
    assert read.returncode == 0, read.stderr
    assert (accepted.parent / "stolen" / "file").read_text() == "yours"
    hostile.release()
    assert session.wait(timeout=60) == 0
    check = machine.run("turku-agent", "check", "--offline")
    assert check.returncode == 1
    assert check.stdout.count("PROBLEM: is not offered") == len(LINKS)


def test_c6_a_directory_that_is_replaced_by_a_link_meanwhile_is_not_followed(
    proposals: Proposals, accepted: Path, hostile: HostileStorage, open_session: StartPing
) -> None:
    # Another user of the machine may write below the accepted directory, and help the coordinator.
    proposals.propose(good={"path": str(accepted / "good")})
    proposals.ordered = {"good": "/etc"}
    open_session()
    hostile.request()
    (accepted / "good").rename(accepted / "moved")
    (accepted / "good").symlink_to(accepted.parent / "outside")
    for options in ((), ("--copy-links",), ("--copy-unsafe-links",)):
        for path in ("", "../outside/", "../good/"):
            hostile.rsync("-a", *options, f"rsync://{{}}/good/{path}", f"{accepted.parent / 'stolen'}/")
    stolen = {path.name for path in (accepted.parent / "stolen").rglob("*")}
    assert stolen == {"file"}
    hostile.release()


def test_c6_a_flood_of_profiles_takes_no_room_of_the_machine_s_own_sources(
    machine: Machine, proposals: Proposals, accepted: Path
) -> None:
    machine.register()
    good = {"path": str(accepted / "good")}
    sources = {f"source-{number}": good for number in range(300)}
    proposals.profiles = [{"name": f"profile-{number:03d}", "sources": sources} for number in range(20)]
    proposals.digest += "1"
    assert machine.ping().returncode == 0
    assert "own" in proposals.declared
    assert len(proposals.declared) == SOURCES_LIMIT + 1
    assert len(proposals.report["refused"]) == 200
    assert proposals.report["refused_count"] == 20 * 300 - SOURCES_LIMIT
    # More than the machine keeps is not taken at all.
    proposals.propose(**{f"source-{number}": {**good, "comment": "x" * 4000} for number in range(300)})
    before = (machine.var_dir / "profiles.json").read_bytes()
    ping = machine.ping()
    assert "larger than" in ping.stderr
    assert (machine.var_dir / "profiles.json").read_bytes() == before
    assert len(proposals.declared) == SOURCES_LIMIT + 1


@pytest.mark.parametrize(
    "profiles",
    [None, 7, "x", [None], [{}], [{"name": 1, "sources": {}}], [{"name": "x", "sources": []}], {"name": "x"}],
    ids=str,
)
def test_c6_malformed_profiles_delay_no_backup(
    machine: Machine, proposals: Proposals, api: V1Api, accepted: Path, profiles: Any
) -> None:
    machine.register()
    api.due = {"own"}
    proposals.profiles = profiles
    proposals.digest = "other"
    assert machine.ping().returncode == 0
    assert api.reports["own"]["success"]
    assert set(proposals.declared) == {"own"}


def test_c6_withdrawing_a_profile_is_loud_on_the_machine(
    machine: Machine, proposals: Proposals, accepted: Path
) -> None:
    proposals.propose(good={"path": str(accepted / "good")})
    machine.register()
    assert machine.ping().returncode == 0
    assert set(proposals.declared) == {"own", "good"}
    proposals.profiles, proposals.digest = [], ""
    ping = machine.ping()
    [line] = [line for line in ping.stderr.splitlines() if "no longer declared" in line]
    assert "ERROR" in line
    assert "good" in line
    # Without an answer, the last profiles stay.
    proposals.propose(good={"path": str(accepted / "good")})
    machine.ping()
    proposals.profiles = None
    proposals.digest += "1"
    assert "no longer declared" not in machine.ping().stderr
    assert machine.run("turku-update-config").returncode == 0
    assert set(proposals.declared) == {"own", "good"}


@pytest.mark.parametrize("content", ["", "[", "{}x", '{"profiles": 7}', "[" * 100_000])
def test_c6_damaged_profiles_end_no_backup(
    machine: Machine, proposals: Proposals, accepted: Path, content: str
) -> None:
    proposals.propose(good={"path": str(accepted / "good")})
    machine.register()
    machine.ping()
    (machine.var_dir / "profiles.json").write_text(content)
    # The coordinator does not send them, so nothing is declared without them.
    kept = proposals.profiles
    proposals.profiles = None
    assert machine.run("turku-update-config").returncode == 78
    assert machine.run("turku-agent", "check", "--offline").returncode == 1
    assert set(proposals.declared) == {"own", "good"}
    proposals.profiles = kept
    assert machine.ping().returncode == 0
    assert set(proposals.declared) == {"own", "good"}
    assert json.loads((machine.var_dir / "profiles.json").read_text())["digest"] == proposals.digest


def test_c6_the_stored_profiles_add_no_path_either(machine: Machine, proposals: Proposals, accepted: Path) -> None:
    # Whoever writes the file, such as the agent's own user where root restores.
    machine.register()
    planted = {"digest": "x", "profiles": [{"name": "p", "sources": {"etc": {"path": "/etc"}}}], "var_dir": "/tmp"}
    (machine.var_dir / "profiles.json").write_text(json.dumps(planted))
    check: subprocess.CompletedProcess[str] = machine.run("turku-agent", "check", "--offline")
    assert "source etc is refused" in check.stdout
    assert "etc: /etc" not in check.stdout
