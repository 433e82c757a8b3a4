"""The names in the output of ``ls`` are pasted into ``restore``, in terminals of any encoding."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from tests.support import odd_names
from tests.support.fleet import Fleet
from tests.support.odd_names import FLAT, content
from tests.system.conftest import MakeMachine

from turku.demo import programs

LINE = re.compile(r"\d\d:\d\d:\d\d[ \t]+(?:[0-9a-f]{12,32}[ \t]+\S+[ \t]+\S+[ \t]+)?(?P<path>.+)")
"""A row of ``ls``, or one of ``find``, which has a checksum and two snapshots more."""
ENVIRONMENTS = {
    "utf-8": {"LC_ALL": "C.UTF-8"},
    "latin-1": {"LC_ALL": "en_US.ISO-8859-1"},
    "latin-1 by Python": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
    "C": {"LANG": "C", "LC_ALL": ""},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def in_terminal(script: str, environment: dict[str, str]) -> bytes:
    """Return the output of a shell script in a terminal of 2,000 columns. Its exit code is 0."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", f"stty cols 2000 -onlcr; {script}"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        # The last one closed it.
        pass
    os.close(ours)
    assert process.wait(60) == 0, shown.decode("utf-8", "replace")
    return shown


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a locale whose encoding is latin-1."""
    directory = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", directory / "en_US.ISO-8859-1"],
        capture_output=True,
        check=False,
    )
    if not (directory / "en_US.ISO-8859-1").exists():
        pytest.skip(f"no such locale can be made here: {made.stderr!r}")
    return directory


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_name_that_was_printed_is_restored(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path, locales: Path, name: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    directory = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    odd_names.write(directory, FLAT)
    os.close(directory)
    machine = make_machine({"odd": {"path": str(source)}})
    machine.ping()
    path = f"{programs.DIRECTORY}:{os.environ['PATH']}"
    environment = {"PATH": path, "LOCPATH": str(locales), "TERM": "xterm", **ENVIRONMENTS[name]}
    of_machine = f"--config-dir '{machine.config_dir}'"
    for listed in (f"ls odd {of_machine}", f"ls odd {of_machine} | cat", f"find odd '*' {of_machine}"):
        shown = in_terminal(f"turku-agent {listed}", environment)
        # As a terminal of that encoding has it, and gives it back.
        lines = [LINE.search(line.decode("latin-1")) for line in shown.splitlines()]
        words = [found["path"].encode("latin-1").rstrip() for found in lines if found and " -> " not in found["path"]]
        assert len(words) == len(FLAT), listed
        target = tmp_path / f"restored {len(listed)}"
        script = os.fsencode(f"turku-agent restore odd --to '{target}' {of_machine} --yes ") + b" ".join(words)
        in_terminal(os.fsdecode(script), environment)
        opened = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        assert odd_names.read(opened, FLAT) == {each: content(each) for each in FLAT}
        os.close(opened)
