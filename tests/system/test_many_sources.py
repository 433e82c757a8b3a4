"""Twenty sources due in one ping."""

from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.recorder import Recorder
from tests.system.conftest import MakeMachine


def test_twenty_sources_share_one_tunnel(fleet: Fleet, make_machine: MakeMachine, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "notes")
    sources = {}
    for number in range(20):
        tree = tmp_path / f"tree-{number:02}"
        tree.mkdir()
        (tree / "number").write_text(f"{number}\n")
        sources[f"source-{number:02}"] = {"path": str(tree)}
    machine = make_machine(sources, ssh_command=recorder.ssh_command, rsyncd_command=recorder.rsyncd_command)

    machine.ping()

    # A drawn port that another program of the storage's host has taken ends a session, and the agent draws again.
    [session] = [call for call in recorder.calls("ssh") if call["exit_code"] == 0]
    assert all(f'"{name}"' in session["stdin"] for name in sources)
    assert len(recorder.calls("rsyncd")) == len(recorder.calls("ssh"))
    for number in range(20):
        [snapshot] = fleet.snapshots(machine, f"source-{number:02}")
        assert (snapshot / "number").read_text() == f"{number}\n"
    assert fleet.source_names(machine) == sorted(sources)
