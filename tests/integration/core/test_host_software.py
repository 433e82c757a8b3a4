"""Versions of programs are asked once for each file, and the running system differs with each boot."""

import os
from pathlib import Path

import pytest

from turku import __version__
from turku.core.kernel import host_software, running_system
from turku.core.kernel.host_software import KnownProgram


@pytest.fixture
def rsync(tmp_path: Path) -> Path:
    """A program that says its version, and counts how often it was asked."""
    program = tmp_path / "rsync"
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\necho 'rsync  version 3.5.0  protocol version 32'\n")
    program.chmod(0o755)
    return program


def asked(program: Path) -> int:
    path = program.parent / "asked"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_program_is_asked_again_when_its_file_changed(rsync: Path) -> None:
    known: dict[str, KnownProgram] = {}
    for _ in range(3):
        found, known = host_software.versions({"rsync": [str(rsync)]}, known)
    assert (found["rsync"], found["turku"], asked(rsync)) == ("3.5.0", __version__, 1)
    os.utime(rsync, ns=(1, 1))
    host_software.versions({"rsync": [str(rsync)]}, known)
    assert asked(rsync) == 2


def test_a_program_that_is_not_there_or_says_nothing_is_left_out(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    found, known = host_software.versions({"rsync": [str(silent)], "ssh": [str(tmp_path / "none")]}, {})
    assert found.keys() == {"turku", "python", "os"}
    assert known == {}


def test_the_real_ssh_says_its_version() -> None:
    assert host_software.versions({"ssh": ["ssh"]}, {})[0]["ssh"][0].isdigit()


def test_the_running_system_is_the_same_until_the_next_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = running_system.running_system()
    assert first == running_system.running_system() != ""
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(running_system, "_BOOT", boot)
    monkeypatch.setattr(running_system, "_PROCESS_IDS", tmp_path / "none")
    second = running_system.running_system()
    monkeypatch.setattr(running_system, "_FIRST_PROCESS", tmp_path / "none")
    third = running_system.running_system()
    boot.unlink()
    assert len({first, second, third}) == 3
    assert running_system.running_system() == ""


def test_a_container_is_told_apart_without_the_id_of_the_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A unit with ProtectKernelTunables= sees another one there.
    monkeypatch.setattr(running_system, "_PROCESS_IDS", tmp_path)
    first = running_system.running_system()
    assert first.startswith(f"{tmp_path.stat().st_ino}.")
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(running_system, "_BOOT", tmp_path / "boot_id")
    assert running_system.running_system() == first
