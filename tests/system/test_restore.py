"""Step 6 of a backup's life: the machine opens itself for a restore, and the storage's operator sends files."""

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
from turku.errors import CommandFailed


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
