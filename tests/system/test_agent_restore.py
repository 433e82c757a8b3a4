"""Whoever lost files gets them back with one command: ``turku-agent restore``, and looks at what there is before."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import xxhash
from tests.support import rich_tree
from tests.support.fleet import Fleet
from tests.support.trees import differences
from tests.system.conftest import MakeMachine

from turku.agent.config import loading as configuration
from turku.agent.restore.staging import target as targets
from turku.agent.restore.staging.staging_directory import StagingDirectory
from turku.core import command
from turku.core.command import CompletedProgram
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine

pytestmark = pytest.mark.both_rsyncs

EVERYTHING = range(256)


def agent(machine: PrivateMachine, *words: str | Path, codes: range = range(1)) -> CompletedProgram:
    subcommand, *rest = words
    return programs.run("turku-agent", subcommand, "--config-dir", machine.config_dir, *rest, expected_codes=codes)


def output(completed: CompletedProgram) -> str:
    return "\n".join((completed.stdout.decode(), *completed.last_lines))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tree = tmp_path / "home"
    tree.mkdir()
    rich_tree.make_rich_tree(tree)
    # Storages leave devices out unless they are told otherwise.
    (tree / "device").unlink(missing_ok=True)
    return tree


def copied(tree: Path, name: str = "original") -> Path:
    copy = tree.parent / name
    command.run(["cp", "-a", tree, copy], timeout_seconds=60)
    return copy


def test_all_of_it_comes_back_in_place_byte_for_byte(
    fleet: Fleet, make_machine: MakeMachine, home: Path, tmp_path: Path
) -> None:
    machine = make_machine({"home": {"path": str(home), "preserve_hard_links": True}})
    machine.ping()
    original = copied(home)
    command.run(["sh", "-c", 'chmod -R u+w "$0" && find "$0" -mindepth 1 -delete', home], timeout_seconds=60)

    nobody_asked = agent(machine, "restore", "home", "--in-place", codes=EVERYTHING)
    assert nobody_asked.exit_code == 64
    assert "--yes" in output(nobody_asked)
    assert list(home.iterdir()) == []

    result = agent(machine, "restore", "home", "--in-place", "--yes")

    assert differences(original, home) == []
    assert "verified by the checksums of the backup" in output(result)
    assert "NOT" not in output(result)


def test_the_staging_directory_of_a_restore_is_not_backed_up(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path
) -> None:
    # As a killed restore leaves it: what is in it is in the history, or stands for what is there and has no content.
    home = tmp_path / "home [*] \u00e9?\\"
    (home / "inner dir").mkdir(parents=True)
    (home / "file").write_text("mine")
    machine = make_machine({"home": {"path": str(home)}})
    machine.ping()
    for target in (home, home / "inner dir"):
        with (
            targets.locked(target) as descriptor,
            StagingDirectory.opened(configuration.load(machine.config_dir), descriptor, target, "order") as staging,
        ):
            (target / os.fsdecode(staging.name) / "tree" / "file").write_text("arrived")
    (home / ".turku-restore-notes").write_text("the user's own")
    assert output(agent(machine, "check")).count("a restore is running there, or did not end") == 2
    (home / "file").write_text("changed")
    fleet.make_due(machine)
    made = machine.ping()
    said = "\n".join(made.last_lines)
    assert said.count("is not backed up: it is the staging directory of a running or interrupted restore") == 2
    newest = fleet.snapshots(machine, "home")[-1]
    assert (newest / "file").read_text() == "changed"
    names = sorted(path.name for path in newest.rglob("*"))
    assert names == [".turku-restore-notes", "file", "inner dir"]


def test_history_is_browsed_and_parts_of_it_are_restored(
    fleet: Fleet, make_machine: MakeMachine, home: Path, tmp_path: Path
) -> None:
    machine = make_machine({"home": {"path": str(home)}, "other": {"path": str(tmp_path / "other")}})
    (tmp_path / "other").mkdir()
    machine.ping()
    [first] = [path.name for path in fleet.snapshots(machine, "home")]
    then = copied(home, "then")
    (home / "file").write_bytes(b"changed content")
    (home / "empty").unlink()
    (home / "new [name]*").write_bytes(b"new")
    fleet.make_due(machine, "home")
    machine.ping()
    now = copied(home, "now")
    second = next(path.name for path in fleet.snapshots(machine, "home") if path.name != first)

    def rows(*words: str) -> list[dict[str, Any]]:
        return list(json.loads(agent(machine, *words, "--json").stdout))

    assert [(row["source"], row["snapshot"]) for row in rows("snapshots", "home")] == [
        ("home", first),
        ("home", second),
    ]
    assert {row["source"] for row in rows("snapshots")} == {"home", "other"}
    assert [row["path"] for row in rows("ls", "home", "directory/deep")] == ["directory/deep/deeper"]
    assert "empty" in [row["path"] for row in rows("ls", f"home@{first}")]
    assert "empty" not in [row["path"] for row in rows("ls", "home")]
    assert {"b64": "Y2Fm6Q=="} in [row["path"] for row in rows("ls", "home")]
    versions = rows("versions", "home", str(home / "file"))
    assert [(row["first"], row["last"], row["size_bytes"]) for row in versions] == [
        (first, first, 7),
        (second, second, 15),
    ]
    assert versions[1]["checksum"] == xxhash.xxh128(b"changed content").hexdigest()
    assert [row["path"] for row in rows("find", "home", "*leaf*")] == ["directory/deep/deeper/leaf"]
    assert sorted((row["change"], row["path"]) for row in rows("diff", "home", first, "latest") if row["path"]) == [
        ("added", "new [name]*"),
        ("changed", "directory/same file"),
        ("changed", "file"),
        ("removed", "empty"),
    ]

    # Parts of it, of a snapshot and of a time, beside each other. Parents are as they were.
    part = tmp_path / "part"
    agent(machine, "restore", "home", "directory/deep", "file", "--snapshot", first, "--to", part)
    assert sorted(path.name for path in part.iterdir()) == ["directory", "file"]
    assert differences(then / "directory" / "deep", part / "directory" / "deep") == []
    assert (part / "file").read_bytes() == b"content"
    assert (part / "directory").stat().st_uid == (then / "directory").stat().st_uid
    assert (part / "directory").stat().st_mtime_ns == (then / "directory").stat().st_mtime_ns
    assert not (part / "directory" / "nothing").exists()

    odd = tmp_path / "odd"
    for name in (rich_tree.LATIN_1_NAME, rich_tree.NEWLINE_NAME, b"back\\slash", b"new [name]*", b"#hash;semi"):
        agent(machine, "restore", "home", os.fsdecode(name), "--to", odd, "--yes")
        assert (odd / os.fsdecode(name)).read_bytes() == (home / os.fsdecode(name)).read_bytes()
    assert len(list(odd.iterdir())) == 5

    # A new directory is made where none is named.
    made = programs_in(tmp_path / "here", machine, "restore", "home")
    [restored] = (tmp_path / "here").iterdir()
    assert restored.name == f"home-restored-{second.removeprefix('home_')}"
    assert differences(now, restored, "--no-hard-links") == []
    assert str(restored) in output(made)

    for words, code, said in (
        (("restore", "home", "fille", "--to", odd), 66, "there is file"),
        (("restore", "home", "directory/dep", "--to", odd), 66, "there is directory/deep"),
        (("restore", "home", "/etc/passwd", "--to", odd), 65, "is not in source home"),
        (("restore", "home", "../x", "--to", odd), 65, "'..'"),
        (("restore", "hom", "--to", odd), 66, "home"),
        (("restore", "home", "--snapshot", "home_20200101-000000_0000", "--to", odd), 66, "no snapshot"),
        (("restore", "home", "--at", "1999-01-01", "--to", odd), 66, first),
        (("restore", "home", "--at", "some day", "--to", odd), 65, "is not a valid time"),
        (("restore", "home", "--at", "now", "--snapshot", first, "--to", odd), 64, "not by both"),
        (("versions", "home", "never/there"), 66, "never/there"),
    ):
        refused = agent(machine, *words, codes=EVERYTHING)
        assert (refused.exit_code, said in output(refused)) == (code, True), output(refused)
    assert len(list(odd.iterdir())) == 5


def test_existing_files_are_overwritten_as_the_options_say(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    backed_up = copied(files)

    def change() -> None:
        shutil.rmtree(files)
        shutil.copytree(backed_up, files, symlinks=True)
        for name, hours in (("a.txt", +1), ("b.txt", -1)):
            moment = (backed_up / name).stat().st_mtime + hours * 3600
            (files / name).write_text(f"changed {name}\n")
            os.utime(files / name, (moment, moment))
        (files / "sub" / "more").write_text("more")
        (files / "more").write_text("more")

    def restored(*words: str) -> dict[str, str]:
        change()
        agent(machine, "restore", "files", *words, "--in-place", "--yes")
        assert not (files / ".turku-restore").exists()
        return {
            str(path.relative_to(files)): path.read_text()
            for path in files.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    kept = {"sub/c.txt": "c\n", "sub/more": "more", "more": "more"}
    assert restored() == {"a.txt": "a\n", "b.txt": "b\n", **kept}
    assert restored("--overwrite", "never") == {"a.txt": "changed a.txt\n", "b.txt": "changed b.txt\n", **kept}
    assert restored("--overwrite", "older") == {"a.txt": "changed a.txt\n", "b.txt": "b\n", **kept}
    assert restored("sub", "--delete") == {
        "a.txt": "changed a.txt\n",
        "b.txt": "changed b.txt\n",
        "sub/c.txt": "c\n",
        "more": "more",
    }
    assert restored("--delete") == {"a.txt": "a\n", "b.txt": "b\n", "sub/c.txt": "c\n"}

    # The directory itself is gone.
    shutil.rmtree(files)
    agent(machine, "restore", "files", "--in-place", "--yes")
    assert differences(backed_up, files) == []

    change()
    before = copied(files, "before")
    result = agent(machine, "restore", "files", "--delete", "--in-place", "--dry-run").stdout.decode().splitlines()
    assert sorted(result[:-1]) == ["delete  more", "delete  sub/more", "replace  a.txt", "replace  b.txt"]
    assert "Nothing was changed" in result[-1]
    assert differences(before, files) == []


def test_a_source_with_our_own_names_in_it_comes_back_whole(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    digits = "0123456789abcdef" * 2
    for name in (
        ".turku-restore",
        ".turku-restore-partial",
        f".turku-restore-{digits}",
        f"sub/.turku-restore-{digits}",
    ):
        (files / name).mkdir()
        (files / name / "file").write_text(name)
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    agent(machine, "restore", "files", "--to", tmp_path / "restored")
    assert differences(files, tmp_path / "restored") == []
    original = copied(files)
    for name in (".turku-restore", f"sub/.turku-restore-{digits}"):
        shutil.rmtree(files / name)
    agent(machine, "restore", "files", "--in-place", "--yes", "--delete")
    assert differences(original, files) == []


def test_an_existing_file_is_not_sent_again_and_stays_the_same_file(
    fleet: Fleet, make_machine: MakeMachine, home: Path
) -> None:
    machine = make_machine({"home": {"path": str(home), "preserve_hard_links": True}})
    machine.ping()
    original = copied(home)
    (home / "file").chmod(0o600)
    (home / "large").unlink()
    os.utime(home / "directory", (1, 1))
    before = {path: path.lstat().st_ino for path in home.rglob("*") if path.is_file() and path.stat().st_size}
    agent(machine, "restore", "home", "--in-place", "--yes")
    assert differences(original, home) == []
    assert before.items() <= {path: path.lstat().st_ino for path in home.rglob("*")}.items()


def test_a_file_damaged_at_the_storage_is_named_and_the_rest_comes_back(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    [snapshot] = fleet.snapshots(machine, "files")
    status = (snapshot / "a.txt").stat()
    (snapshot / "a.txt").write_text("A\n")
    os.utime(snapshot / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))

    target = tmp_path / "restored"
    result = agent(machine, "restore", "files", "--to", target, codes=EVERYTHING)
    assert result.exit_code == 3
    assert "[restore-incomplete]" in output(result)
    assert "a.txt is not what was backed up" in output(result)
    assert (target / "b.txt").read_text() == "b\n"

    # Nor is what is there already believed for its size and time.
    (target / "b.txt").write_text("B\n")
    os.utime(target / "b.txt", ns=((files / "b.txt").stat().st_atime_ns, (files / "b.txt").stat().st_mtime_ns))
    result = agent(machine, "restore", "files", "b.txt", "--to", target, "--yes", codes=EVERYTHING)
    assert (result.exit_code, "--compare-contents" in output(result)) == (3, True)
    agent(machine, "restore", "files", "b.txt", "--to", target, "--yes", "--compare-contents")
    assert (target / "b.txt").read_text() == "b\n"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
def test_owners_come_back_from_a_storage_that_keeps_them_in_attributes(
    fleet: Fleet, make_machine: MakeMachine, home: Path, tmp_path: Path
) -> None:
    storage = fleet.storage("attributes", fake_super=True)
    machine = fleet.machine("owned", {"home": {"path": str(home)}}, storage=storage)
    machine.ping()
    agent(machine, "restore", "home", "--to", tmp_path / "restored")
    assert differences(home, tmp_path / "restored", "--no-hard-links") == []
    agent(machine, "restore", "home", "directory/deep", "--to", tmp_path / "part")
    assert (tmp_path / "part" / "directory").stat().st_uid == 65534


def test_a_storage_may_keep_its_history_to_itself(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    storage = fleet.storage("closed", machines_see_history=False)
    machine = fleet.machine("kept-out", {"files": {"path": str(files)}}, storage=storage)
    machine.ping()
    for words in (("snapshots", "files"), ("restore", "files", "--to", str(tmp_path / "restored"))):
        refused = agent(machine, *words, codes=EVERYTHING)
        assert (refused.exit_code, "machines_see_history" in output(refused)) == (66, True)
    assert not (tmp_path / "restored").exists()


def programs_in(directory: Path, machine: PrivateMachine, *words: str) -> CompletedProgram:
    directory.mkdir()
    return command.run(
        [programs.DIRECTORY / "turku-agent", words[0], "--config-dir", machine.config_dir, *words[1:]],
        timeout_seconds=120,
        working_directory=directory,
    )
