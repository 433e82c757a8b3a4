"""An rsync is asked whether it knows xxh128."""

from pathlib import Path

from turku.protocol.rsync_checksums import knows_xxh128


def program(path: Path, script: str) -> list[str]:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [str(path)]


def test_an_rsync_with_xxh128_is_known_by_its_version_text(tmp_path: Path) -> None:
    assert knows_xxh128(program(tmp_path / "new", "echo 'Checksum list: xxh128 md5'"))
    assert not knows_xxh128(program(tmp_path / "old", "echo 'rsync version 3.1.3'"))


def test_an_rsync_that_fails_is_asked_again_by_the_next_call(tmp_path: Path) -> None:
    command = program(tmp_path / "rsync", "exit 1")
    assert not knows_xxh128(command)
    program(tmp_path / "rsync", "echo xxh128")
    assert knows_xxh128(command)
