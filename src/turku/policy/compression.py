"""The choice to compress transfers: by the source's option, or by the speed of the way to its storage."""

import ipaddress
from enum import StrEnum
from typing import Any

from turku.errors import InvalidValue

FAST_BYTES_PER_SECOND = 40_000_000
"""Bytes per second from which compression takes longer than sending."""
SLOW_BYTES_PER_SECOND = 12_500_000
"""Bytes per second below which there is time for stronger compression."""
THOROUGH_LEVEL = 9
"""Compression level for rsync's methods, except lz4, which has one level only."""
COMPRESSED_FILES = (
    "*.3gp *.7z *.aac *.apk *.avi *.avif *.br *.bz2 *.cab *.deb *.docx *.flac *.flv *.gif *.gpg *.gz *.heic *.iso "
    "*.jar *.jpeg *.jpg *.lz *.lz4 *.lzma *.lzo *.m4a *.m4v *.mkv *.mov *.mp3 *.mp4 *.mpeg *.mpg *.odp *.ods *.odt "
    "*.oga *.ogg *.ogv *.opus *.png *.pptx *.qcow2c *.rar *.rpm *.rz *.squashfs *.svgz *.sz *.tbz *.tgz *.tlz *.txz "
    "*.tzst *.war *.webm *.webp *.whl *.wma *.wmv *.woff *.woff2 *.xlsx *.xz *.z *.zip *.zst"
)
"""Patterns of names of files that are compressed already, as rsyncd.conf has them."""


class Compression(StrEnum):
    """The value of a source's option ``compress``."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def parse(value: Any) -> Compression:
    """Parse the option. YAML's ``on`` and ``off`` are true and false. Raises InvalidValue."""
    if isinstance(value, bool):
        return Compression.ON if value else Compression.OFF
    try:
        return Compression(value)
    except ValueError:
        raise InvalidValue(f"must be one of: {', '.join(Compression)}") from None


def is_worth_it(choice: Compression, *, ssh_connection: str, bytes_per_second: float | None) -> bool:
    """Return True when the transfer should be compressed.

    ``ssh_connection`` is sshd's ``SSH_CONNECTION`` with both ends of the session, or empty. ``bytes_per_second`` is the
    speed of the last transfer, or None if unknown.
    """
    if choice is not Compression.AUTO:
        return choice is Compression.ON
    if not ssh_connection or _is_one_machine(ssh_connection):
        return False
    return bytes_per_second is None or bytes_per_second < FAST_BYTES_PER_SECOND


def is_slow(bytes_per_second: float | None) -> bool:
    """Return True when the way is slow. None is an unknown speed."""
    return bytes_per_second is not None and bytes_per_second < SLOW_BYTES_PER_SECOND


def _is_one_machine(ssh_connection: str) -> bool:
    words = ssh_connection.split()
    if len(words) != 4:
        return False
    try:
        machine, storage = (ipaddress.ip_address(words[index].partition("%")[0]) for index in (0, 2))
    except ValueError:
        return False
    return machine.is_loopback or machine == storage
