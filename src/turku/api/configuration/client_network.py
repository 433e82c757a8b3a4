"""The network that counts as one client, where clients share something that is limited."""

import ipaddress
from functools import lru_cache
from typing import Final

_REMEMBERED: Final = 20_000
_SITE_PREFIX: Final = 48


def site_of(address: str) -> str:
    """Return the network that a provider gives to one customer at most: a /48 of IPv6. It is the address for IPv4."""
    network = network_of(address)
    return str(ipaddress.ip_network(network).supernet(new_prefix=_SITE_PREFIX)) if ":" in network else network


@lru_cache(maxsize=_REMEMBERED)
def network_of(address: str) -> str:
    """Return the network that counts as one address. For IPv6 it is the /64 from which one host picks addresses.

    Text that is no address counts as one network with an empty name.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        # A socket for both versions shows IPv4 addresses as one small part of IPv6.
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
