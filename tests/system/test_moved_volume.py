"""A storage's disk is dying: its volume is copied to another one, as docs/howto/lost-host.md says."""

import json
import shutil
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.trees import differences

from turku.core import command
from turku.demo import programs


def test_history_goes_on_from_a_copy_of_the_volume(fleet: Fleet, tmp_path: Path, files: Path) -> None:
    storage = fleet.storage("dying")
    machine = fleet.machine("on-a-dying-disk", {"files": {"path": str(files)}}, storage=storage)
    machine.ping()
    (files / "new.txt").write_text("new\n")
    fleet.make_due(machine)
    machine.ping()
    before = fleet.snapshots(machine, "files")
    assert len(before) == 2

    new = tmp_path / "new disk"
    command.run(["rsync", "-aHAX", "--numeric-ids", "--sparse", f"{storage.volume}/", f"{new}/"], timeout_seconds=60)
    shutil.rmtree(storage.volume)
    path = storage.config_dir / "config.d" / "storage.json"
    content = json.loads(path.read_text())
    content["volumes"]["volume"]["path"] = str(new)
    path.write_text(json.dumps(content))

    def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        ended = programs.run("turku-storage", *arguments, "--config-dir", str(storage.config_dir), expected_codes=codes)
        return "\n".join((ended.stdout.decode(), *ended.last_lines))

    assert "accept-volume" not in run("check", codes=(0, 1))
    run("verify", "--machine", machine.uuid)
    storage.update_config()
    (files / "newer.txt").write_text("newer\n")
    fleet.make_due(machine)
    machine.ping()
    first, second, third = (
        new / machine.uuid / "files.snapshots" / name.name for name in fleet.snapshots(machine, "files")
    )
    assert [first.name, second.name] == [path.name for path in before]
    assert len({(tree / "a.txt").stat().st_ino for tree in (first, second, third)}) == 1
    assert differences(files, third) == []
    [*_, latest] = fleet.runs(machine, "files")
    assert (latest["success"], latest["strategy"]) == (True, "incremental")
