"""Restore mode: what the operator reads, and writing back through the tunnel with it."""

import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Machine, end, wait_for
from tests.support.v1_server import V1Api

from turku.errors import StorageNotTrusted

SAMPLE = re.compile(
    r"    RSYNC_PASSWORD=(?P<password>[A-Za-z0-9]{30}) rsync -avzP --numeric-ids \$\{P\?\}/ \\\n"
    r"        (?P<url>rsync://[-0-9a-f]{36}@127\.0\.0\.1:(?P<port>\d+)/turku-restore/)\n"
)


class Operator:
    """Somebody at the machine's terminal, whose output goes to files that may be read meanwhile."""

    def __init__(self, machine: Machine, directory: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self._stdout, self._stderr = directory / "stdout", directory / "stderr"
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self.process = machine.start(
                "turku-agent-ping", "--restore", *arguments, stdin=stdin, stdout=stdout, stderr=stderr
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def wait_until_active(self) -> re.Match[str]:
        wait_for(lambda: "Good luck." in self.stderr or self.process.poll() is not None)
        sample = SAMPLE.search(self.stdout)
        assert sample is not None, self.stdout + self.stderr
        return sample


@pytest.fixture
def source(machine: Machine, tmp_path: Path) -> Path:
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "file").write_text("precious")
    machine.source("baremetal", tree)
    machine.register()
    return tree


@pytest.fixture
def operator(machine: Machine, source: Path, tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(machine, tmp_path, stdin=subprocess.PIPE)
    try:
        yield operator
    finally:
        end(operator.process)


def write_back(sample: re.Match[str], tree: Path) -> subprocess.CompletedProcess[str]:
    """Restore on the storage, as an operator does."""
    return subprocess.run(
        ["rsync", "-aP", "--numeric-ids", f"{tree}/", sample["url"]],
        env={**os.environ, "RSYNC_PASSWORD": sample["password"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_operator_reads_what_the_seed_shows(machine: Machine, operator: Operator, tmp_path: Path) -> None:
    sample = operator.wait_until_active()
    assert operator.stdout == (
        "Entering restore mode.\n"
        "\n"
        "This machine's sources are on the following storage units:\n"
        "    primary\n"
        "        baremetal\n"
        "\n"
        f"Machine UUID: {machine.uuid}\n"
        "Machine unit: examplemachine\n"
        "Storage unit: primary\n"
        f"Local destination path: {tmp_path / 'restored'}\n"
        "Sample restore usage from storage unit:\n"
        f"    cd /var/lib/turku-storage/machines/{machine.uuid}/\n"
        f"{sample[0]}"
        "\n"
    )
    assert re.fullmatch(
        rf"\[[-0-9]{{10}} [0-9:,]{{12}} primary\] INFO: Restore mode active on port {sample['port']}\.  Good luck\.\n",
        operator.stderr,
    )


def test_files_are_written_back_through_the_tunnel(
    machine: Machine, operator: Operator, source: Path, tmp_path: Path
) -> None:
    (source / "link").symlink_to("/etc/hostname")
    sample = operator.wait_until_active()
    written = write_back(sample, source)
    assert written.returncode == 0, written.stderr
    restored = tmp_path / "restored"
    assert (restored / "file").read_text() == "precious"
    assert stat.S_IMODE(restored.stat().st_mode) == 0o755  # as the tree that was written over it
    if os.geteuid() == 0:
        assert os.readlink(restored / "link") == "/etc/hostname"


def test_the_end_of_input_ends_restore_mode_on_both_sides(machine: Machine, operator: Operator) -> None:
    operator.wait_until_active()
    assert stat.S_IMODE((machine.directory / "restored").stat().st_mode) == 0o700
    assert operator.process.stdin is not None
    operator.process.stdin.close()
    assert operator.process.wait(timeout=20) == 0
    wait_for(lambda: machine.processes() == [])
    assert (machine.volume / "primary/restore-ended").exists()


def test_an_interrupt_ends_restore_mode(machine: Machine, operator: Operator) -> None:
    operator.wait_until_active()
    operator.process.send_signal(signal.SIGINT)
    assert operator.process.wait(timeout=20) == 0
    wait_for(lambda: machine.processes() == [])
    assert "Traceback" not in operator.stderr


def test_credentials_of_one_session_open_no_other(machine: Machine, operator: Operator, source: Path) -> None:
    sample = operator.wait_until_active()
    wrong = re.match(r"(?P<password>)(?P<url>)", "")
    assert wrong is not None
    refused = subprocess.run(
        ["rsync", f"{source}/file", sample["url"]],
        env={**os.environ, "RSYNC_PASSWORD": "x" * 30},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 5
    assert "auth failed" in refused.stderr


def test_a_backup_runs_beside_an_open_restore_mode(machine: Machine, api: V1Api, operator: Operator) -> None:
    operator.wait_until_active()
    assert machine.ping().returncode == 0
    assert api.reports["baremetal"]["success"]
    assert operator.process.poll() is None


def test_several_storages_must_be_told_apart(machine: Machine, api: V1Api, source: Path, tmp_path: Path) -> None:
    api.storages["second"] = dict(api.storages["primary"])
    api.placed["other"] = "second"
    machine.source("other", source)
    machine.register()
    unclear = machine.ping("--restore")
    assert unclear.returncode == 64
    assert "        baremetal\n    second\n        other\n" in unclear.stdout
    assert "several storages: primary, second" in unclear.stderr
    unknown = machine.ping("--restore", "--restore-storage", "third")
    assert unknown.returncode == 64
    assert "no source on a storage named 'third'; there are: primary, second" in unknown.stderr
    operator = Operator(machine, tmp_path, "--restore-storage", "second")
    try:
        operator.wait_until_active()
        assert "Storage unit: second\n" in operator.stdout
    finally:
        end(operator.process)


def test_a_restore_from_an_unreachable_storage_shows_no_credentials(machine: Machine, api: V1Api, source: Path) -> None:
    api.storages["primary"]["ssh_ping_host_keys"] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3bFZ6mA0oSg3eV1kLxJXqKZb1c0wqk2P8oZ4n5c3dF"
    ]
    restore = machine.ping("--restore")
    assert restore.returncode == StorageNotTrusted.exit_code
    assert "another host answers at its address" in restore.stderr
    assert "RSYNC_PASSWORD" not in restore.stdout
