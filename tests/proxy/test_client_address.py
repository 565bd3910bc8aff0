"""Whom a request comes from, and whom nobody can pretend to be."""

import time

import pytest

from shadowcat.errors import ConfigError
from shadowcat.proxy.client_address import ClientAddresses, counted_as, read_networks

TRUSTED = read_networks(["10.0.0.0/8", "fd00::/8"])


def found(value, peer="10.0.0.1", header=b"x-forwarded-for"):
    return ClientAddresses(TRUSTED, header).find(peer, {header: value})


def test_without_trusted_proxies_no_header_is_read():
    """Anybody can send one."""
    assert ClientAddresses().find("203.0.113.9", {b"x-forwarded-for": b"1.2.3.4"}) == "203.0.113.9"


def test_a_peer_that_is_not_trusted_says_nothing_of_others():
    assert found(b"1.2.3.4", peer="203.0.113.9") == "203.0.113.9"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"198.51.100.7", "198.51.100.7"),
        (b"198.51.100.7, 10.1.1.1", "198.51.100.7"),
        (b"1.1.1.1, 198.51.100.7,10.1.1.1 , 10.2.2.2", "198.51.100.7"),  # the first was sent by the client
        (b"10.9.9.9, 198.51.100.7", "198.51.100.7"),
        (b"198.51.100.7:4711", "198.51.100.7"),
        (b"[2001:db8::7]:4711", "2001:db8::7"),
        (b"2001:db8::7, fd00::1", "2001:db8::7"),
        (b"::ffff:198.51.100.7", "198.51.100.7"),
        (b"10.3.3.3, 10.2.2.2", "10.3.3.3"),  # all are ours: the farthest
        (b"unknown", "10.0.0.1"),
        (b"1.2.3.4, unknown, 10.2.2.2", "10.2.2.2"),
        (b"", "10.0.0.1"),
        (b",,,", "10.0.0.1"),
        (b"\xff\xfe", "10.0.0.1"),
        (b"10.2.2.2," * 5000, "10.0.0.1"),
    ],
)
def test_x_forwarded_for_is_read_from_its_end(value, client):
    assert found(value) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"for=198.51.100.7", "198.51.100.7"),
        (b'For="[2001:db8::7]:4711";proto=https, for=10.1.1.1;by=10.0.0.1', "2001:db8::7"),
        (b"proto=http; for=198.51.100.7 ;host=a", "198.51.100.7"),
        (b'for=1.1.1.1, for="198.51.100.7:80"', "198.51.100.7"),
        (b"for=_hidden", "10.0.0.1"),
        (b"by=1.2.3.4", "10.0.0.1"),
        (b'host="a,for=1.2.3.4", for=198.51.100.7', "198.51.100.7"),
        (b'host="a;for=1.2.3.4"', "10.0.0.1"),
        (b'host="a;for=1.2.3.4;b";for=198.51.100.7', "198.51.100.7"),
        (b'for="1.2.3.4, for=198.51.100.7', "10.0.0.1"),  # an open quote hides what follows, and gains nothing
    ],
)
def test_forwarded_is_read_from_its_end(value, client):
    assert found(value, header=b"forwarded") == client


def test_a_client_cannot_keep_everybody_waiting_with_what_it_says():
    """A header of 32 KiB must not be read in as many ways as it has spaces."""
    began = time.process_time()
    assert found(b"for=" + b" " * 30_000 + b'"', header=b"forwarded") == "10.0.0.1"
    assert time.process_time() - began < 1


def test_only_the_one_header_is_read():
    """The other may be the client's own."""
    headers = {b"forwarded": b"for=1.2.3.4", b"x-forwarded-for": b"198.51.100.7"}
    assert ClientAddresses(TRUSTED).find("10.0.0.1", headers) == "198.51.100.7"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("64:ff9b::c633:6407", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix:", "unix:"),
    ],
)
def test_an_ipv6_client_is_its_64(address, key):
    assert counted_as(address) == key


@pytest.mark.parametrize("wrong", [["10.0.0.1/8"], ["proxy.example"], "10.0.0.0/8"])
def test_networks_are_checked(wrong):
    with pytest.raises(ConfigError):
        read_networks(wrong)
