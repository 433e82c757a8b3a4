"""The kernel's tables of TCP sockets, and the sockets of this process in them."""

import ipaddress
import os
import socket
from pathlib import Path

import pytest

from turku.core.kernel import tcp_table
from turku.core.kernel.tcp_table import TcpState


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")])
def test_a_listener_of_this_process_is_found_with_its_owner(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        listener.listen(1)
        port = listener.getsockname()[1]
        found = list(tcp_table.sockets(TcpState.LISTEN, port=port))
        inode = os.fstat(listener.fileno()).st_ino
        assert [(str(each.address), each.port, each.uid, each.inode) for each in found] == [
            (str(ipaddress.ip_address(address)), port, os.geteuid(), inode)
        ]
        assert list(tcp_table.sockets(TcpState.ESTABLISHED, port=port)) == []


def test_without_ipv6_there_is_one_table_and_without_any_an_error(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    with pytest.raises(FileNotFoundError):
        list(tcp_table.sockets(TcpState.LISTEN, proc=tmp_path))
    (tmp_path / "net/tcp").write_text("  sl  local_address rem_address   st\n")
    assert list(tcp_table.sockets(TcpState.LISTEN, proc=tmp_path)) == []
