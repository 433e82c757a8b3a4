"""S3 and S4, `turku-agent restore`: a storage writes the requested files, below the target, and nothing else. Its
words are bounded and never obeyed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.conftest import Device, StartPing
from tests.attacks.test_s3_restore_only_where_opened import UNPRIVILEGED, unprivileged
from tests.integration.agent.conftest import Machine, wait_for
from tests.support.hostile_storage import HostileStorage, loot
from tests.support.trees import differences

MODULE = "turku-restore"
PLAN: dict[str, Any] = {"row": "plan", "snapshot": "etc_20261124-084122_8491", "is_by_xxh128": True}
END: dict[str, Any] = {"row": "restore-end", "rsync_exit_code": 0}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The target of a restore, with files of its own, and a link out of it."""
    directory = tmp_path / "target"
    (directory / "wanted").mkdir(parents=True)
    (directory / "other").mkdir()
    (directory / "other" / "file").write_text("mine")
    (directory / "passwd").write_text("mine")
    (directory / "out").symlink_to("../victim")
    (directory / "wanted" / "out").symlink_to("../../victim")
    return directory


def manifest(*files: str, **links: str | Path) -> dict[str, Any]:
    """The lines of a manifest that names what an attacker brings."""
    return {
        "row": "manifest",
        "entries": [
            *([name, "file", 7, [0, 0], True, None, None] for name in files),
            *([name, "link", 0, [0, 0], False, None, str(target)] for name, target in links.items()),
        ],
    }


class Opened:
    """A restore that the machine opened, and in which the storage may write now."""

    def __init__(self, process: subprocess.Popen[str], hostile: HostileStorage) -> None:
        self.process = process
        self.hostile = hostile

    def push(self, *options: str, tree: Path, to: str = "/") -> subprocess.CompletedProcess[str]:
        return self.hostile.rsync("-a", "--ignore-times", *options, f"{tree}/", f"rsync://{{}}/{MODULE}{to}")

    def end(self) -> tuple[int, str]:
        """Exit code and output of the agent."""
        self.hostile.release()
        stdout, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stdout + stderr


def opened(
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    *words: str | Path,
    plan: dict[str, Any] = PLAN,
    answers: list[dict[str, Any]] | None = None,
) -> Opened:
    hostile.will_say([plan], [END] if answers is None else answers)
    process = started(machine, hostile, open_session, *words)
    wait_for(lambda: hostile.has_go or process.poll() is not None)
    assert hostile.has_go, process.communicate()
    return Opened(process, hostile)


def started(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, *words: str | Path
) -> subprocess.Popen[str]:
    # Registered, and bound to the attacker, by a run that finds nothing due.
    machine.api.due = set()
    open_session("--version").wait(timeout=30)
    key = (machine.var_dir / "ssh_key.pub").read_text().strip()
    machine.sshd.authorized_keys.write_text(hostile.line(key, "restore"))
    return machine.start("turku-agent", "restore", "etc", *map(str, words), "--yes")


def attack(restore: Opened, tmp_path: Path, victim: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "authorized_keys").write_text("planted")
    (plain / "key").write_text("planted")
    assert restore.push(tree=loot(tmp_path, victim)).returncode == 0
    # There is one connection. All others are refused whatever they try.
    for options, to in (
        ((), "/../victim/"),
        ((), "/absolute/"),
        ((), "/relative/"),
        ((), "/out/"),
        ((), "/wanted/out/"),
        ((), f"/{victim}/"),
        (("--keep-dirlinks",), "/absolute/"),
        (("--keep-dirlinks",), "/out/"),
        (("--keep-dirlinks", "--relative"), "/relative/../victim/"),
        (("--inplace",), "/"),
        (("--backup", f"--backup-dir={victim}"), "/"),
        (("--backup", "--backup-dir=../victim"), "/"),
        ((f"--temp-dir={victim}",), "/"),
        ((f"--remote-option=--partial-dir={victim}", "--partial", "--delay-updates"), "/"),
        ((f"--remote-option=--log-file={victim}/log",), "/"),
        (("--write-devices",), "/"),
        (("--delete",), "/out/"),
    ):
        assert restore.push(*options, tree=plain, to=to).returncode != 0


def test_s3_a_restore_writes_below_its_target_only(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, target: Path, tmp_path: Path
) -> None:
    restore = opened(machine, hostile, open_session, "--to", target, answers=[manifest("file", absolute=victim), END])
    attack(restore, tmp_path, victim)
    restore.end()
    assert (target / "file").read_text() == "planted", "the attack itself failed"
    assert not os.path.lexists(target / "key"), "what the manifest does not name is not restored"
    assert differences(tmp_path / "before", victim) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="starts the agent as another user")
def test_s3_nor_does_that_of_an_agent_that_is_not_root(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, target: Path, tmp_path: Path
) -> None:
    machine.register()
    for path in (machine.var_dir, *machine.var_dir.rglob("*"), target, *target.rglob("*")):
        os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)
    machine.prefix = unprivileged("+dac_read_search")
    restore = opened(machine, hostile, open_session, "--to", target, answers=[manifest("file", absolute=victim), END])
    attack(restore, tmp_path, victim)
    restore.end()
    assert (target / "file").read_text() == "planted", "the attack itself failed"
    assert not os.path.lexists(target / "key"), "what the manifest does not name is not restored"
    assert differences(tmp_path / "before", victim) == []


@pytest.mark.root
@pytest.mark.parametrize("prefix", [[], ["setpriv", "--bounding-set=-sys_admin"]], ids=["mount", "no mount"])
def test_s3_no_device_is_written(
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    victim: Path,
    target: Path,
    tmp_path: Path,
    device: Device,
    prefix: list[str],
) -> None:
    (target / "other" / "file").write_bytes(b"m" * 120_000)
    machine.prefix = prefix
    restore = opened(machine, hostile, open_session, "--to", target)
    # rsync takes what stands for a user's file for the begin of another one, and finds a device in its place later.
    tree = tmp_path / "tree"
    (tree / "other").mkdir(parents=True)
    (tree / "big").write_bytes(os.urandom(1_500_000))
    (tree / "file").write_bytes(b"PLANTED\n" * 10_000)
    os.mknod(tree / "other" / "file", 0o060644, device.number)
    restore.push("-W", "--no-inc-recursive", "-M--partial-dir=other", "--bwlimit=1000", tree=tree)
    _code, said = restore.end()
    assert ("no device files are restored" in said) == bool(prefix)
    assert device.is_untouched()


def test_s3_nothing_but_the_paths_that_were_asked_for_is_written(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, target: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "loot"
    names = ("passwd", "other/file", "wanted/file", "new", "wanted more", "wanted/inner/file")
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("planted")
    # A way from what is asked for to what is not, which rsync would take.
    (target / "wanted" / "inner").symlink_to("../other")
    restore = opened(
        machine, hostile, open_session, "wanted", "--to", target, answers=[manifest(*names), END], plan=PLAN
    )
    assert restore.push("--keep-dirlinks", tree=tree).returncode == 0
    restore.end()
    assert (target / "wanted" / "file").read_text() == "planted", "the attack itself failed"
    assert (target / "passwd").read_text() == "mine"
    assert (target / "other" / "file").read_text() == "mine"
    assert (target / "wanted" / "inner" / "file").read_text() == "planted"
    assert not (target / "wanted" / "inner").is_symlink(), "the user's link is replaced, and not followed"
    assert not (target / "new").exists()
    assert not (target / "wanted more").exists()


def test_s3_nothing_is_deleted_that_nobody_wanted_to_be_deleted_and_nothing_is_read(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, target: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "nothing"
    (empty / "wanted").mkdir(parents=True)
    restore = opened(machine, hostile, open_session, "--to", target)
    for option in ("--delete", "--delete-before", "--delete-delay", "--delete-after", "--delete-excluded", "--force"):
        assert restore.push(option, tree=empty).returncode != 0
    read = hostile.rsync("-a", f"rsync://{{}}/{MODULE}/", f"{tmp_path / 'stolen'}/")
    restore.end()
    assert (target / "other" / "file").read_text() == "mine"
    assert read.returncode != 0
    assert not (tmp_path / "stolen").exists()


def test_s3_there_is_no_module_before_the_machine_has_agreed_and_none_after(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, target: Path, tmp_path: Path
) -> None:
    # No plan comes: the attacker writes at once.
    hostile.will_say([], [])
    process = started(machine, hostile, open_session, "--to", target)
    hostile.request()
    early = Opened(process, hostile).push(tree=victim)
    assert early.returncode != 0
    process.kill()
    process.communicate()
    hostile.forget()

    restore = opened(machine, hostile, open_session, "--to", target)
    restore.end()
    wait_for(lambda: machine.processes() == [])
    assert restore.push(tree=victim).returncode != 0
    assert not (target / "authorized_keys").exists()


@pytest.mark.parametrize(
    "plan",
    [
        {**PLAN, "snapshot": "../../victim"},
        {**PLAN, "snapshot": "/etc"},
        {**PLAN, "snapshot": ""},
        {**PLAN, "parents": [["../victim", 0o777, 0, 0, [0, 0]], ["/tmp", 0o777, 0, 0, [0, 0]]]},
        {**PLAN, "parents": [["other", 0o777, 65534, 65534, [0, 0]], ["made", 0o777, 65534, 65534, [0, 0]]]},
    ],
    ids=["up", "absolute", "empty", "parents outside", "parents not asked for"],
)
def test_s3_the_plan_of_a_storage_changes_nothing_by_itself(
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    victim: Path,
    target: Path,
    tmp_path: Path,
    plan: dict[str, Any],
) -> None:
    shutil.copytree(target, tmp_path / "target before", symlinks=True)
    hostile.will_say([plan], [END])
    hostile.release()
    process = started(machine, hostile, open_session, "wanted", "--to", target)
    stdout, stderr = process.communicate(timeout=60)
    assert "internal" not in stdout + stderr
    assert differences(tmp_path / "target before", target, "--omit-dir-times") == []
    assert differences(tmp_path / "before", victim) == []


@pytest.mark.parametrize(
    "entry",
    [
        ["../victim/authorized_keys", "file", 4, [0, 0], False, "AAAAAAAAAAAAAAAAAAAAAA==", None],
        ["/etc/shadow", "file", 4, [0, 0], False, "AAAAAAAAAAAAAAAAAAAAAA==", None],
        ["out/authorized_keys", "link", 4, [0, 0], True, None, "/etc/shadow"],
        ["a\0b", "file", 4, [0, 0], False, None, None],
    ],
    ids=["up", "absolute", "link through a link", "NUL"],
)
def test_s3_paths_outside_in_the_manifest_are_neither_read_nor_made(
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    victim: Path,
    target: Path,
    tmp_path: Path,
    entry: list[Any],
) -> None:
    manifest = {"row": "manifest", "entries": [entry]}
    code, said = opened(machine, hostile, open_session, "--to", target, answers=[manifest, END]).end()
    assert code in (3, 4)
    assert "internal" not in said
    assert differences(tmp_path / "before", victim) == []


@pytest.mark.parametrize(
    "answer",
    [
        {"row": "manifest", "entries": [["x" * 20_000, "file", 4, [0, 0], False, None, None]]},
        {"row": "refusal", "code": "not-in-history", "message": "\x1b[2J\nforged line", "details": "\x1b]0;x\x07" * 9},
        {"row": "unheard of"},
        {"row": "plan", "snapshot": "again"},
        {"row": "restore-end", "rsync_exit_code": 23, "meaning": "\x1b[31m", "last_lines": ["\x1b[2J"] * 100_000},
    ],
    ids=lambda answer: answer["row"],
)
def test_s4_whatever_the_storage_answers_ends_in_a_sentence(
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    victim: Path,
    target: Path,
    answer: dict[str, Any],
) -> None:
    code, said = opened(machine, hostile, open_session, "--to", target, answers=[answer]).end()
    assert code != 0
    assert code != 70
    assert "\x1b" not in said
    assert "Traceback" not in said
    assert len(said) < 100_000


@pytest.mark.parametrize("behaviour", ["flood", "flood-line"])
def test_s4_a_storage_that_talks_without_end_is_cut_off(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, target: Path, behaviour: str
) -> None:
    hostile.will_say([], [])
    open_session("--version").wait(timeout=30)
    key = (machine.var_dir / "ssh_key.pub").read_text().strip()
    for words in (("restore", "etc", "--to", str(target), "--yes"), ("snapshots", "etc")):
        machine.sshd.authorized_keys.write_text(hostile.line(key, behaviour))
        ended = machine.run("turku-agent", *words, timeout=60)
        assert ended.returncode == 76, ended.stderr
        assert len(ended.stderr) < 20_000
