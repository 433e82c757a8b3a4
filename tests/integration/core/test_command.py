"""Children: argument lists, one environment, bounded output, and an end in every case."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from turku.core import command
from turku.core.cancellation import NEVER
from turku.errors import CommandFailed


def shell(script: str) -> list[str | bytes | Path]:
    return ["/bin/sh", "-c", script]


def python(script: str) -> list[str | bytes | Path]:
    return [sys.executable, "-c", script]


def lives(process: int) -> bool:
    """Return True if the process runs. One that ended and is not reaped by its new parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def written_number(path: Path) -> int:
    assert eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


# --- run


def test_run_gives_standard_output_and_the_exit_code() -> None:
    completed = command.run(shell("printf 'a\\nb'; echo warned >&2"), timeout_seconds=10)
    assert (completed.stdout, completed.exit_code, completed.last_lines) == (b"a\nb", 0, ("warned",))


def test_arguments_reach_the_program_as_they_are_and_no_shell_reads_them(tmp_path: Path) -> None:
    hostile = [b"$(touch owned)", b"; touch owned", b"a b", b"*", b"caf\xe9", b"line\nbreak", b""]
    completed = command.run(["/usr/bin/printf", "%s\\0", *hostile], timeout_seconds=10, working_directory=tmp_path)
    assert completed.stdout.split(b"\0")[:-1] == hostile
    assert list(tmp_path.iterdir()) == []


def test_input_reaches_the_program_and_ends() -> None:
    assert command.run(["cat"], timeout_seconds=10, input_bytes=b"caf\xe9\0").stdout == b"caf\xe9\0"


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert command.run(["true"], timeout_seconds=10, input_bytes=b"x" * 60_000).exit_code == 0


def test_a_program_without_input_finds_its_end_at_once() -> None:
    assert command.run(["cat"], timeout_seconds=10).stdout == b""


def test_a_failure_has_the_exit_code_and_the_last_lines() -> None:
    with pytest.raises(CommandFailed, match="/bin/sh ended with exit code 3") as failed:
        command.run(shell("echo first >&2; echo last >&2; exit 3"), timeout_seconds=10)
    assert failed.value.details == "first\nlast"


def test_without_check_the_exit_code_is_the_callers_to_judge() -> None:
    assert command.run(shell("exit 24"), timeout_seconds=10, check=False).exit_code == 24


def test_an_end_by_a_signal_has_the_shells_code() -> None:
    assert command.run(shell("kill -9 $$"), timeout_seconds=10, check=False).exit_code == 137


def test_a_missing_program_is_an_error_with_a_hint() -> None:
    with pytest.raises(CommandFailed, match="cannot start no-such-program: No such file") as failed:
        command.run(["no-such-program"], timeout_seconds=10)
    assert "PATH" in failed.value.hint


def test_a_file_that_may_not_be_executed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    with pytest.raises(CommandFailed, match="Permission denied"):
        command.run([tmp_path / "program"], timeout_seconds=10)


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end within 0\.3 s"):
        command.run(shell("echo $$ > pid; exec sleep 60"), timeout_seconds=0.3, working_directory=tmp_path)
    assert time.monotonic() - began < 10
    assert not lives(written_number(tmp_path / "pid"))


def test_a_program_that_prints_too_much_is_ended() -> None:
    with pytest.raises(CommandFailed, match="printed more than 100000 bytes"):
        command.run(["yes"], timeout_seconds=30, capture_limit_bytes=100_000)


# --- the environment


def test_a_child_gets_the_allow_listed_variables_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURKU_SECRET_KEY", "RSYNC_PASSWORD", "RSYNC_RSH", "LD_PRELOAD", "SSH_AUTH_SOCK", "http_proxy"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("TZ", "Europe/Helsinki")
    listed = command.run(["env"], timeout_seconds=10, extra_environment={"RSYNC_PASSWORD": "given"}).stdout.decode()
    assert "leaked" not in listed
    assert {"TZ=Europe/Helsinki", "RSYNC_PASSWORD=given"} <= set(listed.splitlines())


def test_a_child_has_a_path_even_where_we_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert b"/usr/bin" in command.run(["/usr/bin/env"], timeout_seconds=10).stdout


def test_a_child_inherits_no_descriptors_but_those_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as kept_back, (tmp_path / "b").open("w") as given:
        os.set_inheritable(kept_back.fileno(), True)
        os.set_inheritable(given.fileno(), True)
        wanted, unwanted = given.fileno(), kept_back.fileno()
        with command.start(["ls", "/proc/self/fd"], stdout=True, pass_descriptors=[wanted]) as child:
            numbers = {int(line) for line in child.stdout.read().split()}
        nothing_given = command.run(["ls", "/proc/self/fd"], timeout_seconds=10)
    assert wanted in numbers
    assert unwanted not in numbers
    assert {wanted, unwanted}.isdisjoint(int(line) for line in nothing_given.stdout.split())


# --- output


def test_lines_arrive_while_the_program_runs() -> None:
    arrived = threading.Event()
    with command.start(shell("echo ready; exec sleep 60"), on_line=lambda _line: arrived.set()) as child:
        assert arrived.wait(10)
        assert child.poll() is None


def test_only_the_last_lines_are_kept() -> None:
    with command.start(shell("seq 1 1000")) as child:
        child.wait(10)
        assert child.last_lines == tuple(str(number) for number in range(976, 1001))


def test_an_endless_line_is_cut_and_memory_stays_bounded() -> None:
    lengths: list[int] = []
    with command.start(
        shell("head -c 3000000 /dev/zero | tr '\\0' x"), on_line=lambda line: lengths.append(len(line))
    ) as child:
        child.wait(20)
    assert sum(lengths) == 3_000_000
    assert max(lengths) <= command.LINE_LIMIT_BYTES


def test_undecodable_bytes_and_control_characters_become_printable() -> None:
    lines: list[str] = []
    with command.start(shell(r"printf 'caf\351 \033[31m t\303\251l\r\n'"), on_line=lines.append) as child:
        child.wait(10)
    assert lines == [r"caf<e9> \x1b[31m tél"]


def test_with_standard_output_taken_the_lines_are_standard_error_s() -> None:
    lines: list[str] = []
    with command.start(shell("echo data; echo said >&2"), stdout=True, on_line=lines.append) as child:
        assert child.stdout.read() == b"data\n"
        child.wait(10)
    assert lines == ["said"]


def test_a_listener_that_fails_does_not_stall_the_child() -> None:
    def listener(_line: str) -> None:
        raise ValueError("a fault in the listener")

    with command.start(shell("seq 1 100000"), on_line=listener) as child:
        assert child.wait(20) == 0
        assert child.last_lines[-1] == "100000"


def test_many_children_leave_no_descriptor_open() -> None:
    assert NEVER.descriptor > 0  # made once in a process, by the first child that is waited for
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        command.run(["cat"], timeout_seconds=10, input_bytes=b"x")
        with command.start(["cat"], stdin=True) as child:
            child.stdin.write(b"x")
    assert len(os.listdir("/proc/self/fd")) <= before


# --- the end


def test_the_block_ends_the_child_when_it_raises() -> None:
    with pytest.raises(ZeroDivisionError), command.start(["sleep", "60"]) as child:
        raise ZeroDivisionError
    assert child.poll() == 128 + signal.SIGINT


def test_the_whole_process_group_ends_with_the_block(tmp_path: Path) -> None:
    with command.start(shell("sleep 60 & echo $! > grandchild; wait"), working_directory=tmp_path):
        grandchild = written_number(tmp_path / "grandchild")
        assert lives(grandchild)
    assert eventually(lambda: not lives(grandchild))


def test_processes_that_a_child_left_running_end_with_the_block(tmp_path: Path) -> None:
    with command.start(shell("sleep 60 >/dev/null 2>&1 & echo $! > grandchild"), working_directory=tmp_path) as child:
        child.wait(10)
        grandchild = written_number(tmp_path / "grandchild")
        assert lives(grandchild)
    assert eventually(lambda: not lives(grandchild))


def test_a_child_ends_at_once_also_where_we_ignore_interrupts() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with command.start(["sleep", "60"]) as child:
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert child.poll() == 128 + signal.SIGINT


def test_a_child_that_ignores_int_and_term_is_killed() -> None:
    with command.start(shell("trap '' INT TERM; echo ready; while :; do sleep 1; done")) as child:
        assert eventually(lambda: child.last_lines == ("ready",))
        began = time.monotonic()
        child.end(grace_seconds=0.4)
    assert child.poll() == 137
    assert time.monotonic() - began < 10


def test_a_child_is_given_time_to_clean_up(tmp_path: Path) -> None:
    script = "trap 'sleep 0.3; echo done > cleaned; exit 0' INT; echo ready; while :; do sleep 0.1; done"
    with command.start(shell(script), working_directory=tmp_path) as child:
        assert eventually(lambda: child.last_lines == ("ready",))
    assert (tmp_path / "cleaned").read_text() == "done\n"


def test_a_child_that_ended_by_itself_keeps_its_exit_code() -> None:
    with command.start(shell("exit 7")) as child:
        child.wait(10)
    assert child.poll() == 7


def test_a_grandchild_of_another_session_that_holds_the_output_delays_the_end_but_little(tmp_path: Path) -> None:
    began = time.monotonic()
    with command.start(
        shell("setsid sh -c 'echo $$ > stranger; exec sleep 30' & while [ ! -s stranger ]; do sleep 0.01; done"),
        working_directory=tmp_path,
    ) as child:
        child.wait(10)
    stranger = written_number(tmp_path / "stranger")
    try:
        assert time.monotonic() - began < 10
    finally:
        os.kill(stranger, signal.SIGKILL)


def test_wait_leaves_a_child_that_takes_longer_running() -> None:
    with command.start(["sleep", "60"]) as child:
        with pytest.raises(CommandFailed, match="did not end within"):
            child.wait(0.1)
        assert child.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_when_its_owner_is_killed(tmp_path: Path, number: int) -> None:
    owner_script = f"""
import sys, time
from turku.core import command
from turku.core.cli import entry
def main(arguments):
    with command.start(["/bin/sh", "-c", "echo $$ > {tmp_path}/child; exec sleep 60"]):
        time.sleep(60)
    return 0
entry.run(main)
"""
    with command.start(python(owner_script), extra_environment={"PYTHONPATH": os.pathsep.join(sys.path)}) as owner:
        child = written_number(tmp_path / "child")
        assert lives(child)
        os.kill(owner.pid, number)
        assert owner.wait(10) == 128 + number
        assert eventually(lambda: not lives(child))
