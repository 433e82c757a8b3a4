"""The kit of setup: steps that can be repeated, a record of what they made, and its undoing."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from turku.core.cli import person
from turku.core.command import CompletedProgram
from turku.core.setup import host_files, teardown
from turku.core.setup.accounts import user_steps
from turku.core.setup.directories import DirectoryStep
from turku.core.setup.host import Host
from turku.core.setup.host_files import HostFile
from turku.core.setup.plan import Plan
from turku.core.setup.programs import LinkStep, program_steps
from turku.core.setup.record import Record, Reload
from turku.core.setup.step import FileStep, State, Step, host_file_step
from turku.core.setup.units import UnitsStep
from turku.errors import CommandFailed, ConfigurationError, UsageError

PROGRAM = "turku-example"
UNIT = HostFile("turku.agent", "systemd", "turku-agent-ping.timer")


class Programs:
    """The programs that setup starts: recorded, and answered as a host would."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.failing: set[str] = set()
        self.running: set[str] = set()

    def __call__(self, argv: Sequence[str]) -> CompletedProgram:
        line = " ".join(argv)
        is_question = argv[0] == "systemctl" and argv[1] in ("--quiet", "show", "cat")
        if not is_question:
            self.called.append(line)
        if argv[:3] == ["systemctl", "enable", "--now"]:
            self.running.add(argv[3])
        if argv[:3] == ["systemctl", "disable", "--now"]:
            self.running.discard(argv[3])
        is_off = argv[0] == "systemctl" and argv[1] == "--quiet" and argv[-1] not in self.running
        if line in self.failing or is_off:
            raise CommandFailed(f"{line} ended with exit code 1")
        return CompletedProgram(tuple(argv), 0, (), b"NeedDaemonReload=no\n")

    def take_calls(self) -> list[str]:
        called, self.called = self.called, []
        return called


@pytest.fixture
def programs() -> Programs:
    return Programs()


@pytest.fixture
def host(tmp_path: Path, programs: Programs) -> Host:
    for directory in ("etc", "run/systemd/system", "var/lib", "usr/bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\n")
    (tmp_path / "etc/group").write_text("root:x:0:\ndaemon:x:1:\n")
    return Host(tmp_path, programs)


def set_up(host: Host, *steps: Step, **settings: bool) -> list[str]:
    said: list[str] = []
    Plan(PROGRAM, steps, host).carry_out(said.append, **{"is_confirmed": True, **settings})
    return said


def tear_down(host: Host) -> list[str]:
    said: list[str] = []
    teardown.tear_down(PROGRAM, host, said.append, is_confirmed=True)
    return said


def text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


def file_step(content: bytes = b"one\n", **settings: object) -> FileStep:
    return FileStep(Path("/etc/turku/example.conf"), content, **settings)  # type: ignore[arg-type]


def test_a_file_is_written_once_with_its_mode_and_removed_by_teardown(host: Host) -> None:
    before = tree(host.root)
    assert "[1/1] done: write /etc/turku/example.conf" in set_up(host, file_step(mode=0o600))
    written = host.path("/etc/turku/example.conf")
    assert written.read_bytes() == b"one\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert set_up(host, file_step(mode=0o600)) == [f"{PROGRAM} is set up: all 1 steps were done before."]
    tear_down(host)
    assert tree(host.root) - before == {"var/lib/turku-setup/turku-example.lock"}


def test_a_newer_version_replaces_what_setup_wrote_and_nothing_else(host: Host) -> None:
    set_up(host, file_step(b"one\n"))
    set_up(host, file_step(b"two\n"))
    place = host.path("/etc/turku/example.conf")
    assert place.read_bytes() == b"two\n"
    place.write_bytes(b"edited\n")
    assert "edited since setup wrote it" in text(set_up(host, file_step(b"three\n")))
    assert place.read_bytes() == b"edited\n"


def test_teardown_keeps_and_names_an_edited_file(host: Host) -> None:
    set_up(host, file_step())
    place = host.path("/etc/turku/example.conf")
    place.write_bytes(b"edited\n")
    assert "kept: /etc/turku/example.conf: it was edited since setup wrote it" in tear_down(host)
    assert place.read_bytes() == b"edited\n"


def test_a_file_of_somebody_else_is_kept_in_setup_and_teardown(host: Host) -> None:
    place = host.path("/etc/turku/example.conf")
    place.parent.mkdir()
    place.write_bytes(b"mine\n")
    assert "which setup did not write" in text(set_up(host, file_step()))
    tear_down(host)
    assert place.read_bytes() == b"mine\n"


def test_a_file_that_others_can_read_gets_its_mode_again(host: Host) -> None:
    set_up(host, file_step(mode=0o600))
    place = host.path("/etc/turku/example.conf")
    place.chmod(0o644)
    assert "0644 lets others in" in text(set_up(host, file_step(mode=0o600)))
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_dry_run_and_a_no_change_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(host.root)
    assert set_up(host, file_step(), is_dry_run=True)[-1] == "Nothing was changed."
    monkeypatch.setattr(person, "says_yes", lambda question: False)
    assert set_up(host, file_step(), is_confirmed=False)[-1] == "Nothing was changed."
    assert tree(host.root) == before


def test_nobody_to_ask_is_a_usage_error_that_names_the_options(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(person, "is_there", lambda: False)
    with pytest.raises(UsageError) as caught:
        set_up(host, file_step(), is_confirmed=False)
    assert "--yes" in caught.value.hint


@pytest.mark.parametrize("killed_in", ["the record", "the file", "the reload"])
@pytest.mark.parametrize("is_new", [True, False], ids=["a new file", "a replaced file"])
def test_a_killed_run_is_finished_by_the_next_one(
    killed_in: str, is_new: bool, host: Host, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object, **_settings: object) -> None:
        raise KeyboardInterrupt

    programs.running.add("ssh.service")
    if not is_new:
        set_up(host, file_step(b"old\n", reload=Reload.SSHD))
    programs.take_calls()
    target = {
        "the record": "turku.core.setup.record.Record.add",
        "the file": "turku.core.setup.step.FileStep._write",
        "the reload": "turku.core.setup.step.reload_services",
    }
    with monkeypatch.context() as patched:
        patched.setattr(target[killed_in], killed)
        with pytest.raises(KeyboardInterrupt):
            set_up(host, file_step(b"new\n", reload=Reload.SSHD))
    assert programs.take_calls() == []
    set_up(host, file_step(b"new\n", reload=Reload.SSHD))
    assert host.path("/etc/turku/example.conf").read_bytes() == b"new\n"
    assert programs.take_calls() == ["systemctl reload ssh.service"]
    tear_down(host)
    assert not host.path("/etc/turku/example.conf").exists()


def test_a_file_that_breaks_the_host_is_taken_back(host: Host) -> None:
    def refuse(_host: Host) -> None:
        raise CommandFailed("sshd -t ended with exit code 255")

    with pytest.raises(CommandFailed):
        set_up(host, file_step(check_host=refuse))
    assert not host.path("/etc/turku/example.conf").exists()
    set_up(host, file_step(b"old\n"))
    with pytest.raises(CommandFailed):
        set_up(host, file_step(b"new\n", check_host=refuse))
    assert host.path("/etc/turku/example.conf").read_bytes() == b"old\n"
    tear_down(host)
    assert not host.path("/etc/turku/example.conf").exists()


def test_units_are_enabled_once_and_stopped_before_their_files_go(host: Host, programs: Programs) -> None:
    step = host_file_step(UNIT, host, PROGRAM)
    assert step is not None
    units = UnitsStep([UNIT.name])
    set_up(host, step, units)
    assert programs.take_calls() == ["systemctl daemon-reload", f"systemctl enable --now {UNIT.name}"]
    assert host.path("/etc/systemd/system/turku-agent-ping.timer").exists()
    set_up(host, step, units)
    assert programs.take_calls() == []
    tear_down(host)
    assert programs.take_calls() == [f"systemctl disable --now {UNIT.name}", "systemctl daemon-reload"]
    assert not host.path("/etc/systemd/system/turku-agent-ping.timer").exists()


def test_a_unit_that_ran_before_is_not_stopped_by_teardown(host: Host, programs: Programs) -> None:
    programs.running.add(UNIT.name)
    set_up(host, UnitsStep([UNIT.name]))
    tear_down(host)
    assert programs.called == []


def test_a_file_of_a_package_is_used_and_not_installed_again(host: Host) -> None:
    packaged = host.path("/usr/lib/systemd/system") / UNIT.name
    packaged.parent.mkdir(parents=True)
    packaged.write_bytes(b"older\n")
    assert host_file_step(UNIT, host, PROGRAM) is None
    assert UNIT.installed(host) == Path("/usr/lib/systemd/system") / UNIT.name
    [sentence] = host_files.outdated("turku.agent", "turku-agent", host=host)
    assert "/usr/lib/systemd/system/turku-agent-ping.timer differs" in sentence
    packaged.write_bytes(UNIT.content(Path("/usr/bin")))
    assert list(host_files.outdated("turku.agent", "turku-agent", host=host)) == []


def test_the_directory_of_the_program_is_filled_in(host: Host) -> None:
    for file in host_files.all_of("turku.storage"):
        assert b"@BINDIR@" not in file.content(Path("/usr/bin"))
    assert host.program_directory("turku-agent") == Path("/usr/local/bin")
    program = host.path("/usr/bin/turku-agent")
    program.touch(0o755)
    assert host.program_directory("turku-agent") == Path("/usr/bin")


def test_links_are_made_for_programs_that_services_do_not_find(host: Host, tmp_path: Path) -> None:
    host.path("/usr/bin/first").touch(0o755)
    steps = program_steps(host, "first", "second")
    assert [step.title.split()[1] for step in steps] == ["/usr/local/bin/second"]
    [link] = steps
    assert isinstance(link, LinkStep)
    set_up(host, link)
    assert host.path("/usr/local/bin/second").is_symlink()
    assert link.find(host, Record(host, PROGRAM)).state is State.DONE
    tear_down(host)
    assert not os.path.lexists(host.path("/usr/local/bin/second"))


def test_root_runs_no_program_that_others_could_replace(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives a directory away")
    os.chown(tmp_path, 1, 1)
    monkeypatch.setattr("turku.core.setup.programs.own_program", lambda: tmp_path / "program")
    with pytest.raises(ConfigurationError, match="another user could replace"):
        program_steps(host, "program")


def test_an_unreadable_record_is_named(host: Host) -> None:
    record = host.path("/var/lib/turku-setup/turku-example.json")
    record.parent.mkdir(parents=True)
    record.write_text("{")
    with pytest.raises(ConfigurationError, match=r"turku-example\.json"):
        set_up(host, file_step())


def test_the_user_is_made_by_what_the_host_has(host: Host, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "find_program", lambda _host, name: name if name in ("useradd", "userdel") else None)
    set_up(host, *user_steps("turku.agent", host, PROGRAM, purpose="runs the agent"))
    [line] = programs.take_calls()
    assert line.startswith(f"useradd --root {host.root} --system")
    assert line.endswith("turku-agent")
    with host.path("/etc/passwd").open("a") as accounts:
        accounts.write("turku-agent:x:999:999::/var/lib/turku-agent:/usr/sbin/nologin\n")
    tear_down(host)
    assert programs.take_calls() == [f"userdel --root {host.root} turku-agent"]


def test_a_directory_with_content_stays(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives a directory to root")
    set_up(host, DirectoryStep(Path("/var/lib/turku-example"), 0o700))
    host.path("/var/lib/turku-example/history").touch()
    assert any("the directory stays" in line for line in tear_down(host))
    assert host.path("/var/lib/turku-example/history").exists()
