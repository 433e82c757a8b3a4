"""Step 6 of a backup's life: the machine opens itself for a restore, and the storage's operator sends files."""

import json
import re
import socket
import time
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.restore_mode import restore_mode
from tests.support.trees import differences
from tests.system.conftest import MakeMachine

from turku.core import command
from turku.demo import programs
from turku.errors import ApiUnreachable, CommandFailed, StorageNotTrusted

OTHER_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3bFZ6mA0oSg3eV1kLxJXqKZb1c0wqk2P8oZ4n5c3dF"


def test_step_6_restore_mode_says_what_the_operator_needs_and_takes_the_files(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}}, environment_name="testing", service_name="restores")
    machine.ping()
    [snapshot] = fleet.snapshots(machine, "files")
    storage = fleet.storage_of(machine)

    with restore_mode(machine) as mode:
        port = int(mode.address.rsplit(":", maxsplit=1)[1].split("/")[0])
        sent = mode.send(snapshot)
        with pytest.raises(CommandFailed, match="exit code"):
            command.run(
                ["rsync", "-a", f"{snapshot}/", mode.address],
                timeout_seconds=30,
                extra_environment={"RSYNC_PASSWORD": "guessed"},
            )

    text = "\n".join(mode.lines)
    expected = (
        "Entering restore mode.",
        "This machine's sources are on the following storage units:",
        "    primary",
        "        files",
        f"Machine UUID: {machine.uuid}",
        "Machine environment: testing",
        "Machine service: restores",
        f"Machine unit: {machine.unit_name}",
        "Storage unit: primary",
        f"Local destination path: {machine.restore_path}",
        "Sample restore usage from storage unit:",
    )
    positions = [mode.lines.index(line) for line in expected]
    assert positions == sorted(positions)
    assert f"    cd /var/lib/turku-storage/machines/{machine.uuid}/" in mode.lines or (
        f"    cd {storage.machine_directory(machine.uuid)}/" in mode.lines
    )
    assert re.search(
        r"^    RSYNC_PASSWORD=[A-Za-z0-9]{30} rsync -avzP --numeric-ids \$\{P\?\}/ \\\n"
        r"        rsync://[0-9a-f-]{36}@127\.0\.0\.1:\d+/turku-restore/$",
        text,
        re.MULTILINE,
    )
    assert f"Restore mode active on port {port}.  Good luck." in text
    assert sent.exit_code == 0
    assert differences(files, machine.restore_path) == []


def test_step_6_the_way_in_is_closed_when_the_machine_ends_the_mode(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    with restore_mode(machine) as mode:
        port = int(mode.address.rsplit(":", maxsplit=1)[1].split("/")[0])
        socket.create_connection(("127.0.0.1", port), 5).close()
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_step_6_a_storage_sends_files_while_the_coordinator_is_away(fleet: Fleet, files: Path) -> None:
    machine = fleet.machine("without-coordinator", {"files": {"path": str(files)}})
    machine.ping()
    [snapshot] = fleet.snapshots(machine, "files")
    fleet.coordinator.stop()
    try:
        with restore_mode(machine) as mode:
            sent = mode.send(snapshot)
        assert any(line.startswith("The coordinator is of no help: ") for line in mode.lines)
        assert "These are the storages that it named last." in "\n".join(mode.lines)
        assert sent.exit_code == 0
        assert differences(files, machine.restore_path) == []
        # Whoever changed the record gets nothing: the host key is not that of the storage that the machine trusts.
        record = machine.var_dir / "last_storages.json"
        content = json.loads(record.read_text())
        content["files"]["ssh_ping_host_keys"] = [OTHER_HOST_KEY]
        record.write_text(json.dumps(content))
        refused = programs.run(
            *("turku-agent-ping", "--config-dir", machine.config_dir, "--restore"), expected_codes=range(1, 256)
        )
        assert refused.exit_code == StorageNotTrusted.exit_code
        record.unlink()
        unknown = programs.run(
            *("turku-agent-ping", "--config-dir", machine.config_dir, "--restore"), expected_codes=range(1, 256)
        )
        assert unknown.exit_code == ApiUnreachable.exit_code
    finally:
        fleet.coordinator.start()


def test_step_6_the_storage_may_be_named(fleet: Fleet, make_machine: MakeMachine, files: Path) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    with restore_mode(machine, "--restore-storage", "primary") as mode:
        assert "Storage unit: primary" in mode.lines
    completed = programs.run(
        *("turku-agent-ping", "--config-dir", machine.config_dir, "--restore", "--restore-storage", "elsewhere"),
        expected_codes=range(1, 256),
    )
    assert "elsewhere" in "\n".join((completed.stdout.decode(), *completed.last_lines))
    assert "primary" in "\n".join((completed.stdout.decode(), *completed.last_lines))
