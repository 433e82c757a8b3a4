"""Our rsyncd: every lawful path is served as it is, and only to who has the session's credentials."""

import itertools
import os
import re
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from turku.agent.config.loading import load
from turku.agent.config.model import AgentConfig
from turku.agent.rsyncd import daemon, serving_daemon
from turku.agent.rsyncd.config_text import Module
from turku.core.configuration.declaration import with_values
from turku.errors import CommandFailed

NAMES = [
    "plain",
    "with blank",
    " leading and trailing ",
    "100%",
    "%HOME%",
    "%RSYNC_MODULE_NAME%",
    "a%%b",
    "# no comment",
    "; nor this",
    "back\\slash",
    "backslash at the end\\",
    "[brackets]",
    "key = value",
    "&include elsewhere",
    "tab\there",
    "quotes \"'",
    "ünïcödé ☃",
    "dir/./with dot",
]


@pytest.fixture
def agent(tmp_path: Path) -> AgentConfig:
    (tmp_path / "etc/config.d").mkdir(parents=True)
    (tmp_path / "etc/config.d/a.json").write_text(
        f'{{"api_url": "http://127.0.0.1:1/v1", "var_dir": "{tmp_path / "var"}"}}'
    )
    return load(tmp_path / "etc")


def fetch(port: int, module: Module, target: Path | None = None, *, password: str | None = None) -> str:
    """Return the output of rsync. Raises CalledProcessError."""
    completed = subprocess.run(
        [
            *("rsync", "--archive", "--itemize-changes", f"rsync://{module.username}@127.0.0.1:{port}/{module.name}/"),
            *((str(target),) if target else ()),
        ],
        env={**os.environ, "RSYNC_PASSWORD": password or module.password.reveal()},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return completed.stdout


def test_every_path_is_served_as_it_is(agent: AgentConfig, tmp_path: Path) -> None:
    modules = []
    for number, name in enumerate(NAMES):
        path = f"{tmp_path}/{number}/{name}"
        os.makedirs(path)
        Path(path, f"marker-{number}").touch()
        modules.append(Module(f"module {number}", path))
    (tmp_path / "run").mkdir(mode=0o700)
    with serving_daemon.serve(agent, modules, tmp_path / "run") as port:
        for number, module in enumerate(modules):
            assert f"marker-{number}" in fetch(port, module), module.path


def test_a_module_opens_only_with_its_own_credentials(agent: AgentConfig, tmp_path: Path) -> None:
    one, two = Module("one", str(tmp_path)), Module("two", str(tmp_path))
    (tmp_path / "run").mkdir(mode=0o700)
    with serving_daemon.serve(agent, [one, two], tmp_path / "run") as port:
        assert "run" in fetch(port, one)
        for attempt in (replace(one, name="two"), replace(one, password=two.password)):
            with pytest.raises(subprocess.CalledProcessError) as refused:
                fetch(port, attempt)
            assert "auth failed" in refused.value.stderr


def test_modules_are_neither_listed_nor_written_to(agent: AgentConfig, tmp_path: Path) -> None:
    module = Module("etc", str(tmp_path))
    (tmp_path / "run").mkdir(mode=0o700)
    with serving_daemon.serve(agent, [module], tmp_path / "run") as port:
        listing = subprocess.run(
            ["rsync", f"rsync://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=30, check=False
        )
        assert listing.stdout == ""
        written = subprocess.run(
            ["rsync", "/etc/hostname", f"rsync://{module.username}@127.0.0.1:{port}/etc/"],
            env={**os.environ, "RSYNC_PASSWORD": module.password.reveal()},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "read only" in written.stdout + written.stderr


def test_a_port_that_is_taken_here_is_passed_over(
    agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        candidates = itertools.chain([taken.getsockname()[1]], iter(daemon.draw_port, None))
        monkeypatch.setattr(daemon, "draw_port", lambda: next(candidates))
        (tmp_path / "run").mkdir(mode=0o700)
        module = Module("etc", str(tmp_path))
        with serving_daemon.serve(agent, [module], tmp_path / "run") as port:
            assert port != taken.getsockname()[1]
            fetch(port, module)


def test_no_password_file_can_be_read_by_others(agent: AgentConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    module = Module("etc", str(tmp_path))
    with serving_daemon.serve(agent, [module], tmp_path / "run"):
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert any(module.password.reveal() in path.read_text() for path in files)
        assert {path.stat().st_mode & 0o077 for path in files if path.name != "connections.lock"} == {0}


def test_a_daemon_that_does_not_come_up_is_an_error_with_its_last_words(agent: AgentConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    broken = with_values(agent, rsyncd_command=("sh", "-c", "echo out of order >&2; exit 4"))
    with pytest.raises(CommandFailed, match="rsyncd ended with exit code 4 before it answered") as error:
        serving_daemon.serve(broken, [], tmp_path / "run").__enter__()
    assert error.value.details == "out of order"


def test_an_address_that_is_not_of_this_machine_is_named(agent: AgentConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    elsewhere = with_values(agent, rsyncd_local_address="192.0.2.1")
    with pytest.raises(CommandFailed, match=re.escape("cannot listen on 192.0.2.1")):
        serving_daemon.serve(elsewhere, [], tmp_path / "run").__enter__()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's process")
def test_a_listener_of_another_user_is_not_taken_for_ours() -> None:
    script = "import os,socket,sys; os.setuid(65534); s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert not daemon.is_listener_ours(int(process.stdout.readline()))
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert daemon.is_listener_ours(ours.getsockname()[1])


def test_rsyncd_answers_within_a_moment(agent: AgentConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    begin = os.times().elapsed
    with serving_daemon.serve(agent, [Module("etc", str(tmp_path))], tmp_path / "run"):
        assert os.times().elapsed - begin < 10


EMPTIED = [
    *("plain", "with blank ", "a*b", "a?c", "[x]y", "back\\slash", "end\\", "line\nbreak", "- x", "# y", "; z", "!"),
    *("ünïcödé", os.fsdecode(b"latin \xe9"), "deep/er/one", "***", "[!a]", "%HOME%"),
]
LOOKALIKES = ["aXb", "aXc", "xy", "a*bc", "plain2", "deep/er", "backslash", "X", "b"]


@pytest.mark.parametrize("change_root", [True, False])
def test_a_directory_is_offered_without_what_is_in_it_and_no_other_one(
    agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_root: bool
) -> None:
    if not change_root:
        monkeypatch.setattr(daemon, "can_change_root", lambda: False)
    tree = tmp_path / "tree"
    for name in (*EMPTIED, *LOOKALIKES):
        (tree / name / "sub").mkdir(parents=True, exist_ok=True)
        (tree / name / "sub" / "file").touch()
        (tree / name / ".file").touch()
    module = Module("tree", str(tree), emptied=tuple(tree / name for name in EMPTIED))
    (tmp_path / "run").mkdir(mode=0o700)
    with serving_daemon.serve(agent, [module], tmp_path / "run") as port:
        fetch(port, module, tmp_path / "fetched")
    fetched = tmp_path / "fetched"
    assert {name: os.listdir(fetched / name) for name in EMPTIED} == {name: [] for name in EMPTIED}
    for name in LOOKALIKES:
        assert (fetched / name / "sub" / "file").exists(), name
        assert (fetched / name / ".file").exists(), name


@pytest.mark.parametrize("change_root", [True, False])
def test_the_whole_system_is_served(
    agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_root: bool
) -> None:
    if not change_root:
        monkeypatch.setattr(daemon, "can_change_root", lambda: False)
    module = Module("system", "/", emptied=(Path("/proc"), Path("/sys")))
    (tmp_path / "run").mkdir(mode=0o700)

    def listed(port: int, path: str) -> list[str]:
        completed = subprocess.run(
            ["rsync", "--list-only", "--dirs", f"rsync://{module.username}@127.0.0.1:{port}/system{path}/"],
            env={**os.environ, "RSYNC_PASSWORD": module.password.reveal()},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return [line.split(maxsplit=4)[-1] for line in completed.stdout.splitlines()]

    with serving_daemon.serve(agent, [module], tmp_path / "run") as port:
        assert {"etc", "proc", "sys", "usr"} <= set(listed(port, ""))
        assert listed(port, "/proc") == ["."]
        assert "passwd" in listed(port, "/etc")
