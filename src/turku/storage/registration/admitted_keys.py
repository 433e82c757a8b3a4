"""A copy of the machines' lines of authorized_keys in ``var_dir``, for the program that sshd asks about a key.

It is separate from authorized_keys, which is another user's file and which sshd may not even read.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.errors import ConfigurationError
from turku.policy.ssh_key import SshKey
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.registration import authorized_keys
from turku.storage.registration.authorized_keys import Admitted

_FILE: Final = "admitted_keys"
_LIMIT_BYTES: Final = 64 * 1024 * 1024


def path(configuration: StorageState) -> Path:
    """Return the path of the copy."""
    return configuration.var_dir / _FILE


def write(configuration: StorageConfig, admitted: Sequence[Admitted]) -> None:
    """Write the lines of these machines and no others. Raises DurableWriteFailed, ConfigurationError."""
    content = "".join(f"{authorized_keys.line(configuration, machine)}\n" for machine in admitted).encode()
    current = None
    with suppress(OSError):
        current = durable.read_regular_file(path(configuration.state), limit_bytes=_LIMIT_BYTES)
    if content != current:
        durable.write_bytes(path(configuration.state), content)


def line_of(configuration: StorageState, key: SshKey) -> str | None:
    """Return the line of authorized_keys that admits this key, or None if no machine has the key."""
    try:
        content = durable.read_regular_file(path(configuration), limit_bytes=_LIMIT_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path(configuration)} cannot be read: {error.strerror or error}",
            hint="AuthorizedKeysCommandUser must be the user who runs turku-storage-update-config",
        ) from error
    # Key and UUID are at the end of a line, whatever the command before them contains. The file is searched, not
    # parsed: it has megabytes on a large storage, and sshd asks at each login.
    found = content.find(f" {key.line} turku:".encode())
    if found < 0:
        return None
    return content[content.rfind(b"\n", 0, found) + 1 : content.index(b"\n", found)].decode()
