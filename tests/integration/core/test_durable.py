"""Files that must survive: whole or not there, private, and never through a planted link."""

import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from turku.core import command, durable
from turku.errors import DurableWriteFailed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    durable.write_json(path, {"b": 1, "a": "é"})
    durable.write_json(path, {"b": 2, "a": "é"})
    assert path.read_text() == '{\n    "a": "\\u00e9",\n    "b": 2\n}\n'
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_mode_that_is_asked_for_is_given_whatever_the_umask(tmp_path: Path) -> None:
    os.umask(0o077)
    durable.write_text(tmp_path / "key.pub", "ssh-ed25519 AAAA turku\n", mode=0o644)
    assert mode(tmp_path / "key.pub") == 0o644


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away: needs root")
def test_root_writes_for_another_user(tmp_path: Path) -> None:
    durable.write_text(tmp_path / "authorized_keys", "", owner=(1234, 1235))
    status = (tmp_path / "authorized_keys").stat()
    assert (status.st_uid, status.st_gid, mode(tmp_path / "authorized_keys")) == (1234, 1235, 0o600)


def test_a_planted_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path = tmp_path / "state"
    path.symlink_to(victim)
    durable.write_text(path, "new")
    assert victim.read_text() == "untouched"
    assert not path.is_symlink()


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DurableWriteFailed, match=r"cannot write .*File too large"):
            durable.write_bytes(path, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_directory_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DurableWriteFailed, match="No such file or directory") as failed:
        durable.write_text(tmp_path / "missing" / "state", "x")
    assert failed.value.hint


@pytest.mark.parametrize(
    "name",
    ["é" * 127, "x" * 255, "\N{PILE OF POO}" * 63, os.fsdecode(b"\xe9" * 255)],
    ids=["two bytes a character", "one byte a character", "four bytes a character", "not UTF-8"],
)
def test_the_longest_names_that_the_file_system_has_can_be_written(tmp_path: Path, name: str) -> None:
    durable.write_text(tmp_path / name, "x")
    durable.write_symbolic_link(tmp_path / name, "target")
    assert (tmp_path / name).readlink() == Path("target")


def test_directories_are_private_up_to_the_one_that_was_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = durable.make_private_directory(tmp_path / "a" / "b" / "c")
    assert [mode(made), mode(made.parent), mode(made.parent.parent), mode(tmp_path)] == [0o700, 0o700, 0o700, 0o755]
    assert durable.make_private_directory(made) == made


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DurableWriteFailed):
            durable.make_private_directory(path)


def test_a_new_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert durable.write_new_text(path, "first")
    assert not durable.write_new_text(path, "second")
    assert path.read_text() == "first"
    assert (mode(path), list(tmp_path.iterdir())) == (0o600, [path])


def test_of_many_processes_one_makes_the_new_file(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from turku.core import durable\n"
        "while not Path('go').exists(): pass\n"
        "print(durable.write_new_text(Path('key'), sys.argv[1] * 1000))"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        command.start(
            [sys.executable, "-c", script, name], stdout=True, working_directory=tmp_path, extra_environment=environment
        )
        for name in "abcd"
    ]
    running = [child.__enter__() for child in children]
    try:
        time.sleep(0.3)
        (tmp_path / "go").write_text("")
        made = [child.stdout.read().strip() == b"True" for child in running]
    finally:
        for child in children:
            child.__exit__(None, None, None)
    assert made.count(True) == 1
    assert (tmp_path / "key").read_text() == "abcd"[made.index(True)] * 1000


def test_a_reader_never_sees_a_half_written_file_and_a_killed_writer_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "state"
    script = (
        "from pathlib import Path; from turku.core import durable\n"
        "while True:\n"
        "  for letter in 'ab': durable.write_text(Path('state'), letter * 200_000)"
    )
    for _ in range(5):
        with command.start(
            [sys.executable, "-c", script],
            working_directory=tmp_path,
            extra_environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        ) as writer:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            for _ in range(50):
                content = path.read_text()
                assert content in ("a" * 200_000, "b" * 200_000)
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait(10)
        assert path.read_text() in ("a" * 200_000, "b" * 200_000)
    durable.remove_temporary_files(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_files_of_a_killed_run_are_found_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".state.turku-tmp-0011"
    kept = [tmp_path / ".hidden", tmp_path / "state.turku-tmp-0011", tmp_path / "state"]
    for path in (left, *kept):
        path.write_text("")
    assert durable.remove_temporary_files(tmp_path) == [left]
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_link_is_moved_to_its_new_target_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    for target in ("one", "two", "two"):
        durable.write_symbolic_link(link, target)
        assert link.readlink() == Path(target)
    link.unlink()
    link.write_text("a file")
    durable.write_symbolic_link(link, "three")
    assert link.readlink() == Path("three")
    assert list(tmp_path.iterdir()) == [link]


def test_a_link_cannot_take_a_directory_s_place(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(DurableWriteFailed):
        durable.write_symbolic_link(tmp_path / "latest", "one")
    assert [entry.name for entry in tmp_path.iterdir()] == ["latest"]


def test_a_rename_moves_a_tree(tmp_path: Path) -> None:
    (tmp_path / "from" / "tree").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    durable.rename(tmp_path / "from" / "tree", tmp_path / "to" / "tree")
    assert (tmp_path / "to" / "tree").is_dir()
    with pytest.raises(DurableWriteFailed):
        durable.rename(tmp_path / "from" / "tree", tmp_path / "to" / "other")


def test_a_full_file_system_is_an_error_and_no_half_file(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a small file system: needs root")
    mounted = command.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], timeout_seconds=10, check=False
    )
    if mounted.exit_code != 0:
        pytest.skip("this system does not let us mount a tmpfs")
    try:
        durable.write_bytes(tmp_path / "state", b"old")
        with pytest.raises(DurableWriteFailed, match="No space left"):
            durable.write_bytes(tmp_path / "state", b"x" * 200_000)
        assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("state", b"old")]
    finally:
        command.run(["umount", tmp_path], timeout_seconds=10)
