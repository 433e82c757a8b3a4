"""Restore drills with a real rsync: what is restored is compared, tried by the operator's program, and removed."""

import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.support import rsync_programs
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core import command
from turku.core.configuration.declaration import with_values
from turku.storage.containment import bubblewrap
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import drill_record, scrub
from turku.storage.integrity.drill import drill
from turku.storage.integrity.drill_record import DrillResult
from turku.storage.integrity.scrub import ScrubShare

pytestmark = pytest.mark.storage_rsync


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        for number in range(30):
            directory = machine.source_dir / f"d{number % 3}"
            directory.mkdir(exist_ok=True)
            (directory / f"f{number}").write_bytes(os.urandom(2000))
        (machine.source_dir / "d0" / "link").symlink_to("f0")
        machine.days(2)
        scrub.verify(machine.place, zone=machine.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())
        yield machine


def make(machine: BackedUpMachine, **keys: Any) -> DrillResult:
    made = drill(with_values(machine.storage, **keys), machine.place)
    assert not list(machine.storage.integrity.drill_directory.iterdir()), "the scratch directory is gone"
    return made


def test_all_of_a_small_source_is_restored_and_compared(machine: BackedUpMachine) -> None:
    made = make(machine)
    assert made.problems == []
    assert (made.files, made.unchecked) == (32, 0)
    assert made.size_bytes >= 60_000
    assert made.snapshot == machine.snapshots()[-1]
    outcome = made.outcome(machine.storage.integrity)
    assert outcome.success
    assert outcome.valid_seconds == 45 * 86_400
    assert "32 files" in outcome.summary


def test_an_rsync_outside_the_system_directories_restores_too(machine: BackedUpMachine, tmp_path: Path) -> None:
    own = tmp_path / "opt" / "rsync"
    own.parent.mkdir()
    shutil.copy(rsync_programs.path_of(rsync_programs.chosen.storage), own)
    made = make(machine, rsync_command=(str(own),))
    assert made.problems == []
    assert made.files == 32


def test_the_drawn_files_are_bounded_and_the_declared_ones_are_always_there(machine: BackedUpMachine) -> None:
    made = make(machine, drill_files=5)
    assert made.files == 5
    made = make(machine, drill_bytes=4100, drill_paths={"etc": ("/d1",)})
    # d1 with its ten files, and two that fit. The diary and the link may come to them.
    assert 11 + 2 <= made.files <= 11 + 4
    made = make(machine, drill_paths={f"{machine.machine_dir.name}/etc": ("d0/f0", "nothing")})
    assert made.problems == ["nothing: declared in drill_paths, and not there"]


def test_a_read_error_that_is_over_a_moment_later_fails_no_drill(machine: BackedUpMachine, tmp_path: Path) -> None:
    real = rsync_programs.path_of(rsync_programs.chosen.storage)
    once = f'[ -e {tmp_path}/failed ] && exec "$0" "$@"; touch {tmp_path}/failed; "$0" --exclude=f3 "$@"; exit 23'
    made = make(machine, sandbox="off", rsync_command=("sh", "-c", once, str(real)))
    assert (tmp_path / "failed").exists()
    assert made.problems == []
    assert made.files == 32


def test_a_damaged_file_fails_it(machine: BackedUpMachine) -> None:
    path = machine.place.tree(machine.snapshots()[-1]) / "d0" / "f3"
    path.write_bytes(os.urandom(2000))
    made = make(machine)
    assert made.problems == ["d0/f3: its content is not what was backed up"]
    path.unlink()
    made = make(machine)
    assert any("d0/f3: was not restored" in problem for problem in made.problems)
    assert not made.outcome(machine.storage.integrity).success


def with_attributes(machine: BackedUpMachine) -> None:
    """Attributes and ACLs of every kind, backed up."""
    for words in (
        ["setfattr", "-n", "user.comment", "-v", "a note", "d0/f0"],
        ["setfattr", "-n", "security.capability", "-v", "0x0100000200200000000000000000000000000000", "d0/f3"],
        ["setfattr", "-n", "trusted.overlay", "-v", "y", "d0/f6"],
        ["setfacl", "-m", "u:1234:rw", "d0/f9"],
        ["setfacl", "-d", "-m", "u:1234:rw", "d1"],
    ):
        command.run(words, working_directory=machine.source_dir, timeout_seconds=60)
    assert machine.back_up().success


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set trusted and security attributes")
@pytest.mark.parametrize("fake_super", [False, True])
def test_attributes_and_acls_are_restored_and_compared(machine: BackedUpMachine, fake_super: bool) -> None:
    machine.storage = with_values(machine.storage, fake_super=fake_super)
    with_attributes(machine)
    made = make(machine, drill_paths={"etc": ("/d1",)})
    assert made.problems == []
    # Leave to set what is the overlay's is more than a drill is given.
    assert made.skipped_attributes == (0 if fake_super or not bubblewrap.is_contained(machine.storage.limits) else 1)
    for path, name in (("d0/f0", "user.comment"), ("d0/f9", "system.posix_acl_access"), ("d0/f3", None)):
        stored = machine.place.tree(machine.snapshots()[-1]) / path
        if name is not None and not fake_super:
            os.removexattr(stored, name)
        else:
            os.setxattr(stored, "user.other", b"x")
        assert f"{path}: its extended attributes or ACLs are not what was backed up" in make(machine).problems


def test_the_check_program_sees_what_was_restored_and_decides(machine: BackedUpMachine, tmp_path: Path) -> None:
    program = tmp_path / "check"
    secret = tmp_path / "secret"
    secret.write_text("not for the program")
    program.write_text(
        "#!/bin/sh\n"
        f"cat {secret} 2>/dev/null && exit 9\n"
        'echo "$TURKU_DRILL_SOURCE: $(ls "$TURKU_DRILL_DIRECTORY/d0" | wc -l) entries"\n'
    )
    program.chmod(0o755)
    made = make(machine, drill_check_program=(str(program),))
    assert made.problems == []
    assert made.check == "etc: 11 entries"
    program.write_text("#!/bin/sh\necho 'the database does not start'\nexit 3\n")
    made = make(machine, drill_check_program=(str(program),))
    assert made.problems == ["check program; ended with exit code 3; the database does not start"]
    program.write_text("#!/bin/sh\nsleep 60\n")
    made = make(machine, drill_check_program=(str(program),), drill_check_seconds=0.5)
    assert "did not end within 0.5 s" in made.problems[0]


def test_without_room_nothing_is_restored(machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    from turku.storage.integrity import drill as module

    monkeypatch.setattr(module, "SPARE_SHARE", 1.0)
    made = make(machine)
    assert made.files == 0
    assert "bytes free, and the drill needs" in made.problems[0]


def test_a_drill_is_due_once_in_its_days_and_sooner_after_a_failure(machine: BackedUpMachine) -> None:
    made = make(machine)
    now = made.end
    assert drill_record.is_due(machine.place, drill_days=30, now=now)
    drill_record.write(machine.place, made.outcome(machine.storage.integrity))
    assert not drill_record.is_due(machine.place, drill_days=30, now=now + timedelta(days=29))
    assert drill_record.is_due(machine.place, drill_days=30, now=now + timedelta(days=30))
    assert not drill_record.is_due(machine.place, drill_days=0, now=now + timedelta(days=300))
    made.problems.append("a file differs")
    drill_record.write(machine.place, made.outcome(machine.storage.integrity))
    assert not drill_record.is_due(machine.place, drill_days=30, now=now + timedelta(hours=23))
    assert drill_record.is_due(machine.place, drill_days=30, now=now + timedelta(hours=24))


def test_the_scratch_directory_may_lie_behind_a_link(machine: BackedUpMachine, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    made = drill(with_values(machine.storage, drill_directory=tmp_path / "link" / "drill"), machine.place)
    assert made.problems == []
    assert made.files == 32
    assert list((tmp_path / "elsewhere" / "drill").iterdir()) == []


@pytest.mark.parametrize("sandboxed", ["auto", "off"])
def test_the_tree_that_was_opened_is_the_one_that_is_restored(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, sandboxed: Literal["auto", "off"]
) -> None:
    tree = machine.place.tree(machine.snapshots()[-1])

    def swapped(directory: int, argv: Sequence[str]) -> list[str]:
        tree.rename(tree.with_name("moved"))
        tree.mkdir()
        (tree / "planted").write_text("another machine's")
        return confirmed(directory, argv)

    confirmed = bubblewrap.in_same_directory
    monkeypatch.setattr(bubblewrap, "in_same_directory", swapped)
    made = make(machine, sandbox=sandboxed)
    if sandboxed == "off":
        # It starts in the open directory, whatever has its name.
        assert made.problems == []
    else:
        assert "the directory to work in was replaced meanwhile" in made.problems[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
@pytest.mark.parametrize("keys", [{"keep_devices": True}, {"fake_super": True}])
def test_device_nodes_that_are_kept_fail_no_drill(machine: BackedUpMachine, keys: dict[str, bool]) -> None:
    machine.storage = with_values(machine.storage, **keys)
    os.mknod(machine.source_dir / "d0" / "null", 0o20666, os.makedev(1, 3))
    assert machine.back_up().success
    made = make(machine, drill_paths={"etc": ("/",)})
    assert made.problems == []
    # Of a snapshot that has them nevertheless.
    made = make(machine, drill_paths={"etc": ("/",)}, keep_devices=False)
    assert made.problems == []
