"""``turku-agent setup`` from a join token to the first backup, on a host below a directory of the test."""

import json
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.fleet import Fleet

from turku.agent.commands import host_setup
from turku.agent.config import loading
from turku.agent.setup import config_files, plan, state_owner
from turku.agent.setup.config_files import MachineChoices
from turku.agent.setup.first_backup import FirstBackup
from turku.core.clock import SystemClock
from turku.core.command import CompletedProgram
from turku.core.secret import Secret
from turku.core.setup import teardown
from turku.core.setup.host import Host
from turku.demo.private_sshd import user_name
from turku.errors import UsageError
from turku.protocol.join_token import JoinKind, JoinToken

ETC = Path("/etc/turku-agent")
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def own_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("setup-fleet")) as fleet:
        fleet.storage("primary")
        yield fleet


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without systemd, whose accounts are files, and on which nothing is started."""
    root = tmp_path / "host"
    for name in ("etc/cron.d", "usr/local/bin"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nturku-agent:x:996:996::/:/usr/sbin/nologin\n")
    (root / "etc/group").write_text("root:x:0:\nturku-agent:x:996:\n")

    def run(argv: Sequence[str]) -> CompletedProgram:
        return CompletedProgram(tuple(argv), 0, (), b"")

    for name in plan.PROGRAMS:
        (root / "usr/local/bin" / name).touch(mode=0o755)
    return Host(root, run)


class SetUp:
    """A machine that is set up below the root of its host."""

    def __init__(self, fleet: Fleet, host: Host) -> None:
        self.host = host
        self.fleet = fleet
        self.place = host.path(ETC)
        self.said: list[str] = []
        secret = fleet.coordinator.create_auth("machine_reg", name=f"token {host.root}"[-100:])
        self.token = JoinToken(JoinKind.MACHINE, fleet.coordinator.url, Secret(secret))

    def directory(self, name: str) -> Path:
        """Return a directory to back up, which this host has at the same path."""
        path = self.host.root.parent / name
        for each in (path, self.host.path(path)):
            each.mkdir(parents=True, exist_ok=True)
        (path / "file").write_text("data\n")
        return path

    def choices(self, token: JoinToken | None = None, *names: str) -> MachineChoices:
        return MachineChoices(token, {name: self.directory(name) for name in names}, names={"unit_name": "set-up"})

    def carry_out(self, choices: MachineChoices, *, is_dry_run: bool = False) -> bool:
        chosen = config_files.configuration(choices, self.host, ETC)
        private = self.place / "config.d" / "private.json"

        def register() -> None:
            # Of this test: paths of a host that is a directory.
            private.write_text(
                json.dumps(
                    {
                        "var_dir": str(self.host.path("/var/lib/turku-agent")),
                        "rsyncd_local_address": "127.0.0.2",
                        "rsyncd_user": user_name(),
                    }
                )
            )
            self.said += host_setup._register(self.place, choices.token, None)

        made = plan.plan(self.host, chosen, ETC, register)
        return made.carry_out(self.said.append, is_dry_run=is_dry_run, is_confirmed=True)

    def back_up(self, clock: SystemClock | None = None) -> bool:
        return FirstBackup(loading.load(self.place), self.host, self.said.append, clock or SystemClock()).make()

    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
def machine(own_fleet: Fleet, host: Host) -> Iterator[SetUp]:
    machine = SetUp(own_fleet, host)
    yield machine
    own_fleet.execute("UPDATE fleet_machine SET active = ?", False)


def test_a_bare_host_is_backed_up_once_the_storage_lets_it_in(own_fleet: Fleet, machine: SetUp) -> None:
    assert machine.carry_out(machine.choices(machine.token, "data"))
    admits = threading.Timer(3, own_fleet.storages["primary"].update_config)
    admits.start()
    try:
        assert machine.back_up(), machine.text()
    finally:
        admits.join()
    assert machine.said.count("waiting for storage primary to admit this machine (some minutes at most)") == 1
    assert machine.said[-1] == "data: backed up; restore with: turku-agent restore data"
    assert "Permission denied" not in machine.text()
    uuid = loading.load(machine.place).identity.machine_uuid
    assert uuid is not None
    [snapshot] = own_fleet.storages["primary"].snapshots(uuid, "data")
    assert (snapshot / "file").read_text() == "data\n"


def test_the_tokens_secret_is_in_no_file_and_the_files_are_private(machine: SetUp) -> None:
    assert machine.carry_out(machine.choices(machine.token, "data"))
    for path in machine.host.root.rglob("*"):
        if path.is_file():
            assert machine.token.secret.reveal().encode() not in path.read_bytes(), path
    for path in (machine.place / "config.d" / "setup.json", machine.place / "sources.d" / "data.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads((machine.place / "config.d" / "setup.json").read_text())
    assert content == {"api_url": machine.token.url, "unit_name": "set-up"}
    state = machine.host.path("/var/lib/turku-agent")
    # The agent may read every file, which is enough for a lock.
    own = [path for path in (state, *state.rglob("*")) if path.suffix != ".lock"]
    assert [str(path) for path in own if path.stat().st_uid != 996] == []
    assert machine.token.secret.reveal() not in machine.text()


def test_it_can_be_repeated_and_a_source_can_be_added(own_fleet: Fleet, machine: SetUp) -> None:
    assert machine.carry_out(machine.choices(machine.token, "data"))
    machine.said.clear()
    assert machine.carry_out(machine.choices())
    assert "all" in machine.said[0]
    assert "steps were done before" in machine.said[0]
    assert machine.carry_out(machine.choices(None, "more"))
    assert "and register at the coordinator" in machine.text()
    uuid = loading.load(machine.place).identity.machine_uuid or ""
    rows = own_fleet.query(
        "SELECT s.name FROM backups_source s JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ? AND s.published",
        own_fleet.coordinator.key(uuid),
    )
    assert {name for (name,) in rows} == {"data", "more"}


def test_a_dry_run_changes_nothing(machine: SetUp) -> None:
    choices = machine.choices(machine.token, "data")
    before = sorted(machine.host.root.rglob("*"))
    assert not machine.carry_out(choices, is_dry_run=True)
    assert sorted(machine.host.root.rglob("*")) == before
    assert "write /etc/turku-agent/sources.d/data.json" in machine.text()
    assert "/etc/cron.d/turku-agent" in machine.text()


def test_teardown_leaves_the_identity_and_names_what_was_edited(machine: SetUp) -> None:
    assert machine.carry_out(machine.choices(machine.token, "data"))
    edited = machine.place / "sources.d" / "data.json"
    edited.write_text(edited.read_text() + "\n")
    said: list[str] = []
    assert teardown.tear_down(plan.PROGRAM, machine.host, said.append, is_confirmed=True)
    assert edited.exists()
    assert not (machine.place / "config.d" / "setup.json").exists()
    assert not machine.host.path("/etc/cron.d/turku-agent").exists()
    assert (machine.host.path("/var/lib/turku-agent/config.d/10-machine_uuid.json")).exists()
    assert any("edited since setup wrote it" in line for line in said)


def test_a_state_of_an_earlier_setup_is_given_to_the_agents_user_and_to_root_once_that_is_gone(
    machine: SetUp, tmp_path: Path
) -> None:
    choices = machine.choices(machine.token, "data")
    assert machine.carry_out(choices)
    state = machine.host.path("/var/lib/turku-agent")
    (tmp_path / "elsewhere").touch()
    (state / "link").symlink_to(tmp_path / "elsewhere")
    (state / "second name").hardlink_to(tmp_path / "elsewhere")
    state_owner.give_to_root(machine.host, Path("/var/lib/turku-agent"))
    owned = [path for path in (state, *state.rglob("*")) if path.lstat().st_uid != 0]
    assert owned == []
    machine.said.clear()
    assert machine.carry_out(machine.choices())
    assert "give what is in /var/lib/turku-agent to turku-agent" in machine.text()
    assert (state / "config.d" / "10-machine_uuid.json").stat().st_uid == 996
    assert (tmp_path / "elsewhere").stat().st_uid == 0
    machine.said.clear()
    assert machine.carry_out(machine.choices())
    assert "steps were done before" in machine.said[0]


def test_without_a_storage_it_says_so_and_that_the_timer_goes_on(own_fleet: Fleet, machine: SetUp) -> None:
    own_fleet.execute("UPDATE fleet_storage SET published = ?", False)
    try:
        assert machine.carry_out(machine.choices(machine.token, "data"))
        assert machine.back_up()
    finally:
        own_fleet.execute("UPDATE fleet_storage SET published = ?", True)
    assert "No storage is assigned to this machine yet: the timer goes on asking" in machine.said[-1]


class Hurried(SystemClock):
    """A clock on which a wait of minutes takes moments."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def monotonic_seconds(self) -> float:
        return super().monotonic_seconds() + self._skipped

    def sleep(self, seconds: float) -> None:
        self._skipped += 60 * seconds


def test_a_storage_that_never_lets_it_in_ends_the_wait_with_what_to_do(machine: SetUp) -> None:
    assert machine.carry_out(machine.choices(machine.token, "data"))
    assert not machine.back_up(Hurried())
    assert "does not admit this machine" in machine.text()
    assert "the timer goes on asking every 5 minutes" in machine.text()


def test_a_source_that_fails_is_named_beside_those_that_are_backed_up(own_fleet: Fleet, machine: SetUp) -> None:
    assert machine.carry_out(machine.choices(machine.token, "data", "gone"))
    shutil.rmtree(machine.directory("gone"))
    own_fleet.storages["primary"].update_config()
    assert not machine.back_up()
    assert "source gone: FAILED " in machine.text()
    assert machine.said[-1] == "data: backed up; restore with: turku-agent restore data"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["etc=etc"], "not an absolute path"),
        (["../x=/etc"], "has the character"),
        (["etc=/etc", "etc=/srv"], "there is another source etc"),
    ],
)
def test_a_mistyped_source_is_refused_before_anything_is_done(words: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        config_files.parse_sources(words)


def test_what_makes_no_machine_is_refused(machine: SetUp) -> None:
    for choices, reason in (
        (MachineChoices(machine.token, {"data": Path("/srv/dta")}), "/srv/dta is not a directory"),
        (machine.choices(machine.token), "a source is needed"),
        (machine.choices(None, "data"), "a join token is needed"),
    ):
        with pytest.raises(UsageError, match=reason):
            config_files.configuration(choices, machine.host, ETC)
    assert config_files.parse_sources(["/srv/data", "/"]) == {"srv-data": Path("/srv/data"), "system": Path("/")}
