"""A file that a storage has lost is named and counted in a restore, costs nothing else, and takes nothing with it."""

import shutil
from pathlib import Path

from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine

from turku.core.command import CompletedProgram
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine

EVERYTHING = range(256)
PARTLY = 3


def agent(machine: PrivateMachine, *words: str | Path) -> CompletedProgram:
    subcommand, *rest = words
    arguments = ("--config-dir", machine.config_dir, *rest)
    return programs.run("turku-agent", subcommand, *arguments, expected_codes=EVERYTHING)


def output(completed: CompletedProgram) -> str:
    return "\n".join((completed.stdout.decode(), *completed.last_lines))


def backed_up(make_machine: MakeMachine, source: Path) -> PrivateMachine:
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "sub" / "empty").mkdir()
    for number in range(10):
        (source / f"file {number}").write_text(f"content {number}")
    for name in ("one", "two"):
        (source / "sub" / "deep" / name).write_text(name)
    machine = make_machine({"home": {"path": str(source)}})
    machine.ping()
    return machine


def test_a_lost_file_is_named_though_another_one_came(fleet: Fleet, make_machine: MakeMachine, tmp_path: Path) -> None:
    source = tmp_path / "home"
    machine = backed_up(make_machine, source)
    [snapshot] = fleet.snapshots(machine, "home")
    (snapshot / "file 7").unlink()
    # As something else left it there: the number of files is the announced one.
    (snapshot / "file 7.damaged").write_text("content?")

    restored = agent(machine, "restore", "home", "--to", tmp_path / "all")
    assert restored.exit_code == PARTLY, output(restored)
    assert "file 7 is lost" in output(restored)
    assert (tmp_path / "all" / "file 8").read_text() == "content 8"

    preview = agent(machine, "restore", "home", "--to", tmp_path / "other", "--dry-run")
    assert "lost  'file 7'\n" in output(preview)
    assert "create  'file 7'\n" not in output(preview)
    assert "1 are LOST" in output(preview)

    # Asked for by its name, with another one and alone.
    some = agent(machine, "restore", "home", "file 7", "file 6", "--to", tmp_path / "some")
    assert some.exit_code == PARTLY, output(some)
    assert "file 7 is lost" in output(some)
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["file 6"]
    alone = agent(machine, "restore", "home", "file 7", "--to", tmp_path / "alone")
    assert alone.exit_code not in (0, PARTLY)
    assert "file 7 is lost" in output(alone)


def test_lost_directories_are_named(fleet: Fleet, make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = backed_up(make_machine, tmp_path / "home")
    [snapshot] = fleet.snapshots(machine, "home")
    (snapshot / "sub" / "empty").rmdir()
    restored = agent(machine, "restore", "home", "--to", tmp_path / "first")
    assert (restored.exit_code, "sub/empty is lost" in output(restored)) == (PARTLY, True), output(restored)

    shutil.rmtree(snapshot / "sub" / "deep")
    restored = agent(machine, "restore", "home", "sub", "--to", tmp_path / "second")
    assert restored.exit_code == PARTLY
    for name in ("sub/empty", "sub/deep", "sub/deep/one", "sub/deep/two"):
        assert f"{name} is lost" in output(restored), output(restored)


def test_a_file_that_the_storage_lost_is_not_deleted_here_either(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path
) -> None:
    source = tmp_path / "home"
    machine = backed_up(make_machine, source)
    [snapshot] = fleet.snapshots(machine, "home")
    (snapshot / "file 7").unlink()
    (source / "file 1").write_text("changed since")
    for words in ((), ("--overwrite", "older"), ("--overwrite", "never")):
        restored = agent(machine, "restore", "home", "--in-place", "--delete", "--yes", *words)
        assert restored.exit_code == PARTLY, output(restored)
        assert "file 7 is lost" in output(restored)
        assert "nothing was deleted" in output(restored)
        assert (source / "file 7").read_text() == "content 7"
