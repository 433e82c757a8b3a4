"""A whole session: real coordinator, real sshd with the line that Turku wrote, real rsync through the tunnel."""

import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.coordinator import Coordinator
from tests.support.processes import command_lines, parent_of
from tests.support.rsyncd import Rsyncd
from tests.support.sshd import free_port
from tests.support.storage_host import AgentSide, StorageHost
from tests.support.v1_client import V1Machine

from turku.core import command

RESTORE_LINE = "Restore mode active on port {port}.  Good luck."


@dataclass
class Site:
    """The cast: one coordinator, one storage."""

    coordinator: Coordinator
    storage: StorageHost
    machine_auth: str

    def machine(self, name: str, sources: Mapping[str, Path]) -> "Machine":
        """A registered machine whose key the storage knows."""
        key = self.storage.sshd.new_key(name.replace("/", "_"))
        public_key = Path(f"{key}.pub").read_text().strip()
        v1 = V1Machine(self.coordinator.post, self.machine_auth, unit_name=name, ssh_public_key=public_key)
        v1.update_config({source: {"path": str(path)} for source, path in sources.items()})
        self.storage.update_config()
        return Machine(self, v1, key, dict(sources))

    def runs(self, machine: "Machine") -> list[tuple[str, bool, str]]:
        """Source, success and summary of each run that the coordinator was told of, oldest first."""
        rows = self.coordinator.sql(
            "SELECT s.name, r.success, r.summary FROM backups_backuprun r"
            " JOIN backups_source s ON s.id = r.source_id JOIN fleet_machine m ON m.id = s.machine_id"
            " WHERE m.uuid = ? ORDER BY r.id",
            self.coordinator.key(machine.v1.uuid),
        )
        return [(row["name"], bool(row["success"]), row["summary"]) for row in rows]


@dataclass
class Machine:
    site: Site
    v1: V1Machine
    key: Path
    sources: dict[str, Path]

    @property
    def directory(self) -> Path:
        return self.site.storage.volume / self.v1.uuid

    @contextmanager
    def session(self, daemon: Rsyncd, *, port: int | None = None, **changes: Any) -> Iterator[AgentSide]:
        """A checkin of this machine that offers its sources at ``daemon``."""
        port = port or free_port()
        credentials = {"username": daemon.username, "password": daemon.password}
        request = {
            "verbose": True,
            "action": "checkin",
            "port": port,
            "sources": dict.fromkeys(self.sources, credentials),
            **changes,
        }
        with self.site.storage.session(self.key, "-R", f"{port}:127.0.0.1:{daemon.port}", request=request) as side:
            yield side


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with Coordinator(directory / "coordinator") as coordinator:
        machine_auth = coordinator.create_auth("machine_reg")
        storage_auth = coordinator.create_auth("storage_reg")
        with StorageHost(directory / "storage", api_url=coordinator.url, api_auth=storage_auth) as storage:
            storage.update_config()
            yield Site(coordinator, storage, machine_auth)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_text("content")
    return path


def test_backs_up_what_is_due_and_reports_it(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("web-0", {"etc": source})
    with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
        assert side.wait() == 0, side.output
    assert (machine.directory / "etc.snapshots" / "latest" / "file").read_text() == "content"
    [(name, success, _summary)] = site.runs(machine)
    assert (name, success) == ("etc", True)
    assert machine.v1.due() == {}


def test_shows_progress_under_the_name_of_the_storage_only_when_verbose(
    site: Site, source: Path, tmp_path: Path
) -> None:
    machine = site.machine("talker", {"etc": source})
    with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon:
        with machine.session(daemon) as side:
            side.wait()
            assert " primary] INFO: " in side.output
        with machine.session(daemon, verbose=False) as side:
            assert side.wait() == 0
            assert side.output == ""
    assert f"{machine.v1.uuid}: " in site.storage.log


def test_one_source_that_fails_does_not_stop_the_others(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("half", {"broken": tmp_path / "missing", "whole": source})
    with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
        assert side.wait() == 2
        assert "1 of 2 backups failed: broken" in side.output
    assert {(name, success) for name, success, _ in site.runs(machine)} == {("broken", False), ("whole", True)}
    assert (machine.directory / "whole.snapshots" / "latest" / "file").exists()


def test_sources_that_are_not_both_due_and_offered_are_left_alone(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("picky", {"etc": source, "other": source})
    with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon:
        sources = {name: {"username": daemon.username, "password": daemon.password} for name in ("etc", "unknown")}
        with machine.session(daemon, sources=sources) as side:
            assert side.wait() == 0
            assert "source other is due, but the agent does not offer it" in side.output
            assert "source unknown is offered, but not due" in side.output
    assert [name for name, _, _ in site.runs(machine)] == ["etc"]


def test_a_machine_is_found_by_its_readable_name(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("readable/0", {"etc": source})
    with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
        assert side.wait() == 0, side.output
    link = site.storage.var_dir / "machines" / "readable_0"
    assert os.readlink(link) == machine.v1.uuid
    assert link.resolve() == machine.directory


def test_restore_says_that_the_tunnel_is_open_and_waits_for_the_end_of_input(
    site: Site, source: Path, tmp_path: Path
) -> None:
    machine = site.machine("restored", {"etc": source})
    port = free_port()
    with (
        Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon,
        machine.session(daemon, port=port, action="restore", sources={}) as side,
    ):
        side.wait_for(f" primary] INFO: {RESTORE_LINE.format(port=port)}")
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            assert connection.recv(8) == b"@RSYNCD:"
        assert side.child.poll() is None
        side.end_input()
        assert side.wait() == 0


@pytest.mark.parametrize(
    ("request_bytes", "sentence"),
    [
        (b"hello\n.\n", "not JSON"),
        (b'{"action": "checkin"}\n.\n', "`port`"),
        (b'{"action": "checkin", "port": 0}\n.\n', "port"),
        (b'{"action": "checkin", "port": 22}\n.\n', "port"),
        (b'{"action": "checkin", "port": "50000"}\n.\n', "port"),
        (b'{"action": "erase", "port": 50000}\n.\n', "action"),
        (b"[" * 100_000 + b"\n.\n", "error [malformed-message]"),
        (b"\xff\xfe\n.\n", "error [malformed-message]"),
        (b"x" * 10_000_000, "larger than"),
    ],
)
def test_malformed_requests_end_the_session_with_a_clear_error(site: Site, request_bytes: bytes, sentence: str) -> None:
    machine = getattr(site, "malformed", None) or site.machine("malformed", {})
    site.malformed = machine  # type: ignore[attr-defined]
    begin = time.monotonic()
    with site.storage.session(machine.key) as side:
        try:
            side.send(request_bytes)
        except BrokenPipeError:
            pass
        assert side.wait(15) == 76
        assert sentence in side.output
    assert time.monotonic() - begin < 15


def test_the_port_of_another_program_is_refused_before_a_byte_is_sent_to_it(site: Site) -> None:
    machine = site.machine("thief", {})
    with socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        service.listen()
        port = service.getsockname()[1]
        request = {"verbose": True, "action": "checkin", "port": port, "sources": {}}
        with site.storage.session(machine.key, request=request) as side:
            assert side.wait() == 68
            assert "not this session's tunnel" in side.output
        service.settimeout(0.2)
        with pytest.raises(TimeoutError):
            service.accept()


def test_the_port_of_another_machines_tunnel_is_refused(site: Site, source: Path, tmp_path: Path) -> None:
    victim = site.machine("victim", {"etc": source})
    thief = site.machine("thief-of-tunnels", {"etc": source})
    port = free_port()
    with (
        Rsyncd(tmp_path / "rsyncd", victim.sources) as daemon,
        victim.session(daemon, port=port, action="restore") as victims,
    ):
        victims.wait_for("Restore mode active")
        credentials = {"username": daemon.username, "password": daemon.password}
        request = {"verbose": True, "action": "checkin", "port": port, "sources": {"etc": credentials}}
        with site.storage.session(thief.key, request=request) as side:
            assert side.wait() == 68
            assert "not this session's tunnel" in side.output
    assert not thief.directory.exists()


def test_a_port_that_nothing_listens_on_is_refused(site: Site) -> None:
    machine = site.machine("hasty", {})
    request = {"action": "checkin", "port": free_port(), "sources": {}}
    with site.storage.session(machine.key, request=request) as side:
        assert side.wait() == 68
        assert "nothing listens" in side.output


def test_a_second_session_of_a_machine_says_so_and_ends(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("twice", {"etc": source})
    (source / "big").write_bytes(os.urandom(8 * 1024 * 1024))
    slow = ["rsync", "--bwlimit=500"]
    site.storage.write_configuration(rsync_command=slow)
    try:
        with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as first:
            first.wait_for("backup begins")
            with machine.session(daemon) as second:
                assert second.wait() == 75
                assert "another session of this machine is running" in second.output
            assert first.child.poll() is None
    finally:
        site.storage.write_configuration(rsync_command=None)


def test_an_agent_that_goes_away_ends_the_backup_and_its_rsync(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("goner", {"etc": source, "later": source})
    (source / "big").write_bytes(os.urandom(8 * 1024 * 1024))
    site.storage.write_configuration(rsync_command=["rsync", "--bwlimit=500"], parallel_sources=1)
    try:
        with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
            side.wait_for("backup begins")
            time.sleep(0.5)
            os.kill(side.child.pid, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while not site.runs(machine):
                assert time.monotonic() < deadline, site.storage.log
                time.sleep(0.1)
    finally:
        site.storage.write_configuration(rsync_command=None, parallel_sources=None)
    [(_, success, summary)] = site.runs(machine)
    assert not success
    assert "the agent ended the session" in summary
    assert machine.v1.uuid not in processes()


def processes() -> str:
    """The command lines of all processes but ours."""
    lines = [line.replace(b"\0", b" ").decode("utf-8", "replace") for line in command_lines().values()]
    return "\n".join(line for line in lines if "rsync" in line)


def test_a_report_is_tried_again_when_the_coordinator_was_away(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("unreported", {"etc": source})
    (source / "big").write_bytes(os.urandom(2 * 1024 * 1024))
    site.storage.write_configuration(rsync_command=["rsync", "--bwlimit=700"])
    try:
        with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
            side.wait_for("backup begins")
            site.coordinator.stop()
            side.wait_for("not reported yet", 20)
            site.coordinator.start()
            assert side.wait(40) == 0, side.output
    finally:
        site.storage.write_configuration(rsync_command=None)
    assert [(name, success) for name, success, _ in site.runs(machine)] == [("etc", True)]


def test_a_machine_of_which_the_coordinator_knows_nothing_is_refused(site: Site) -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        request = json.dumps({"action": "checkin", "port": port, "sources": {}}).encode() + b"\n.\n"
        uuid = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
        completed: command.CompletedProgram = site.storage.run(
            "turku-storage-ping", uuid, check=False, input_bytes=request
        )
    assert completed.exit_code == 77
    assert not (site.storage.volume / uuid).exists()


def slots(site: Site, machine: Machine) -> list[dict[str, Any]]:
    """The slots that the machine has."""
    return site.coordinator.sql(
        "SELECT k.* FROM queue_slot k JOIN fleet_machine m ON m.id = k.machine_id WHERE m.uuid = ?",
        site.coordinator.key(machine.v1.uuid),
    )


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def program_of_session(uuid: str) -> int:
    """Return the process of the session, and neither its shell nor a child that has not become another program yet."""
    program = f"turku-storage-ping\0{uuid}".encode()
    found = {process for process, line in command_lines().items() if program in line and b"sh\0-c" not in line}
    [session] = [each for each in found if not {parent_of(each)} & found]
    return session


def test_a_session_that_is_killed_frees_its_slot_within_five_minutes(site: Site, source: Path, tmp_path: Path) -> None:
    machine = site.machine("killed", {"etc": source})
    other = site.machine("other", {"etc": source})
    (source / "big").write_bytes(os.urandom(8 * 1024 * 1024))
    # One of them is for first backups.
    site.storage.write_configuration(rsync_command=["rsync", "--bwlimit=500"], slots=2)
    site.storage.update_config()
    try:
        with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
            side.wait_for("backup begins")
            (slot,) = slots(site, machine)
            assert slot["date_begun"] is not None
            assert seconds_between(slot["date_heartbeat"], slot["date_expires"]) == 240
            assert other.v1.due() == {}
            os.kill(program_of_session(machine.v1.uuid), signal.SIGKILL)
            side.wait()
        # It sends nothing more, and time passes.
        assert len(slots(site, machine)) == 1
        site.coordinator.sql("UPDATE queue_slot SET date_expires = datetime(date_expires, '-5 minutes')")
        assert set(other.v1.due()) == {"etc"}
        assert slots(site, machine) == []
    finally:
        site.storage.write_configuration(rsync_command=None, slots=None)
        site.storage.update_config()


def test_a_session_that_leaves_something_undone_frees_its_slot_at_its_end(
    site: Site, source: Path, tmp_path: Path
) -> None:
    machine = site.machine("unoffered", {"etc": source, "other": source})
    with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon:
        sources = {"etc": {"username": daemon.username, "password": daemon.password}}
        with machine.session(daemon, sources=sources) as side:
            assert side.wait() == 0, side.output
    assert [name for name, _, _ in site.runs(machine)] == ["etc"]
    assert slots(site, machine) == []
    assert set(machine.v1.due()) == {"other"}


def test_a_source_that_finds_its_volume_busy_waits_for_its_turn(site: Site, source: Path, tmp_path: Path) -> None:
    machines = [site.machine(f"neighbour-{number}", {"etc": source}) for number in range(2)]
    (source / "big").write_bytes(os.urandom(1024 * 1024))
    site.storage.write_configuration(rsync_command=["rsync", "--bwlimit=400"], volume_slots=1)
    try:
        with Rsyncd(tmp_path / "rsyncd", {"etc": source}) as daemon, machines[0].session(daemon) as first:
            first.wait_for("backup begins")
            with machines[1].session(daemon) as second:
                assert second.wait(60) == 0, second.output
            # It began when the first had ended.
            assert first.wait(5) == 0, first.output
    finally:
        site.storage.write_configuration(rsync_command=None, volume_slots=None)
    begun = [run_times(site, machine) for machine in machines]
    assert begun[1][0] >= begun[0][1]


def run_times(site: Site, machine: Machine) -> tuple[str, str]:
    """Return the begin and the end of the machine's run by the storage's report."""
    (row,) = site.coordinator.sql(
        "SELECT date_begin, date_end FROM backups_backuprun r JOIN backups_source s ON s.id = r.source_id "
        "JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ?",
        site.coordinator.key(machine.v1.uuid),
    )
    return row["date_begin"], row["date_end"]


def test_the_sources_of_one_machine_take_turns_where_the_volume_has_one_slot(
    site: Site, source: Path, tmp_path: Path
) -> None:
    machine = site.machine("turns", {"a": source, "b": source, "c": source})
    (source / "big").write_bytes(os.urandom(512 * 1024))
    site.storage.write_configuration(rsync_command=["rsync", "--bwlimit=400"], volume_slots=1)
    try:
        with Rsyncd(tmp_path / "rsyncd", machine.sources) as daemon, machine.session(daemon) as side:
            assert side.wait(60) == 0, side.output
    finally:
        site.storage.write_configuration(rsync_command=None, volume_slots=None)
    rows = site.coordinator.sql(
        "SELECT date_begin, date_end FROM backups_backuprun r JOIN backups_source s ON s.id = r.source_id "
        "JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ? ORDER BY date_begin",
        site.coordinator.key(machine.v1.uuid),
    )
    assert len(rows) == 3
    assert all(earlier["date_end"] <= later["date_begin"] for earlier, later in itertools.pairwise(rows))


def test_nothing_is_written_around_a_volume_that_is_not_mounted(site: Site, source: Path, tmp_path: Path) -> None:
    known, new = site.machine("mounted-0", {"etc": source}), site.machine("mounted-1", {"etc": source})
    with Rsyncd(tmp_path / "rsyncd", known.sources) as daemon:
        with known.session(daemon) as side:
            assert side.wait() == 0, side.output
        away = site.storage.volume.with_name("away")
        site.storage.volume.rename(away)
        site.storage.volume.mkdir(mode=0o700)
        site.coordinator.sql("UPDATE backups_source SET date_next_backup = '2000-01-01T00:00:00+00:00'")
        try:
            for machine in (known, new):
                with machine.session(daemon) as side:
                    assert side.wait() == 74, side.output
                assert "not mounted" in side.output
                assert "not mounted" in site.runs(machine)[-1][2]
            for arguments in (("gc",), ("verify",), ("drill",), ("catalog", "update")):
                completed = site.storage.run("turku-storage", *arguments, check=False)
                assert completed.exit_code == 74, arguments
                assert "turku-storage accept-volume" in "\n".join(completed.last_lines)
            checked = site.storage.run("turku-storage", "check", check=False)
            assert checked.exit_code == 1
            assert "PROBLEM: volume data:" in checked.stdout.decode()
            # The coordinator is told, and who manages the fleet with it.
            assert site.storage.update_config(check=False).exit_code == 74
            [row] = site.coordinator.sql("SELECT faults, space_total FROM fleet_storage")
            assert "not mounted" in row["faults"]
            assert row["space_total"] == 0
            assert list(site.storage.volume.iterdir()) == []
        finally:
            site.storage.volume.rmdir()
            away.rename(site.storage.volume)
        site.storage.update_config()
        [row] = site.coordinator.sql("SELECT faults FROM fleet_storage")
        assert row["faults"] == "[]"
        site.coordinator.sql("UPDATE backups_source SET date_next_backup = '2000-01-01T00:00:00+00:00'")
        with new.session(daemon) as side:
            assert side.wait() == 0, side.output
