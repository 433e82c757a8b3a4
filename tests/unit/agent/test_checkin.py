"""Orders sorted by storage."""

from typing import Any

from tests.support.v1_client import new_ssh_key

from turku.agent import checkin
from turku.protocol.messages import SourceOrder, StorageAddress

KEY = new_ssh_key()


def order(storage: str, **changes: Any) -> SourceOrder:
    address: dict[str, Any] = {
        "ssh_ping_host": "h",
        "ssh_ping_host_keys": [KEY],
        "ssh_ping_port": 22,
        "ssh_ping_user": "u",
    }
    return SourceOrder(path="/x", storage=StorageAddress(name=storage, **(address | changes)))


def test_sources_of_one_storage_go_together_in_their_order() -> None:
    orders = {"a": order("one"), "b": order("two"), "c": order("one")}
    sorted_orders = checkin.by_storage(orders)
    assert [(address.name, names) for address, names in sorted_orders] == [("one", ["a", "c"]), ("two", ["b"])]


def test_one_name_with_two_addresses_is_two_storages() -> None:
    orders = {"a": order("one"), "b": order("one", ssh_ping_port=2222)}
    assert len(checkin.by_storage(orders)) == 2
