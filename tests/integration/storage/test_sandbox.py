"""The sandbox around the receiver, with bubblewrap as it is installed: what gets through and what does not."""

import errno
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support import hostile_receiver, rsync_programs
from tests.support.backed_up_machine import backed_up_machine, storage_configuration
from tests.support.malicious_rsync_server import MaliciousRsyncServer
from tests.support.sshd import free_port

from turku.core import command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.secret import Secret
from turku.errors import BackupFailed, ConfigurationError
from turku.protocol import rsync_checksums
from turku.storage.commands import check
from turku.storage.commands.protection import host
from turku.storage.commands.protection.fact import Verdict
from turku.storage.containment import bubblewrap, capabilities, sandbox, seccomp
from turku.storage.fs import clone
from turku.storage.fs import tree as fs
from turku.storage.registration import faults
from turku.storage.rsync.file_system_support import probe_file_system
from turku.storage.session.checkin import Checkin

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
ALWAYS = "write its own directory"

pytestmark = [
    pytest.mark.storage_rsync,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


class Scene:
    """A machine's directory with a taken-over receiver in it, and around it all that it would like to reach."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.machine_dir = directory / "volume" / "machine"
        self.victim_file = directory / "volume" / "victim" / "file"
        for path in (self.machine_dir, self.victim_file.parent, directory / "storage"):
            path.mkdir(parents=True)
        self.victim_file.write_text("history")
        self.secret_file = directory / "storage" / "secret"
        self.secret_file.write_text("secret")
        self.bait = stack.enter_context(command.start(["sleep", "600"], extra_environment={"BAIT": "1"}))
        service = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract_name = f"\0turku-test-{os.getpid()}-{free_port()}"
        abstract.bind(abstract_name)
        abstract.listen()
        self.server = stack.enter_context(MaliciousRsyncServer([]))
        self.staging = self.machine_dir / ".staging"
        self.staging.mkdir()
        self._result = self.staging / "result.json"
        target = {
            "directory": ".",
            "machine_dir": str(self.machine_dir),
            "victim_file": str(self.victim_file),
            "secret_file": str(self.secret_file),
            "bait": self.bait.pid,
            "service_port": service.getsockname()[1],
            "abstract_socket": abstract_name,
        }
        (self.staging / "target.json").write_text(json.dumps(target))
        shutil.copy(hostile_receiver.__file__, self.staging / "hostile_receiver.py")
        self.argv = [PYTHON, "hostile_receiver.py", "target.json", "result.json"]
        for path in (directory, *directory.rglob("*")):
            os.chmod(path, 0o777)

    def what_worked(self) -> set[str]:
        """Return the names of the attempts that nothing stopped. ``environment`` is set to its environment."""
        content = json.loads(self._result.read_text())
        return {name for name, error in content["attempts"].items() if error is None}

    @property
    def environment(self) -> dict[str, str]:
        content: dict[str, str] = json.loads(self._result.read_text())["environment"]
        return content


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    # pytest's own directories are closed to the user without privileges.
    for directory in (tmp_path, *tmp_path.parents):
        if directory == Path(tempfile.gettempdir()):
            break
        directory.chmod(0o755)
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


def run_receiver(scene: Scene, tmp_path: Path, **keys: Any) -> None:
    storage = storage_configuration(tmp_path / "storage", keep_devices=False, **keys)
    with sandbox.contained_rsync(
        lambda _seen: scene.argv,
        configuration=storage,
        password=Secret("one-time"),
        port=scene.server.port,
        capabilities=capabilities.of_receiver(storage.receiving, fake_super=False),
        is_writable=True,
        directory=scene.staging,
    ) as child:
        child.stdout.read()
        code = child.wait(30)
        assert code == 0, child.last_lines


def test_a_taken_over_receiver_reaches_nothing_but_its_staging_directory(scene: Scene, tmp_path: Path) -> None:
    run_receiver(scene, tmp_path, sandbox="required")
    assert scene.what_worked() == {ALWAYS}
    assert scene.victim_file.read_text() == "history"
    assert scene.bait.poll() is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root reaches everything, others do not")
def test_without_the_sandbox_the_same_receiver_reaches_everything(scene: Scene, tmp_path: Path) -> None:
    run_receiver(scene, tmp_path, sandbox="off")
    assert scene.what_worked() == hostile_receiver.attempts({"directory": "", "machine_dir": ""}).keys()
    assert scene.victim_file.read_text() == "owned"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_without_root_a_taken_over_receiver_reaches_no_more(scene: Scene) -> None:
    descriptor = seccomp.descriptor()
    options = ["--seccomp", str(descriptor)] if descriptor is not None else []
    argv = bubblewrap.wrap(
        scene.argv, writable={"/tree": scene.staging}, directory="/tree", capabilities=None, options=options
    )
    with command.start([*AS_NOBODY, *argv], pass_descriptors=[] if descriptor is None else [descriptor]) as child:
        assert child.wait(30) == 0, child.last_lines
    if descriptor is not None:
        os.close(descriptor)
    assert scene.what_worked() == {ALWAYS}


def test_the_password_comes_by_the_environment_and_in_no_argument(scene: Scene, tmp_path: Path) -> None:
    run_receiver(scene, tmp_path, sandbox="required")
    assert scene.environment["RSYNC_PASSWORD"] == "one-time"


def test_a_service_that_is_no_rsync_daemon_gets_no_byte(tmp_path: Path) -> None:
    storage = storage_configuration(tmp_path / "storage")
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        service.settimeout(10)

        def wait_for_greeting() -> None:
            with (
                pytest.raises(BackupFailed, match="no rsync daemon answers"),
                sandbox.contained_rsync(
                    lambda _seen: ["true"],
                    configuration=storage,
                    password=Secret("x"),
                    directory=tmp_path,
                    port=port,
                    capabilities=None,
                ),
            ):
                raise AssertionError("nothing is to be started")

        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(1))
            asking = pool.submit(wait_for_greeting)
            connection, _ = service.accept()
            stack.enter_context(connection)
            connection.settimeout(10)
            connection.sendall(b"SSH-2.0-Open")
            # Closed with our words unread, the kernel says "reset": no byte came either way.
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""
            asking.result(10)


def test_a_port_where_nobody_listens_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="nobody listens at port"):
        sandbox.connect(free_port())


def test_no_process_of_the_sandbox_outlives_the_run(scene: Scene, tmp_path: Path) -> None:
    storage = storage_configuration(tmp_path / "storage", sandbox="required")
    beat = scene.staging / "beat"
    script = "(while :; do echo x >> beat; sleep 0.01; done) & while [ ! -s beat ]; do sleep 0.01; done"
    with sandbox.contained_rsync(
        lambda _seen: ["sh", "-c", script],
        configuration=storage,
        password=Secret("one-time"),
        directory=scene.staging,
        port=scene.server.port,
        capabilities=capabilities.of_receiver(storage.receiving, fake_super=False),
        is_writable=True,
    ) as child:
        assert child.wait(30) == 0
    size = beat.stat().st_size
    time.sleep(0.3)
    assert beat.stat().st_size == size


def test_required_refuses_where_bubblewrap_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = storage_configuration(tmp_path / "storage", sandbox="required")
    monkeypatch.setenv("PATH", str(tmp_path))
    bubblewrap._probe.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="not installed"):
            bubblewrap.is_contained(storage.limits)
        assert not bubblewrap.is_contained(storage_configuration(tmp_path / "other", sandbox="auto").limits)
    finally:
        bubblewrap._probe.cache_clear()


class Probed:
    """A ``bwrap`` that does first what ``script`` says, and is forgotten with its test."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.program = directory / "programs" / "bwrap"
        self.program.parent.mkdir()
        self.real = shutil.which("bwrap")
        monkeypatch.setenv("PATH", f"{self.program.parent}:{os.environ['PATH']}")

    def does(self, script: str) -> None:
        bubblewrap._probe.cache_clear()
        self.program.write_text(f'#!/bin/sh\n{script}\nexec {self.real} "$@"\n')
        self.program.chmod(0o755)


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probed]:
    yield Probed(tmp_path, monkeypatch)
    bubblewrap._probe.cache_clear()


@pytest.mark.parametrize(
    "script",
    [
        "kill -KILL $$",
        "sleep 60",
        "echo 'bwrap: Creating new namespace failed: Resource temporarily unavailable'; exit 1",
        "echo 'bwrap: fork: Cannot allocate memory'; exit 1",
    ],
    ids=["killed", "slow", "no process to be had", "no memory"],
)
def test_a_session_whose_sandbox_could_not_be_tried_does_not_go_on_without(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(bubblewrap, "_PROBE_TIMEOUTS_SECONDS", (0.5, 0.5))
    with backed_up_machine(tmp_path / "machine", sandbox="auto") as machine:
        (machine.source_dir / "file").write_text("content")
        probed.does(script)
        outcome = machine.back_up()
        assert not outcome.success
        assert "could not be tried" in outcome.summary
        assert machine.snapshots() == []
        # Nothing is remembered of it: the next run is contained.
        sandbox_is_remembered = bubblewrap._probe.cache_info().currsize
        assert sandbox_is_remembered == 0
        probed.does("")
        assert machine.back_up().success
        assert bubblewrap.sandbox_availability(machine.storage.limits).is_used


def test_a_probe_that_was_killed_once_is_made_again(probed: Probed, tmp_path: Path) -> None:
    probed.does(f"[ -e {tmp_path}/killed ] || {{ touch {tmp_path}/killed; kill -KILL $$; }}")
    assert bubblewrap.is_contained(storage_configuration(tmp_path / "storage", sandbox="auto").limits)


def test_auto_does_without_where_bubblewrap_says_that_it_cannot(probed: Probed, tmp_path: Path) -> None:
    probed.does("echo 'bwrap: No permissions to create new namespace'; exit 1")
    assert not bubblewrap.is_contained(storage_configuration(tmp_path / "storage", sandbox="auto").limits)


@pytest.mark.parametrize(
    ("sandbox", "is_root", "is_refused", "is_told"),
    [
        (None, True, True, True),
        ("required", True, True, True),
        ("required", False, True, True),
        ("auto", True, False, True),
        ("auto", False, False, True),
        # A storage without root has it where it works. `check` warns.
        (None, False, False, False),
        ("off", True, False, False),
    ],
)
def test_without_a_sandbox_root_refuses_unless_told_and_a_fallback_is_told(
    probed: Probed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    sandbox: str | None,
    is_root: bool,
    is_refused: bool,
    is_told: bool,
) -> None:
    probed.does("echo 'bwrap: No permissions to create new namespace'; exit 1")
    storage = storage_configuration(tmp_path / "storage", sandbox=sandbox)
    (tmp_path / "storage" / "volume").mkdir()
    storage.state.var_dir.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    if is_refused:
        with pytest.raises(ConfigurationError, match=r"sandbox: required, but .*namespace"):
            bubblewrap.is_contained(storage.limits)
    else:
        assert not bubblewrap.is_contained(storage.limits)
    fact = host._sandbox(storage.limits)
    assert fact.verdict is (Verdict.FAIL if is_refused else Verdict.WARN)
    said = bubblewrap.fault(storage.limits)
    assert (said is not None) == is_told
    # The session tells it with each run, and the timer's run tells the coordinator.
    checkin = Checkin(storage, "uuid", None, None, SYSTEM_CLOCK)  # type: ignore[arg-type]  # neither is used
    checkin._note_containment()
    assert [fault.text for fault in faults.found(storage)] == ([said] if is_told else [])
    assert checkin.warnings == ((said,) if is_told and not is_refused else ())
    # The next session may find it well.
    monkeypatch.setattr(bubblewrap, "fault", lambda _limits: None)
    checkin._note_containment()
    assert faults.found(storage) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the default of root")
def test_a_backup_as_root_is_refused_without_the_sandbox(probed: Probed, tmp_path: Path) -> None:
    probed.does("echo 'bwrap: No permissions to create new namespace'; exit 1")
    with backed_up_machine(tmp_path / "machine", sandbox=None) as machine:
        (machine.source_dir / "file").write_text("content")
        outcome = machine.back_up()
        assert not outcome.success
        assert "sandbox: required, but bubblewrap does not work here" in outcome.summary
        assert machine.snapshots() == []


def test_check_names_a_sandbox_that_could_not_be_tried(probed: Probed, tmp_path: Path) -> None:
    probed.does("kill -KILL $$")
    said: list[str] = []
    storage = storage_configuration(tmp_path / "storage", sandbox="auto")
    (tmp_path / "storage" / "volume").mkdir()
    assert check.report(storage, said.append) > 0
    assert any(line.startswith("PROBLEM: sandbox") and "could not be tried" in line for line in said)


def test_a_file_system_that_could_not_be_tried_is_not_taken_for_one_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_configuration(tmp_path)

    def fails(_path: Path) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fs, "create_unnamed_file", fails)
    # Owners would be lost, a mode without history chosen, and rsync's checksums left out.
    with pytest.raises(OSError, match="No space left"):
        probe_file_system(storage, tmp_path)
    with pytest.raises(OSError, match="No space left"):
        clone.can_clone(tmp_path)
    assert clone.may_share_blocks(tmp_path)


def test_rsync_is_asked_again_for_its_checksums_when_the_first_answer_was_cut_off(tmp_path: Path) -> None:
    real = rsync_programs.path_of(rsync_programs.chosen.storage)
    once = f'[ -e {tmp_path}/killed ] || {{ touch {tmp_path}/killed; kill -KILL $$; }}; exec {real} "$@"'
    assert rsync_checksums.knows_xxh128(["sh", "-c", once, "rsync"])


def test_a_sender_sees_its_tree_and_changes_nothing(tmp_path: Path) -> None:
    storage = storage_configuration(tmp_path / "storage", sandbox="required")
    machine_dir = tmp_path / "volume" / "machine"
    tree = machine_dir / "etc.snapshots" / "etc_20260131-120000_0000"
    for path in (tree, machine_dir / "etc", tmp_path / "volume" / "victim"):
        path.mkdir(parents=True)
        (path / "file").write_text("history")
    (tree / "secret").write_text("of another owner")
    (tree / "secret").chmod(0)
    script = f"cat file; cat secret; find /tree {tmp_path} -type f; touch new file; rm -f file; echo x > file; ls /proc/net/tcp"
    with (
        MaliciousRsyncServer([]) as server,
        sandbox.contained_rsync(
            lambda _seen: ["sh", "-c", script],
            configuration=storage,
            password=Secret("one-time"),
            directory=tree,
            capabilities=capabilities.of_sender(storage.receiving),
            port=server.port,
        ) as child,
    ):
        said = child.stdout.read().decode()
        child.wait(30)
    assert said.startswith("history")
    # Whoever may not read a file there is root without leave to, and not the sender.
    assert ("of another owner" in said) == (os.geteuid() == 0)
    assert "volume" not in said
    assert "/tree/file" in said
    assert sorted(path.name for path in tree.iterdir()) == ["file", "secret"]
    assert (tree / "file").read_text() == "history"
