"""Whatever can be backed up can be restored: paths as long as the system has them, into a directory of any path."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.support import odd_names
from tests.support.fleet import Fleet
from tests.support.odd_names import content

from turku.core import command
from turku.demo import programs

EVERYTHING = range(256)
PARTLY = 3
NOBODY = 65534
LENGTHS = (3900, 4080, 4085, 4090, 4094, 4095)


def long_path(length: int) -> bytes:
    parts = []
    while length > 250:
        parts.append(b"d" * 200)
        length -= 201
    return b"/".join([*parts, b"f" * length])


NAMES = (b"short", *map(long_path, LENGTHS))


def kept(target: Path) -> dict[bytes, bytes]:
    directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return odd_names.read(directory, NAMES)
    finally:
        os.close(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="restores as another user")
def test_long_paths_come_back_as_root_and_as_an_ordinary_user() -> None:
    # Where other users can get at it.
    directory = Path(tempfile.mkdtemp(prefix="turku-long-"))
    try:
        directory.chmod(0o711)
        source = directory / "source"
        source.mkdir()
        opened = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        odd_names.write(opened, NAMES)
        os.close(opened)
        everything = {name: content(name) for name in NAMES}
        with Fleet(directory / "fleet") as fleet:
            fleet.directory.chmod(0o711)
            fleet.storage("primary")
            machine = fleet.machine("web-0", {"home": {"path": str(source)}})
            machine.ping()
            words: list[str | Path] = ["restore", "--config-dir", machine.config_dir, "home"]
            deep = directory.joinpath(*["t" * 250] * 4)
            programs.run("turku-agent", *words, "--to", deep / "all")
            assert kept(deep / "all") == everything
            (source / "short").unlink()
            programs.run("turku-agent", *words, "--in-place", "--yes")
            assert kept(source) == everything

            # By name: rsync takes no argument as long as the longest paths are. All others come.
            named = [os.fsdecode(name) for name in NAMES]
            some = programs.run("turku-agent", *words, "--to", directory / "some", *named, expected_codes=EVERYTHING)
            assert some.exit_code == PARTLY
            assert "is too long to be restored by its name" in "\n".join(some.last_lines)
            assert set(everything) - set(kept(directory / "some")) == set(map(long_path, LENGTHS[-3:]))
            above = os.fsdecode(NAMES[-1].rpartition(b"/")[0])
            programs.run("turku-agent", *words, "--to", directory / "above", above)
            assert kept(directory / "above")[NAMES[-1]] == everything[NAMES[-1]]

            theirs = directory / "theirs"
            theirs.mkdir()
            command.run(["chown", "-R", f"{NOBODY}:{NOBODY}", machine.config_dir.parent, theirs], timeout_seconds=60)
            user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            agent = programs.DIRECTORY / "turku-agent"
            target = theirs.joinpath(*["t" * 250] * 4)
            made = command.run([*user, agent, *words, "--to", target], timeout_seconds=120, check=False)
            assert made.exit_code == 0, made.last_lines
            assert kept(target) == everything
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        command.run(["rm", "-rf", directory], timeout_seconds=60)
