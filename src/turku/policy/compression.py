"""Whether what is sent is compressed: as a source says, or by what is known of the way to its storage."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Any

from turku.errors import InvalidValue

FAST_BYTES_PER_SECOND = 40_000_000
"""A way that brought this much needs no compression: it would take longer than sending."""
SLOW_BYTES_PER_SECOND = 12_500_000
"""Over a way that brought less, a storage has time to compress what it sends more thoroughly."""
THOROUGH_LEVEL = 9
"""Of rsync's methods but lz4, which has one level only."""
SUFFIXES = (
    *("3gp", "7z", "aac", "apk", "avi", "avif", "br", "bz2", "cab", "deb", "docx", "flac", "flv", "gif", "gpg", "gz"),
    *(
        "heic",
        "iso",
        "jar",
        "jpeg",
        "jpg",
        "lz",
        "lz4",
        "lzma",
        "lzo",
        "m4a",
        "m4v",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "mpeg",
    ),
    *("mpg", "odp", "ods", "odt", "oga", "ogg", "ogv", "opus", "png", "pptx", "qcow2c", "rar", "rpm", "rz", "squashfs"),
    *("svgz", "sz", "tbz", "tgz", "tlz", "txz", "tzst", "war", "webm", "webp", "whl", "wma", "wmv", "woff", "woff2"),
    *("xlsx", "xz", "z", "zip", "zst"),
)
"""Of files that are compressed already."""


class Compression(StrEnum):
    """What a source may say."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def parse(value: Any) -> Compression:
    """The choice; YAML's ``on`` and ``off`` are true and false. Raises InvalidValue."""
    if isinstance(value, bool):
        return Compression.ON if value else Compression.OFF
    try:
        return Compression(value)
    except ValueError:
        raise InvalidValue(f"must be one of: {', '.join(Compression)}") from None


def is_worth_it(choice: Compression, *, ssh_connection: str, bytes_per_second: float | None) -> bool:
    """Whether to compress.

    ``ssh_connection`` is what sshd says of the session (``SSH_CONNECTION``: both ends), empty where there was none;
    ``bytes_per_second`` what came over the way the last time, None where that is not known.
    """
    if choice is not Compression.AUTO:
        return choice is Compression.ON
    if not ssh_connection or _is_one_machine(ssh_connection):
        return False
    return bytes_per_second is None or bytes_per_second < FAST_BYTES_PER_SECOND


def is_slow(bytes_per_second: float | None) -> bool:
    """Return whether that little came over the way; None is not known."""
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
