"""Which addresses count as one client."""

import pytest

from broadcast.domain.client_address import get_client_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:DB8:1:2::1", "2001:0db8:0001:0002::0009"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:201", "192.0.2.1"),
        ("192.0.2.1:50123", "192.0.2.1:50124"),
        ("[2001:db8:1:2::1]:443", "2001:db8:1:2::7"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::7"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        (" 192.0.2.1 ", "192.0.2.1"),
    ],
)
def test_addresses_of_one_client_count_as_one(one, other):
    assert get_client_key(one) == get_client_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("64:ff9b::c000:201", "64:ff9b::c000:202"),
        ("unknown", "127.0.0.1"),
        ("", "::1"),
    ],
)
def test_addresses_of_two_clients_count_apart(one, other):
    assert get_client_key(one) != get_client_key(other)
