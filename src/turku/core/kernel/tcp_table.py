"""The kernel's tables of TCP sockets (/proc/net/tcp and tcp6)."""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PROC = Path("/proc")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class TcpState(StrEnum):
    """The state of a socket, in the kernel's digits."""

    ESTABLISHED = "01"
    LISTEN = "0A"


@dataclass(frozen=True)
class TcpSocket:
    """A TCP socket of this host."""

    address: IpAddress
    port: int
    uid: int
    """User that owns it."""
    inode: int


def sockets(state: TcpState, *, port: int | None = None, proc: Path = PROC) -> Iterator[TcpSocket]:
    """Yield the sockets in this state, those of IPv4 first, and of one local port alone where one is given.

    Raises OSError. A kernel without IPv6 has one table only.
    """
    for family in ("tcp", "tcp6"):
        try:
            table = (proc / "net" / family).open(encoding="ascii")
        except FileNotFoundError:
            if family == "tcp":
                raise
            continue
        with table:
            next(table, None)
            for line in table:
                columns = line.split()
                address, _colon, number = columns[1].partition(":")
                if columns[3] == state and port in (None, int(number, 16)):
                    yield TcpSocket(_address(address), int(number, 16), uid=int(columns[7]), inode=int(columns[9]))


def _address(text: str) -> IpAddress:
    # The kernel prints each 32-bit word as a number, in the machine's own byte order.
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
