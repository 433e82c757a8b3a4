"""The network that counts as one client."""

from turku.api.configuration.client_network import network_of


def test_a_host_does_not_escape_by_another_address_of_its_network() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


def test_an_address_of_ipv4_counts_alike_on_a_socket_for_both_versions() -> None:
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")


def test_what_is_no_address_counts_as_one_client() -> None:
    assert network_of("") == network_of("unix") == ""
