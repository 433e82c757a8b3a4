"""systemd units, cron files and sudoers: taken by the programs that read them, and as the contract wants them."""

import itertools
import os
import re
import shutil
import signal
import sys
import tomllib
from pathlib import Path

import pytest
from tests.support import host_snippets
from tests.support.markdown import REPOSITORY

from turku.core import command
from turku.core.setup.host import Host
from turku.errors import ApiUnreachable, BackupFailed, CommandFailed, ConfigurationError, LockHeld, TurkuError
from turku.storage.setup import snippets

PROGRAM_DIRECTORIES = REPOSITORY / "src" / "turku"
UNITS = sorted(PROGRAM_DIRECTORIES.glob("*/host_files/systemd/*"))
AGENT, STORAGE = (PROGRAM_DIRECTORIES / name / "host_files" for name in ("agent", "storage"))
PROGRAMS = Path(sys.executable).parent
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
STOPPED = 128 + signal.SIGTERM
UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


def every_error(branch: type[TurkuError] = TurkuError) -> list[type[TurkuError]]:
    return [branch, *(each for child in branch.__subclasses__() for each in every_error(child))]


def setting(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def as_installed(directory: Path) -> list[Path]:
    """The units with the programs of this checkout, so that systemd finds them."""
    for unit in UNITS:
        text = re.sub(r"^ExecStart=", f"ExecStart={PROGRAMS}/", unit.read_text(), flags=re.MULTILINE)
        (directory / unit.name).write_text(text)
    return sorted(directory.iterdir())


@needs_systemd
def test_systemd_takes_every_unit_without_a_word(tmp_path: Path) -> None:
    # A minimal system has no manual pages.
    done = command.run(
        ["systemd-analyze", "verify", "--man=no", *as_installed(tmp_path)], timeout_seconds=60, check=False
    )
    assert (done.exit_code, done.stdout.decode(), done.last_lines) == (0, "", ())


@needs_systemd
def test_every_service_is_confined(tmp_path: Path) -> None:
    for unit in as_installed(tmp_path):
        if unit.suffix == ".service":
            # 4.0 of 10: what systemd itself calls OK. The agent must read every file, so it cannot come much lower.
            command.run(["systemd-analyze", "security", "--offline=true", "--threshold=40", unit], timeout_seconds=60)


@pytest.mark.parametrize(
    ("timer", "calendar"),
    [
        ("turku-agent-ping", "*:0/5"),
        ("turku-update-config", "0/12:00"),
        ("turku-storage-update-config", "*:0/5"),
        ("turku-storage-gc", "*:0/15"),
        ("turku-storage-verify", "*-*-* 01:00"),
        ("turku-storage-drill", "*-*-* 02:00"),
        ("turku-api-clean-logs", "daily"),
        ("turku-api-backup", "*-*-* 01:00"),
    ],
)
def test_each_timer_runs_as_often_as_the_contract_says_and_at_a_random_moment(timer: str, calendar: str) -> None:
    (unit,) = PROGRAM_DIRECTORIES.glob(f"*/host_files/systemd/{timer}.timer")
    assert setting(unit, "OnCalendar") == [calendar]
    assert setting(unit, "RandomizedDelaySec")
    # One moment a machine, so that the time between two runs is the calendar's.
    assert setting(unit, "FixedRandomDelay") == ["yes"]
    assert unit.with_suffix(".service") in UNITS


@pytest.mark.parametrize(
    ("timer", "ticks_after_boot", "is_made_up_for"),
    [
        ("turku-agent-ping", True, False),
        ("turku-update-config", False, True),
        ("turku-storage-update-config", True, False),
        ("turku-storage-gc", True, False),
        ("turku-storage-verify", False, True),
        ("turku-storage-drill", False, True),
        ("turku-api-clean-logs", False, True),
    ],
)
def test_each_timer_runs_soon_after_a_boot_or_makes_up_for_a_missed_run(
    timer: str, ticks_after_boot: bool, is_made_up_for: bool
) -> None:
    (unit,) = PROGRAM_DIRECTORIES.glob(f"*/host_files/systemd/{timer}.timer")
    assert setting(unit, "OnBootSec") == (["1min"] if ticks_after_boot else [])
    # A made-up run is delayed as well. A timer that ticks after a boot has nothing to make up for.
    assert setting(unit, "Persistent") == (["yes"] if is_made_up_for else [])


EXIT_CODES = {error.exit_code for error in every_error()}
NO_FAILURES = {
    "turku-agent-ping": {BackupFailed.exit_code, ApiUnreachable.exit_code, LockHeld.exit_code, STOPPED},
    "turku-update-config": {LockHeld.exit_code, STOPPED},
    "turku-storage-update-config": {ApiUnreachable.exit_code, LockHeld.exit_code, STOPPED},
    "turku-storage-gc": {LockHeld.exit_code, STOPPED},
    "turku-storage-verify": {LockHeld.exit_code, STOPPED},
    "turku-storage-drill": {LockHeld.exit_code, STOPPED},
    "turku-api": {STOPPED},
    "turku-api-clean-logs": {STOPPED},
    "turku-api-backup": {LockHeld.exit_code, STOPPED},
}


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.stem)
def test_a_unit_fails_for_what_needs_somebody_on_this_host(unit: Path) -> None:
    (codes,) = setting(unit, "SuccessExitStatus")
    found = set(map(int, codes.split()))
    assert STOPPED in found, "a stop is no failure"
    assert found == NO_FAILURES.get(unit.stem, found)
    assert ConfigurationError.exit_code not in found


def test_a_registration_is_tried_again_only_where_the_coordinator_was_away() -> None:
    service = AGENT / "systemd" / "turku-update-config.service"
    assert setting(service, "Restart") == ["on-failure"]
    (codes,) = setting(service, "RestartPreventExitStatus")
    ended = EXIT_CODES - {ApiUnreachable.exit_code, LockHeld.exit_code}
    assert set(map(int, codes.split())) == ended


@needs_systemd
def test_the_calendars_mean_what_they_should() -> None:
    for calendar, minutes in (("*:0/5", 5), ("0/12:00", 720)):
        printed = command.run(
            ["systemd-analyze", "calendar", "--iterations=3", calendar],
            timeout_seconds=20,
            extra_environment={"TZ": "UTC"},
        ).stdout.decode()
        moments = re.findall(r"\d{4}-\d\d-\d\d (\d\d):(\d\d):00 UTC", printed)
        gaps = {
            (int(later[0]) * 60 + int(later[1]) - int(earlier[0]) * 60 - int(earlier[1])) % 1440
            for earlier, later in itertools.pairwise(moments)
        }
        assert gaps == {minutes}, printed


def test_every_program_that_a_unit_or_crontab_starts_is_ours() -> None:
    started = [program for unit in UNITS for program in setting(unit, "ExecStart")]
    started += [line.split(None, 6)[6] for path in crontabs() for line in jobs(path)]
    words = {program.split()[0] for program in started}
    assert words <= set(SCRIPTS)
    assert {"turku-agent-ping", "turku-update-config", "turku-storage-update-config", "turku-api"} <= words


def crontabs() -> list[Path]:
    return sorted(PROGRAM_DIRECTORIES.glob("*/host_files/cron/*"))


def jobs(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if re.match(r"[\d*]", line)]


@pytest.mark.parametrize("path", crontabs(), ids=lambda path: path.name)
def test_every_crontab_is_well_formed(path: Path) -> None:
    from croniter import croniter

    assert path.read_text().endswith("\n"), "cron ignores a last line without its end"
    assert re.fullmatch(r"[a-z-]+", path.name), "cron ignores names with other characters"
    assert jobs(path)
    for line in jobs(path):
        *times, user, program = line.split(None, 6)
        assert croniter.is_valid(" ".join(times[:5]))
        assert user in ("root", "turku-api")
        assert "%" not in program, "cron makes a line break of it"
        if user == "root" and not re.match("turku-storage (gc|verify|drill) ", program):
            assert "--wait" in program, "a fleet must not arrive at once"


def test_the_crontabs_run_as_often_as_the_timers() -> None:
    lines = [line.split(None, 6) for path in crontabs() for line in jobs(path)]
    programs = [(" ".join(line[6].split()[:2]).removesuffix(" --wait"), line) for line in lines if line[5] == "root"]
    times = {program: " ".join(line[:5]) for program, line in programs}
    assert times == {
        "turku-agent-ping": "*/5 * * * *",
        "turku-update-config": "0 */12 * * *",
        "turku-storage-update-config": "*/5 * * * *",
        "turku-storage gc": "*/15 * * * *",
        "turku-storage verify": "0 1 * * *",
        "turku-storage drill": "0 2 * * *",
    }


@pytest.mark.skipif(shutil.which("visudo", path="/usr/sbin:/usr/bin") is None, reason="sudo is not installed")
def test_sudo_takes_the_snippet_and_a_broken_one_is_not_installed() -> None:
    content = host_snippets.sudoers().encode()
    snippets.try_sudoers(Host(), content)
    with pytest.raises(CommandFailed):
        snippets.try_sudoers(Host(), content + b"nonsense =\n")


@pytest.mark.parametrize(
    ("arguments", "is_lawful"),
    [
        (UUID, True),
        (f"{UUID} --config-dir /tmp", False),
        (f"--config-dir /tmp {UUID}", False),
        (UUID.upper(), False),
        ("--help", False),
        ("", False),
    ],
)
def test_sudo_lets_a_uuid_through_and_nothing_else(arguments: str, is_lawful: bool) -> None:
    (pattern,) = re.findall(r"turku-storage-ping (\^.*\$)", host_snippets.sudoers())
    assert bool(re.search(pattern, arguments)) == is_lawful


@pytest.mark.parametrize("unit", ["turku-agent-ping", "turku-update-config"])
def test_the_agent_runs_as_a_user_of_its_own_who_may_read_and_not_write(unit: str) -> None:
    (service,) = PROGRAM_DIRECTORIES.glob(f"*/host_files/systemd/{unit}.service")
    lock_in = " CAP_SYS_CHROOT" if unit == "turku-agent-ping" else ""
    assert setting(service, "User") == ["turku-agent"]
    for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert setting(service, name) == [f"CAP_DAC_READ_SEARCH{lock_in}"]
    assert setting(service, "NoNewPrivileges") == ["yes"]
    assert setting(service, "ProtectSystem") == ["strict"]


@needs_systemd
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to another user")
def test_systemd_makes_the_agent_s_user_and_directories(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for program, *words in (
        ("systemd-sysusers", f"--root={tmp_path}", "sysusers.d"),
        ("systemd-tmpfiles", f"--root={tmp_path}", "--create", "tmpfiles.d"),
    ):
        *options, directory = words
        done = command.run([program, *options, AGENT / directory / "turku-agent.conf"], timeout_seconds=30)
        assert not any("ignor" in line.lower() for line in done.last_lines), done.last_lines
    (uid,) = re.findall(r"^turku-agent:x:(\d+):", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)
    state = (tmp_path / "var/lib/turku-agent").stat()
    assert (state.st_mode & 0o777, state.st_uid) == (0o700, int(uid))
    assert (tmp_path / "var/backups/turku-agent").stat().st_uid == 0
