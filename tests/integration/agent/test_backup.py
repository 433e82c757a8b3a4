"""Backups by our agent against a coordinator and a storage of the existing system."""

import os
import re
import stat
import sys
import textwrap
from pathlib import Path

from tests.integration.agent.conftest import Machine, end, wait_for
from tests.support.sshd import free_port
from tests.support.v1_client import new_ssh_key
from tests.support.v1_server import V1Api


def make_tree(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "file").write_text(text)
    (directory / "absolute-link").symlink_to("/etc/hostname")
    (directory / "relative-link").symlink_to("../outside")
    return directory


def sessions(machine: Machine) -> int:
    """Return the number of sessions that sshd accepted, by its log."""
    return sum("Accepted publickey" in line for line in machine.sshd.last_lines)


def test_two_sources_of_a_storage_are_backed_up_through_one_tunnel(
    machine: Machine, api: V1Api, tmp_path: Path
) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.source("home", make_tree(tmp_path / "src/home", "two"))
    machine.register()
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    assert (machine.backed_up("etc") / "file").read_text() == "one"
    assert (machine.backed_up("home") / "file").read_text() == "two"
    assert os.readlink(machine.backed_up("etc") / "absolute-link") == "/etc/hostname"
    assert os.readlink(machine.backed_up("etc") / "relative-link") == "../outside"
    assert {name: report["success"] for name, report in api.reports.items()} == {"etc": True, "home": True}
    assert sessions(machine) == 1
    assert re.search(r"^\[[-0-9]{10} [0-9:,]{12} primary\] INFO: Source etc: starting$", ping.stderr, re.MULTILINE)


def test_a_storage_of_the_existing_system_finds_nothing_on_its_input_after_the_request(
    machine: Machine, api: V1Api, tmp_path: Path
) -> None:
    # It takes any further input for the end of the session, and fails.
    tree = make_tree(tmp_path / "src/etc", "one")
    machine.source("etc", tree)
    machine.register()
    # Of three lengths: by seconds, as that storage compares times, the files may be of one.
    for text in ("one", "second", "the third"):
        (tree / "file").write_text(text)
        ping = machine.ping()
        assert ping.returncode == 0, ping.stderr
        assert (machine.backed_up("etc") / "file").read_text() == text
    assert not (machine.var_dir / "changed_entries").exists()


def test_nothing_is_left_behind_after_a_backup(machine: Machine, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    assert machine.ping().returncode == 0
    assert list((machine.var_dir / "run").iterdir()) == []
    assert stat.S_IMODE((machine.var_dir / "run").stat().st_mode) == 0o700
    assert machine.processes() == []


def test_nothing_due_opens_no_session(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    api.due = set()
    ping = machine.ping()
    assert (ping.returncode, ping.stdout, ping.stderr) == (0, "", "")
    assert sessions(machine) == 0


def test_an_unreachable_storage_does_not_stop_the_others(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    api.storages["away"] = {**api.storages["primary"], "ssh_ping_port": free_port()}
    api.placed["home"] = "away"
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.source("home", make_tree(tmp_path / "src/home", "two"))
    machine.register()
    ping = machine.ping()
    assert ping.returncode == 2
    assert (machine.backed_up("etc") / "file").read_text() == "one"
    assert "ERROR: storage away: no SSH session" in ping.stderr
    assert "Connection refused" in ping.stderr
    assert "error [backup-failed]: the session with away failed" in ping.stderr


def test_a_storage_that_holds_its_session_open_is_left_after_the_time_limit(
    machine: Machine, api: V1Api, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "src/big", "x")
    (tree / "big").write_bytes(os.urandom(2_000_000))
    machine.source("big", tree, bwlimit=10)
    machine.register()
    machine.configure(session_timeout_seconds=2)
    ping = machine.ping()
    assert ping.returncode == 2
    assert "did not end within 2 s" in ping.stderr
    assert machine.processes() == []


def test_a_port_taken_on_the_storage_is_noticed_and_another_is_tried(
    machine: Machine, api: V1Api, tmp_path: Path
) -> None:
    # An ssh that, at its first run, takes the asked port on the storage (this host) before the real one connects.
    wrapper = tmp_path / "ssh-behind-somebody-else"
    wrapper.write_text(
        textwrap.dedent(f"""\
        #!{sys.executable}
        import os, socket, sys, pathlib, time
        once = pathlib.Path({str(tmp_path / "taken")!r})
        if not once.exists():
            port = int(sys.argv[sys.argv.index("-R") + 1].split(":")[0])
            taken = [socket.create_server(("127.0.0.1", port)),
                     socket.create_server(("::1", port), family=socket.AF_INET6)]
            once.write_text(str(port))
            if os.fork() == 0:
                devnull = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(devnull, descriptor)
                time.sleep(60)
                os._exit(0)
        os.execvp("ssh", ["ssh", *sys.argv[1:]])
        """)
    )
    wrapper.chmod(0o755)
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    machine.configure(ssh_command=[str(wrapper)])
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    assert "could not listen on the port that was drawn; trying another" in ping.stderr
    assert f"forwarding failed for listen port {(tmp_path / 'taken').read_text()}" in ping.stderr
    assert api.reports["etc"]["success"]
    assert sessions(machine) == 2


def test_a_storage_with_another_host_key_gets_nothing(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    api.storages["primary"]["ssh_ping_host_keys"] = [new_ssh_key()]
    ping = machine.ping()
    assert ping.returncode == 2
    assert "which this machine does not trust; it gets nothing" in ping.stderr
    assert not machine.backed_up("etc").exists()


def test_an_address_that_could_be_taken_for_an_option_is_refused(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    witness = tmp_path / "witness"
    api.storages["primary"]["ssh_ping_host"] = f"-oProxyCommand=touch {witness}"
    ping = machine.ping()
    assert ping.returncode == 2
    assert "storage primary, as the coordinator describes it:" in ping.stderr
    assert not witness.exists()


def test_the_coordinator_cannot_ask_for_another_directory(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    api.paths["etc"] = str(make_tree(tmp_path / "src/secret", "secret"))
    assert machine.ping().returncode == 0
    assert (machine.backed_up("etc") / "file").read_text() == "one"


def test_a_source_that_is_not_configured_any_more_is_not_offered(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.source("home", make_tree(tmp_path / "src/home", "two"))
    machine.register()
    (machine.config_dir / "sources.d/home.json").unlink()
    ping = machine.ping()
    assert ping.returncode == 0
    assert "source 'home' is due, but not configured here" in ping.stderr
    assert set(api.reports) == {"etc"}


def test_trouble_that_rsyncd_has_reaches_the_log(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("gone", tmp_path / "gone")
    machine.register()
    ping = machine.ping()
    assert re.search(r"WARNING: rsyncd: .*gone.*No such file or directory", ping.stderr)
    assert api.reports["gone"]["success"] is False


def test_a_second_run_while_one_is_active_ends_at_once(machine: Machine, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "src/big", "x")
    (tree / "big").write_bytes(os.urandom(2_000_000))
    machine.source("big", tree, bwlimit=10)
    machine.register()
    with machine.start("turku-agent-ping") as first:
        try:
            wait_for(machine.processes)
            second = machine.ping()
            assert second.returncode == 75
            assert "error [lock-held]: another run holds" in second.stderr
        finally:
            first.terminate()
            first.communicate(timeout=20)
            end(first)


def test_a_go_no_go_program_that_says_no_ends_the_run_quietly(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    ping = machine.ping("--gonogo-program", "sh -c 'echo no room; exit 3'")
    assert ping.returncode == 0
    assert "sh: no room" in ping.stderr
    assert "no backup now: the go/no-go program sh ended with exit code 3" in ping.stderr
    assert api.of_call("agent_ping_checkin") == []
    machine.configure(gonogo_program=["test", "-d", str(tmp_path)])
    assert machine.ping().returncode == 0
    assert api.reports["etc"]["success"]


def test_a_go_no_go_program_is_not_given_to_a_shell(machine: Machine, tmp_path: Path) -> None:
    machine.source("etc", make_tree(tmp_path / "src/etc", "one"))
    machine.register()
    assert machine.ping("--gonogo-program", f"true ; touch {tmp_path / 'witness'}").returncode == 0
    assert not (tmp_path / "witness").exists()
    missing = machine.ping("--gonogo-program", "/no/such/program")
    assert missing.returncode == 70
    assert "cannot start /no/such/program" in missing.stderr


def test_two_hundred_sources_fit_into_one_session(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "src/etc", "one")
    content = {f"source-{number}": {"path": str(tree)} for number in range(200)}
    (machine.config_dir / "sources.d/many.yaml").write_text(
        "".join(f"{name}:\n  path: {options['path']}\n" for name, options in content.items())
    )
    machine.register()
    api.due = {"source-0", "source-199"}
    assert machine.ping().returncode == 0
    assert set(api.reports) == {"source-0", "source-199"}
