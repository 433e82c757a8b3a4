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

    assert len(recorder.calls("ssh")) == 1
    assert len(recorder.calls("rsyncd")) == 1
    for number in range(20):
        [snapshot] = fleet.snapshots(machine, f"source-{number:02}")
        assert (snapshot / "number").read_text() == f"{number}\n"
    assert fleet.source_names(machine) == sorted(sources)
