"""The failure of a source or a storage: the others go on, and the failing one is tried again later."""

import sys
from datetime import datetime, timedelta
from pathlib import Path

from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_failing_source_waits_longer_each_time_and_does_not_stop_the_others(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    machine = make_machine({"a-broken": {"path": str(tmp_path / "missing")}, "files": {"path": str(files)}})

    machine.ping(check=False)
    state = fleet.source_state(machine, "a-broken")
    [run] = fleet.runs(machine, "a-broken")
    assert not state["success"]
    assert state["failure_count"] == 1
    assert not run["success"]
    assert run["summary"]
    assert len(fleet.snapshots(machine, "files")) == 1

    # Not due again at once: a ping right after is a quiet one.
    machine.ping()
    assert len(fleet.runs(machine, "a-broken")) == 1
    first_pause = _moment(state["date_next_backup"]) - _moment(run["date_end"])
    assert timedelta(minutes=4) < first_pause <= timedelta(minutes=5, seconds=30)

    fleet.make_due(machine, "a-broken")
    machine.ping(check=False)
    state = fleet.source_state(machine, "a-broken")
    second_pause = _moment(state["date_next_backup"]) - _moment(fleet.runs(machine, "a-broken")[-1]["date_end"])
    assert state["failure_count"] == 2
    assert timedelta(minutes=9) < second_pause <= timedelta(minutes=10, seconds=30)

    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "there").write_text("now\n")
    fleet.make_due(machine, "a-broken")
    machine.ping()
    state = fleet.source_state(machine, "a-broken")
    assert state["success"]
    assert state["failure_count"] == 0
    assert len(fleet.snapshots(machine, "a-broken")) == 1


def test_a_storage_that_cannot_be_reached_is_an_error_with_a_sentence_and_not_a_traceback(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    unreachable = fleet.storages.get("unreachable") or fleet.storage("unreachable")
    machine = make_machine({"files": {"path": str(files)}}, storage=unreachable)
    fleet.sshds["unreachable"].__exit__(None, None, None)
    completed = machine.ping(check=False)
    shown = "\n".join(completed.last_lines)
    assert completed.exit_code not in (0, 70)
    assert "unreachable" in shown
    assert "Traceback" not in shown
    assert fleet.runs(machine, "files") == []


_TAKES_THE_FIRST_PORT = """\
import contextlib, pathlib, socket, sys
port = int(next(word for word in sys.argv if word.count(":") == 2).split(":")[0])
notes = pathlib.Path(sys.argv[1])
with notes.open("a") as stream:
    stream.write(f"{port}\\n")
if len(notes.read_text().splitlines()) == 1:
    with contextlib.suppress(OSError):  # taken already, then
        taken = socket.create_server(("127.0.0.1", port))
import subprocess
sys.exit(subprocess.run(["ssh", *sys.argv[2:]], stdin=0).returncode)
"""


def test_a_port_that_is_taken_on_one_address_of_the_storage_is_noticed_and_another_is_tried(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    program, notes = tmp_path / "takes_the_first_port.py", tmp_path / "ports"
    program.write_text(_TAKES_THE_FIRST_PORT)
    machine = make_machine({"files": {"path": str(files)}}, ssh_command=[sys.executable, str(program), str(notes)])
    machine.ping()
    assert len(set(notes.read_text().splitlines())) >= 2
    assert len(fleet.snapshots(machine, "files")) == 1


def test_a_wrong_host_key_ends_the_ping_before_a_byte_is_sent(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    other_key = fleet.sshds["primary"].new_key("not-the-host-key").with_suffix(".pub").read_text().rsplit(maxsplit=1)[0]
    before = fleet.query("SELECT ssh_ping_host_keys FROM fleet_storage WHERE name = 'primary'")[0][0]
    fleet.execute("UPDATE fleet_storage SET ssh_ping_host_keys = ? WHERE name = 'primary'", f'["{other_key}"]')
    try:
        completed = machine.ping(check=False)
    finally:
        fleet.execute("UPDATE fleet_storage SET ssh_ping_host_keys = ? WHERE name = 'primary'", before)
    assert completed.exit_code != 0
    assert fleet.runs(machine, "files") == []
    assert fleet.snapshots(machine, "files") == []
