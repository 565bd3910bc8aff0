"""Which web pages and which host names are let in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.auth import OriginConfig, OriginPolicy
from shadowcat.errors import ConfigError, ForbiddenOrigin, MisdirectedHost

LOCAL = OriginPolicy(OriginConfig())

LOOPBACK = [
    "localhost",
    "LOCALHOST",
    "app.localhost",
    "127.0.0.1",
    "127.8.9.10",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
]

REBINDING = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evillocalhost",
    "localhost.",
    "0.0.0.0",
    "[::]",
    "10.0.0.1",
    "[fe80::1]",
    "127.0.0.1@evil.example",
    "localhost:80@evil.example",
    "evil.example@localhost",
    "[::1].evil.example",
    "[::1]evil.example",
    "[::1",
    "::1",
    "::1%.evil.example",
    "[::1%evil.example]",
    "localhost:http",
    "localhost:80:80",
    "localhost#.evil.example",
    "localhost?.evil.example",
    "localhost:80/../evil",
    "localhost\\.evil.example",
    "localhost evil.example",
    "2130706433",
    "0x7f.1",
    "127.1",
    "",
    ":8080",
    "*",
]


def is_host_allowed(policy, host):
    try:
        policy.check_host(host.encode("latin-1"))
    except MisdirectedHost:
        return False
    return True


def is_origin_allowed(policy, origin):
    try:
        policy.check_origin(origin.encode("latin-1"))
    except ForbiddenOrigin:
        return False
    return True


class TestHost:
    @pytest.mark.parametrize("name", LOOPBACK)
    @pytest.mark.parametrize("port", ["", ":80", ":65535", ":"])
    def test_loopback_passes_on_any_port(self, name, port):
        """MCP security best practices: a local server is reached by loopback names."""
        assert is_host_allowed(LOCAL, name + port)

    @pytest.mark.parametrize("host", REBINDING)
    def test_anything_else_is_misdirected(self, host):
        """A rebound name resolves to us, but says in Host what it is; what has no proper form is none of ours."""
        assert not is_host_allowed(LOCAL, host)

    def test_missing_host_is_refused(self):
        """RFC 9112, 3.2: an HTTP/1.1 request without Host is malformed."""
        with pytest.raises(MisdirectedHost, match="missing"):
            LOCAL.check_host(None)

    def test_error_names_the_option(self):
        """The message is for the person who has to act on it."""
        with pytest.raises(MisdirectedHost, match="--allow-host"):
            LOCAL.check_host(b"evil.example")

    @pytest.mark.parametrize(
        ("allowed", "host", "expected"),
        [
            ("mcp.example", "mcp.example", True),
            ("mcp.example", "MCP.Example:8080", True),
            ("MCP.Example", "mcp.example", True),
            ("mcp.example", "sub.mcp.example", False),
            ("mcp.example", "mcp.example.evil.example", False),
            ("mcp.example", "mcp.example:80@evil.example", False),
            ("mcp.example:8080", "mcp.example:8080", True),
            ("mcp.example:8080", "mcp.example:8081", False),
            ("mcp.example:8080", "mcp.example", False),
            ("[fe80::1]", "[fe80::1]:8080", True),
            ("fe80::1", "[FE80::1]:8080", True),
            ("[fe80::1]:80", "[fe80::1]:80", True),
            ("[fe80::1]:80", "[fe80::1]:81", False),
            ("*", "anything.example:1", True),
            ("*.example", "sub.example", False),
        ],
    )
    def test_allowed_hosts_pass(self, allowed, host, expected):
        """With a port only that one, without any port; no patterns but the wildcard."""
        policy = OriginPolicy(OriginConfig(allowed_hosts=[allowed]))

        assert expected is is_host_allowed(policy, host)
        assert is_host_allowed(policy, "localhost:1")

    @pytest.mark.parametrize(
        ("bound", "host", "expected"),
        [
            ("192.168.1.5", "192.168.1.5:8080", True),
            ("192.168.1.5", "192.168.1.6:8080", False),
            ("Box.Lan", "box.lan:8080", True),
            ("fe80::1", "[fe80::1]:8080", True),
            ("0.0.0.0", "192.168.1.5:8080", False),
            ("0.0.0.0", "0.0.0.0:8080", False),
            ("::", "[::]:8080", False),
            ("::", "[::1]:8080", True),
            ("0.0.0.0", "localhost:8080", True),
        ],
    )
    def test_bound_address_passes_unless_it_is_every_address(self, bound, host, expected):
        """Who binds one address means it; who binds all says which names with --allow-host."""
        assert expected is is_host_allowed(OriginPolicy(OriginConfig(), bound), host)

    def test_refusal_is_not_remembered_as_anything_else(self):
        """Verdicts are the same the second time, and after many others."""
        policy = OriginPolicy(OriginConfig())
        for _ in range(2):
            assert all(is_host_allowed(policy, f"localhost:{port}") for port in range(1, 200))
            assert not is_host_allowed(policy, "evil.example")
        assert len(policy._known_hosts) <= 64

    @given(st.binary(max_size=20))
    def test_no_bytes_raise_anything_else(self, host):
        """Whatever stands in the header, it is let in or refused."""
        try:
            OriginPolicy(OriginConfig()).check_host(host)
        except MisdirectedHost:
            pass


class TestOrigin:
    def test_request_without_an_origin_does_not_come_from_a_page(self):
        """Only browsers send Origin."""
        LOCAL.check_origin(None)

    @pytest.mark.parametrize("name", LOOPBACK)
    @pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
    @pytest.mark.parametrize("port", ["", ":3000"])
    def test_pages_of_this_machine_pass(self, scheme, name, port):
        """MCP transports: servers MUST validate the Origin header to prevent DNS rebinding attacks."""
        assert is_origin_allowed(LOCAL, f"{scheme}://{name}{port}")

    @pytest.mark.parametrize("host", REBINDING)
    def test_pages_of_anywhere_else_do_not(self, host):
        """MCP transports: an invalid Origin MUST be answered with 403."""
        assert not is_origin_allowed(LOCAL, f"http://{host}")

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "",
            "localhost",
            "//localhost",
            "file://",
            "file://localhost",
            "ftp://localhost",
            "chrome-extension://localhost",
        ]
        + [
            "http:localhost",
            "http:///localhost",
            "http://localhost http://evil.example",
            "javascript://localhost",
            "http//localhost",
        ],
    )
    def test_opaque_and_foreign_origins_do_not(self, origin):
        """A sandboxed page of any site sends "null"."""
        assert not is_origin_allowed(LOCAL, origin)

    def test_error_names_the_option(self):
        """The message is for the person who has to act on it."""
        with pytest.raises(ForbiddenOrigin, match="--allow-origin"):
            LOCAL.check_origin(b"https://evil.example")

    @pytest.mark.parametrize(
        ("allowed", "origin", "expected"),
        [
            ("https://app.example", "https://app.example", True),
            ("https://App.Example/", "https://app.example", True),
            ("https://app.example", "http://app.example", False),
            ("https://app.example", "https://app.example:8443", False),
            ("https://app.example:8443", "https://app.example:8443", True),
            ("https://app.example", "https://app.example.evil.example", False),
            ("https://app.example", "https://sub.app.example", False),
            ("null", "null", True),
            ("*", "https://evil.example", True),
            ("*", "null", True),
        ],
    )
    def test_allowed_origins_pass(self, allowed, origin, expected):
        """RFC 6454: an origin is scheme, host and port together."""
        policy = OriginPolicy(OriginConfig(allowed_origins=[allowed]))

        assert expected is is_origin_allowed(policy, origin)
        assert is_origin_allowed(policy, "http://localhost:1")

    @pytest.mark.parametrize("config", [OriginConfig(allowed_hosts=["*"]), OriginConfig(allowed_hosts=["app.example"])])
    def test_allowed_host_is_no_allowed_origin(self, config):
        """Which names reach us, and which pages may, are two questions."""
        assert not is_origin_allowed(OriginPolicy(config), "https://app.example")
        assert not is_host_allowed(OriginPolicy(OriginConfig(allowed_origins=["*"])), "app.example")

    @given(st.binary(max_size=20))
    def test_no_bytes_raise_anything_else(self, origin):
        """Whatever stands in the header, it is let in or refused."""
        try:
            LOCAL.check_origin(origin)
        except ForbiddenOrigin:
            pass


@pytest.mark.parametrize("setting", [["app.example"], ["https://"], [""], "https://app.example"])
def test_origin_that_no_browser_sends_is_a_config_error(setting):
    """It could never match, and its author would not know."""
    with pytest.raises(ConfigError):
        OriginConfig(allowed_origins=setting)
