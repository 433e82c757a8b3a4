"""Entries that changed lately, named by the installed agent to installed storages over a real ssh."""

import json
import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.recorder import Recorder
from tests.support.trees import snapshot_differences

from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage
from turku.protocol.machine.changed_entries_messages import CHANGED_ENTRIES_WANTED

pytestmark = pytest.mark.xdist_group("system-changed-entries")

WAITING = """\
    from turku.storage.session import checkin
    original = checkin.Checkin._back_up_and_report
    def one(self, api, directory, name, order):
        hint = self.agent.reported.of_source(name, 60)
        named = None if hint is None else [hint.since_ns, [path.decode("latin-1") for path in hint.paths]]
        with open({hints!r}, "a") as stream:
            stream.write(json.dumps([name, self.request.moment_ns or 0, named]) + "\\n")
        original(self, api, directory, name, order)
    checkin.Checkin._back_up_and_report = one
"""
EARLIER_RELEASE = """\
    from turku.storage.session import server
    server._ask_for_changed_entries = lambda request: ()
"""


def forced_command(directory: Path, change: str) -> str:
    """A program in place of the installed one, with a change to it."""
    script = directory / "forced-command"
    script.write_text(
        f"#!{sys.executable}\nimport json\n{textwrap.dedent(change)}\nfrom turku.storage import cli\ncli.ping_entry()\n"
    )
    script.chmod(0o755)
    return str(script)


class Cast:
    """A storage with a change to its forced command, and a machine whose ssh is recorded."""

    def __init__(self, fleet: Fleet, directory: Path, name: str, change: str, trees: dict[str, Path]) -> None:
        self.fleet = fleet
        self.notes = Recorder(directory / "notes")
        storage_dir = fleet.directory / name
        program = f"{forced_command(directory, change)} --config-dir {storage_dir / 'etc'}"
        self.storage: PrivateStorage = fleet.storage(name, authorized_keys_command=program)
        self.machine: PrivateMachine = fleet.machine(
            f"{name}-machine",
            {name: {"path": str(tree)} for name, tree in trees.items()},
            storage=self.storage,
            ssh_command=self.notes.ssh_command,
        )

    def ping(self) -> str:
        """Back up all sources, and return the agent's output."""
        self.fleet.make_due(self.machine)
        completed = self.machine.ping()
        return "\n".join(completed.last_lines)

    def sent(self) -> list[dict[str, Any]]:
        """Return the lines that the agent sent in its last session, without the end of the request."""
        lines = self.notes.calls("ssh")[-1]["stdin"].splitlines()
        assert lines[1] == "."
        return [json.loads(line) for line in (lines[0], *lines[2:])]


@pytest.fixture
def trees(tmp_path: Path) -> dict[str, Path]:
    trees = {name: tmp_path / "trees" / name for name in ("one", "two")}
    for tree in trees.values():
        (tree / "sub").mkdir(parents=True)
        for number in range(3):
            (tree / f"sub/file{number}").write_text(f"{number}")
    # Later than the margin from here on.
    time.sleep(2.1)
    return trees


def test_a_storage_that_asks_gets_the_changes_since_the_session_before(
    fleet: Fleet, tmp_path: Path, trees: dict[str, Path]
) -> None:
    hints = tmp_path / "hints"
    cast = Cast(fleet, tmp_path, "asking", WAITING.format(hints=str(hints)), trees)
    shown = cast.ping()
    time.sleep(2.1)
    os.setxattr(trees["one"] / "sub/file1", "user.colour", b"blue")
    (trees["two"] / os.fsdecode(b"\xff")).touch()
    shown += cast.ping()
    assert CHANGED_ENTRIES_WANTED not in shown
    reported = [json.loads(line) for line in hints.read_text().splitlines()]
    first, second = reported[:2], reported[2:]
    assert {name: hint for name, _moment, hint in first} == {"one": None, "two": None}
    (first_moment,) = {moment for _name, moment, _hint in first}
    since_ns = first_moment - 2_000_000_000
    assert {name: hint for name, _moment, hint in second} == {
        "one": [since_ns, ["sub/file1"]],
        "two": [since_ns, [".", "\xff"]],
    }
    for name, tree in trees.items():
        assert snapshot_differences(tree, fleet.snapshots(cast.machine, name)[-1]) == []


def test_rsync_is_asked_for_holes_where_the_machine_has_some(
    fleet: Fleet, tmp_path: Path, trees: dict[str, Path]
) -> None:
    hints = tmp_path / "hints"
    cast = Cast(fleet, tmp_path, "holes", WAITING.format(hints=str(hints)), trees)
    (trees["one"] / "zeros").write_bytes(bytes(2_000_000))
    (trees["one"] / "hole").touch()
    os.truncate(trees["one"] / "hole", 2_000_000)
    for day in range(2):
        cast.ping()
        tree = fleet.snapshots(cast.machine, "one")[-1]
        assert snapshot_differences(trees["one"], tree) == []
        for name in ("zeros", f"zeros {day}"):
            if (trees["one"] / name).exists():
                # Asked for all files, rsync would have made a hole of it.
                assert (tree / name).stat().st_blocks * 512 >= 2_000_000
                assert (tree / name.replace("zeros", "hole")).stat().st_blocks * 512 < 100_000
        (trees["one"] / "zeros 1").write_bytes(bytes(2_000_000))
        (trees["one"] / "hole 1").touch()
        os.truncate(trees["one"] / "hole 1", 2_000_000)
    assert [run["strategy"] for run in fleet.runs(cast.machine, "one")] == ["full", "incremental"]


def test_a_storage_of_an_earlier_release_is_sent_nothing_after_the_request(
    fleet: Fleet, tmp_path: Path, trees: dict[str, Path]
) -> None:
    cast = Cast(fleet, tmp_path, "earlier", EARLIER_RELEASE, trees)
    for _ in range(2):
        cast.ping()
        (request,) = cast.sent()
        assert isinstance(request["moment_ns"], int)
        (trees["one"] / "sub/file1").chmod(0o600)
    assert [run["success"] for run in fleet.runs(cast.machine, "one")] == [True, True]


def test_an_agent_of_an_earlier_release_is_asked_nothing(fleet: Fleet, tmp_path: Path, trees: dict[str, Path]) -> None:
    hints = tmp_path / "hints"
    cast = Cast(fleet, tmp_path, "asking-nobody", WAITING.format(hints=str(hints)), trees)
    script = tmp_path / "ssh-without-moment"
    # Its request has no moment.
    script.write_text(
        f"#!{sys.executable}\nimport json, os, subprocess, sys\n"
        "line = sys.stdin.buffer.readline()\nrequest = json.loads(line)\ndel request['moment_ns']\n"
        "child = subprocess.Popen(['ssh', *sys.argv[1:]], stdin=subprocess.PIPE)\n"
        "child.stdin.write(json.dumps(request).encode() + b'\\n.\\n')\nchild.stdin.flush()\nsys.exit(child.wait())\n"
    )
    script.chmod(0o755)
    configuration = json.loads((cast.machine.config_dir / "config.d/agent.json").read_text())
    configuration["ssh_command"] = [str(script)]
    (cast.machine.config_dir / "config.d/agent.json").write_text(json.dumps(configuration))
    hints.write_text("")
    begun = time.monotonic()
    shown = cast.ping()
    assert time.monotonic() - begun < 50
    assert CHANGED_ENTRIES_WANTED not in shown
    assert [run["success"] for run in fleet.runs(cast.machine, "one")] == [True]
