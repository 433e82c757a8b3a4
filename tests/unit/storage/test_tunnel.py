"""The owner of a port by the kernel's tables, which the test writes itself."""

import os
from pathlib import Path

import pytest

from turku.errors import TunnelRefused
from turku.storage.session import tunnel_ownership

PORT = 50000
HEX_PORT = f"{PORT:04X}"
LOOPBACK = "0100007F" if os.sys.byteorder == "little" else "7F000001"  # type: ignore[attr-defined]
ANY = "00000000"
OUR_UID = os.geteuid()
SSHD = 990_001


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc in which this process was started by the sshd of a session, with the socket 111."""
    (tmp_path / "net").mkdir()
    write_table(tmp_path, "tcp")
    write_table(tmp_path, "tcp6")
    add_process(tmp_path, os.getppid(), "sh (the) forced", 990_000)
    add_process(tmp_path, 990_000, "sudo", SSHD)
    add_process(tmp_path, SSHD, "sshd", 990_002, sockets=(111,))
    add_process(tmp_path, 990_002, "sshd", 1, sockets=(222,))
    return tmp_path


def add_process(proc: Path, process: int, name: str, parent: int, *, sockets: tuple[int, ...] = ()) -> None:
    descriptors = proc / str(process) / "fd"
    descriptors.mkdir(parents=True)
    (proc / str(process) / "stat").write_text(f"{process} ({name}) S {parent} 1 1 0\n")
    (descriptors / "0").symlink_to("/dev/null")
    for number, inode in enumerate(sockets, start=3):
        (descriptors / str(number)).symlink_to(f"socket:[{inode}]")


def write_table(proc: Path, family: str, *rows: tuple[str, str, int, int], port: str = HEX_PORT) -> None:
    """Rows of address, state, user and inode."""
    lines = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"]
    for index, (address, state, uid, inode) in enumerate(rows):
        lines.append(
            f"   {index}: {address}:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 "
            f"{uid:5d}        0 {inode} 1 0000000000000000 100 0 0 10 0"
        )
    (proc / "net" / family).write_text("\n".join(lines) + "\n")


def test_the_sessions_own_tunnel_is_admitted(proc: Path) -> None:
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID, 111))
    tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_a_port_of_another_program_is_refused(proc: Path) -> None:
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID, 333))
    with pytest.raises(TunnelRefused, match="another program"):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_a_port_of_the_sshd_that_listens_for_all_is_not_the_sessions(proc: Path) -> None:
    write_table(proc, "tcp", (ANY, "0A", OUR_UID, 222))
    with pytest.raises(TunnelRefused):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_connections_are_no_listeners(proc: Path) -> None:
    write_table(proc, "tcp", (LOOPBACK, "01", OUR_UID, 111))
    with pytest.raises(TunnelRefused, match="nothing listens"):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_another_port_does_not_count(proc: Path) -> None:
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID, 111), port=f"{PORT + 1:04X}")
    with pytest.raises(TunnelRefused, match="nothing listens"):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_a_tunnel_on_the_other_loopback_address_does_not_vouch_for_a_service_on_this_one(proc: Path) -> None:
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID, 333))
    write_table(proc, "tcp6", ("00000000000000000000000001000000", "0A", OUR_UID, 111))
    with pytest.raises(TunnelRefused, match="another program"):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_a_service_on_all_addresses_of_version_6_takes_these_connections_too(proc: Path) -> None:
    write_table(proc, "tcp6", ("0" * 32, "0A", OUR_UID, 333))
    with pytest.raises(TunnelRefused, match="another program"):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_a_tunnel_that_listens_on_all_addresses_is_warned_of(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(proc, "tcp", (ANY, "0A", OUR_UID, 111))
    tunnel_ownership.require_own_tunnel(PORT, proc=proc)
    assert "GatewayPorts no" in caplog.text


def test_the_user_decides_where_sshds_sockets_cannot_be_seen(proc: Path) -> None:
    # As /proc/PID/fd of another user: it cannot be listed.
    hidden = proc / str(SSHD) / "fd"
    for entry in hidden.iterdir():
        entry.unlink()
    hidden.rmdir()
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID, 333))
    tunnel_ownership.require_own_tunnel(PORT, proc=proc)
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID + 1, 333))
    with pytest.raises(TunnelRefused):
        tunnel_ownership.require_own_tunnel(PORT, proc=proc)


def test_a_run_by_hand_is_warned_and_goes_on(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    (proc / str(os.getppid()) / "stat").write_text(f"{os.getppid()} (bash) S 1 1 1 0\n")
    write_table(proc, "tcp", (LOOPBACK, "0A", OUR_UID, 333))
    tunnel_ownership.require_own_tunnel(PORT, proc=proc)
    assert "not started by sshd" in caplog.text


def test_without_the_kernels_table_it_is_warned_and_goes_on(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    (proc / "net" / "tcp").unlink()
    tunnel_ownership.require_own_tunnel(PORT, proc=proc)
    assert "cannot see whose port" in caplog.text
