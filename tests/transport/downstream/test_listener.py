"""Where clients connect."""

from __future__ import annotations

import socket
import sys

import pytest

from shadowcat.errors import ConfigError
from shadowcat.transport.downstream import ListenerConfig, is_loopback, open_listening_socket, parse_bind, url_of


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("0.0.0.0:80", "0.0.0.0", 80),
    ],
)
def test_bind_has_host_and_port(text, host, port):
    """An IPv6 host comes out without its brackets."""
    assert (host, port) == parse_bind(text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("8080", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        ("localhost:", "HOST:PORT"),
        ("localhost:http", "HOST:PORT"),
        ("localhost:-1", "HOST:PORT"),
        ("localhost:٣", "HOST:PORT"),
        ("localhost:65536", "0 to 65535"),
        ("::1:8080", "brackets"),
        (":8080", "0.0.0.0:8080 for every interface"),
    ],
)
def test_malformed_bind_is_explained(text, advice):
    """The error says what to write instead, before anything is started."""
    with pytest.raises(ConfigError, match=advice):
        ListenerConfig(bind=text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_loopback_hosts(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "", "localhost.example.com"])
def test_other_hosts_are_not_loopback(host):
    assert not is_loopback(host)


def test_port_zero_becomes_a_real_port():
    """The URL names the port a client can connect to."""
    with open_listening_socket(ListenerConfig(bind="127.0.0.1:0")) as sock:
        port = sock.getsockname()[1]
        assert port != 0
        assert f"http://127.0.0.1:{port}" == url_of(sock)


def test_ipv6_url_has_brackets():
    try:
        sock = open_listening_socket(ListenerConfig(bind="[::1]:0"))
    except ConfigError:
        pytest.skip("no IPv6 here")
    with sock:
        assert f"http://[::1]:{sock.getsockname()[1]}" == url_of(sock)


def test_address_in_use_is_explained():
    with open_listening_socket(ListenerConfig(bind="127.0.0.1:0")) as sock:
        bind = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"^{bind} is in use: stop the other program or choose another port"):
            open_listening_socket(ListenerConfig(bind=bind))


@pytest.mark.parametrize(
    ("bind", "advice"),
    [
        ("192.0.2.1:0", "not an address of this machine"),
        ("a..b:0", "cannot be resolved"),
    ],
)
def test_unusable_address_is_explained(bind, advice):
    with pytest.raises(ConfigError, match=advice):
        open_listening_socket(ListenerConfig(bind=bind))


def test_permission_is_explained(monkeypatch):
    """The tests may run as root, so the kernel's answer is made up."""

    class ForbiddingSocket(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", ForbiddingSocket)
    with pytest.raises(ConfigError, match="choose a port from 1024 up"):
        open_listening_socket(ListenerConfig(bind="127.0.0.1:80"))


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
def test_accepted_connections_inherit_the_options():
    """Small writes go out at once, and the kernel gives a dead client up."""
    config = ListenerConfig(bind="127.0.0.1:0", user_timeout=7.5)
    with open_listening_socket(config) as sock, socket.create_connection(sock.getsockname()) as client:
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with accepted:
            assert client.getsockname() == accepted.getpeername()
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
