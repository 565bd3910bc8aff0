"""No secret of any setting is shown."""

import json
import re
import sys
import typing
from pathlib import Path

import attrs
import pytest

import shadowcat
from shadowcat import (
    EndpointConfig,
    HttpSseUpstreamConfig,
    HttpUpstreamConfig,
    ListenerConfig,
    RedisConfig,
    ReverseProxyConfig,
    SqliteConfig,
    StdioConfig,
    StorageBackend,
    StorageConfig,
    UpstreamConfig,
    WebSocketUpstreamConfig,
)
from shadowcat.admin import AdminConfig
from shadowcat.admin.mask import MASK, masked

SECRET = "s3cr3t-of-16-characters"
HEADERS = [("Authorization", f"Bearer {SECRET}"), ("X-Api-Key", SECRET)]

UPSTREAMS: list[UpstreamConfig] = [
    HttpUpstreamConfig(url=f"https://up.example:8443/{SECRET}/mcp?key={SECRET}", headers=HEADERS),
    HttpSseUpstreamConfig(url=f"https://up.example/sse?key={SECRET}", headers=HEADERS),
    WebSocketUpstreamConfig(url=f"wss://up.example/ws?key={SECRET}", headers=HEADERS),
    StdioConfig(command=["server", "--token", SECRET, f"--key={SECRET}"], env={"API_KEY": SECRET, "HOME": SECRET}),
]
STORES = [
    StorageConfig(backend=StorageBackend.REDIS, redis=RedisConfig(url=f"redis://user:{SECRET}@redis.example:6379/3")),
    StorageConfig(backend=StorageBackend.SQLITE, sqlite=SqliteConfig(path="/var/lib/shadowcat/sessions.db")),
]


@pytest.mark.parametrize("upstream", UPSTREAMS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("storage", STORES, ids=lambda config: config.backend.value)
def test_no_secret_of_a_proxy_is_shown(upstream, storage):
    text = json.dumps(masked(ReverseProxyConfig(upstream=upstream, storage=storage)))
    assert SECRET not in text
    assert MASK in text


def test_the_token_of_the_admin_api_is_not_shown():
    assert MASK == masked(AdminConfig(token=SECRET))["token"]


def test_what_is_no_secret_is_shown():
    config = ReverseProxyConfig(
        upstream=UPSTREAMS[0],
        listener=ListenerConfig(bind="127.0.0.1:8080"),
        endpoint=EndpointConfig(forward_headers=["Authorization", "X-Tenant"]),
        storage=STORES[0],
    )
    shown = masked(config)
    assert f"https://up.example:8443/{MASK}?{MASK}" == shown["upstream"]["url"]
    assert [["Authorization", MASK], ["X-Api-Key", MASK]] == shown["upstream"]["headers"]
    assert f"redis://{MASK}@redis.example:6379/3" == shown["storage"]["redis"]["url"]
    assert ("127.0.0.1:8080", "redis") == (shown["listener"]["bind"], shown["storage"]["backend"])
    assert ["authorization", "x-tenant"] == shown["endpoint"]["forward_headers"]
    assert "inf" == shown["sessions"]["max_age"]
    assert ["server", MASK, MASK, MASK] == masked(UPSTREAMS[3])["command"]
    assert {"API_KEY": MASK, "HOME": MASK} == masked(UPSTREAMS[3])["env"]
    assert "/var/lib/shadowcat/sessions.db" == masked(STORES[1])["sqlite"]["path"]


@attrs.frozen
class Inner:
    api_token: str
    names: tuple[str, ...]
    hidden: list[str] = attrs.field(repr=False)


@attrs.frozen
class Later:
    """As settings may look that are made some day."""

    servers: dict[str, Inner]
    passphrase: bytes
    extra: dict[str, str]
    anything: object
    tls_key_file: Path
    value: str = SECRET


def test_settings_that_nobody_knows_yet_show_none_either():
    inner = Inner(SECRET, (f"https://u:{SECRET}@h/mcp",), [SECRET])
    config = Later({"files": inner}, SECRET.encode(), {"x": SECRET}, object(), Path("/etc/key.pem"))
    shown = masked(config)
    assert SECRET not in json.dumps(shown)
    assert ("<object>", "/etc/key.pem") == (shown["anything"], shown["tls_key_file"])


@pytest.mark.parametrize(
    "url", [f"http://[::1/{SECRET}", f"unix://u:{SECRET}@/run/redis.sock", f"HTTP://{SECRET}@h?{SECRET}#{SECRET}"]
)
def test_odd_urls_show_nothing(url):
    assert SECRET not in str(masked(url))


ON_DEMAND = (RedisConfig, SqliteConfig)


def config_classes():
    """Yield every class of settings that can be reached from those of a proxy."""
    found, waiting = [], [typing.cast(type, ReverseProxyConfig)]
    while waiting:
        config = waiting.pop()
        if config in found:
            continue
        found.append(config)
        names = vars(shadowcat) | vars(sys.modules[config.__module__]) | {each.__name__: each for each in ON_DEMAND}
        for hint in typing.get_type_hints(config, names).values():
            waiting += [part for part in (hint, *typing.get_args(hint)) if attrs.has(part)]
    return found


SAFE = {
    *("bind", "path", "ws_path", "sse_path", "messages_path", "prefix", "ca_file", "cwd"),  # names and places
    *("allowed_origins", "allowed_hosts", "forward_headers", "inherit"),  # names
    *("name", "server", "servers", "host", "header"),  # names
    *("client_header", "per_method", "per_tool", "cert_file", "key_file", "client_ca_file", "service_name"),  # names
}


def test_every_field_that_holds_text_is_known():
    """A new one is masked, or is put among the safe ones here after some thought."""
    unsafe = {"url", "endpoint", "headers", "command", "env"}
    masked_by_name = {"value"}
    texts = set()
    for config in config_classes():
        for field in attrs.fields(config):
            if re.search(r"\b(str|bytes)\b", str(field.type)):
                texts.add(field.name)
    assert set() == texts - SAFE - unsafe - masked_by_name
    assert unsafe <= texts
