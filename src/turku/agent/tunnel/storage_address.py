"""The address of a storage, checked before anything uses it."""

from __future__ import annotations

from dataclasses import dataclass

from turku.errors import InvalidValue
from turku.policy import names, ssh_key
from turku.protocol.messages import StorageAddress


@dataclass(frozen=True)
class Address:
    """A checked address: nothing in it can be mistaken for an option or break out of a line of a file."""

    name: str
    host: str
    port: int
    user: str
    host_keys: tuple[str, ...]


def checked_address(address: StorageAddress) -> Address:
    """Return the address that the coordinator gave, checked. Raises InvalidValue."""
    name = names.storage_name(address.name)
    try:
        keys = tuple(dict.fromkeys(ssh_key.ssh_host_key(key).line for key in address.ssh_ping_host_keys))
        if not keys:
            raise InvalidValue("has no SSH host key, so nobody could tell it from another")
        return Address(
            name=name,
            host=names.host_name(address.ssh_ping_host),
            port=names.port(address.ssh_ping_port),
            user=names.user_name(address.ssh_ping_user),
            host_keys=keys,
        )
    except InvalidValue as error:
        raise InvalidValue(
            f"storage {name}, as the coordinator describes it: {error.message}", hint=error.hint
        ) from None
