"""The messages of ssh about a connection that did not come about, told in our own words.

ssh and the storage's program share one stream, and a storage may print any text. It can make this machine name another
reason for a session that failed, and nothing else.
"""

import re
from collections.abc import Iterable, Sequence

from turku.agent.tunnel.trusted_storages import Address, shown
from turku.errors import CommandFailed, HostKeyRefused, NotAdmitted, StorageUnreachable

HOST_ALIAS = "turku-storage"
"""The name under which ssh looks up host keys. It is the only one in the file, for every address and port."""
_BLOCK_BEGIN = re.compile(r"@{20,}")
_BLOCK_END = "Host key verification failed."
_BLOCK_LIMIT = 40
_NO_KEY_OF_THE_TYPE = re.compile(rf"No \S+ host key is known for {HOST_ALIAS} and you have requested strict checking\.")
_DENIED = re.compile(r"(\S+: )?Permission denied \([a-z,-]*\)\.?")
_TOO_MANY = "Too many authentication failures"
_FINGERPRINT = re.compile(r"(SHA256:[A-Za-z0-9+/]{43})\.?")


class SshMessageFilter:
    """Tells the lines that ``failure`` puts in other words from all others. Not for several threads at once."""

    def __init__(self) -> None:
        self._left_in_block = 0

    def is_replaced(self, line: str) -> bool:
        """Return True for a line of ssh about host keys or a refused key."""
        if self._left_in_block:
            self._left_in_block = 0 if line == _BLOCK_END else self._left_in_block - 1
            return True
        if _BLOCK_BEGIN.fullmatch(line):
            self._left_in_block = _BLOCK_LIMIT
            return True
        return line == _BLOCK_END or any(each.fullmatch(line) for each in (_NO_KEY_OF_THE_TYPE, _DENIED))


def without_replaced(lines: Iterable[str]) -> list[str]:
    """Return the lines that ``failure`` does not put in other words."""
    messages = SshMessageFilter()
    return [line for line in lines if not messages.is_replaced(line)]


def failure(address: Address, last_lines: Sequence[str]) -> CommandFailed:
    """Return the error of a session that ssh could not have, by its last lines."""
    details = "\n".join(without_replaced(last_lines))
    where = f"storage {address.name} ({address.host} port {address.port})"
    if _BLOCK_END in last_lines:
        found = next((match[1] for line in last_lines if (match := _FINGERPRINT.fullmatch(line))), None)
        which = f"the host key {found}, which this machine does not trust" if found else "no host key that it trusts"
        trusted = ", ".join(map(shown, address.host_keys))
        return HostKeyRefused(
            f"{where} shows {which}; it gets nothing",
            details="\n".join((f"trusted: {trusted}", *details.splitlines())),
            hint="where its keys were changed on purpose, run there: turku-storage update-config, and then here: "
            f"turku-agent accept-storage '{address.name}'. Where they were not, another host answers at its address",
        )
    if any(_DENIED.fullmatch(line) or _TOO_MANY in line for line in last_lines):
        return NotAdmitted(
            f"{where} does not admit this machine (user {address.user})",
            details=details,
            hint="a new machine is admitted within minutes; turku-storage check there says whether keys are written or "
            "asked for, and turku-api machine list on the coordinator whether the machine is switched off",
        )
    return StorageUnreachable(
        # ssh has the same exit code for a connection that never stood and for one that broke.
        f"storage {address.name}: no SSH session with {address.user}@{address.host} port {address.port}, "
        "or it broke before its end",
        details=details,
        hint="if it began: did the storage go down, or the network? If not: is the storage running, and is its port "
        "reachable from here?",
    )
