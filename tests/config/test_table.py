"""Every setting takes effect, wherever it is said; flags go before variables before the file before defaults."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from shadowcat import HttpUpstreamConfig, StdioConfig
from shadowcat.admin import AdminConfig
from shadowcat.auth import OriginConfig
from shadowcat.cli.options import read_values
from shadowcat.config import SECTIONS, SETTINGS, build_beside, build_reverse
from shadowcat.config.table import settings_of
from shadowcat.proxy import EndpointConfig, LimitsConfig, ReverseProxyConfig
from shadowcat.upstreams import CheckConfig, CheckKind, Strategy, UpstreamSetConfig
from tests.config.reading import URL, parse

LOWER, HIGHER = 0, 1

SAMPLES = {
    "listener.bind": ("127.0.0.1:1", "127.0.0.1:2"),
    "listener.path": ("/a", "/b"),
    "listener.tls_cert": ("a", "b"),
    "listener.tls_key": ("a", "b"),
    "listener.tls_client_ca": ("a", "b"),
    "listener.allow_hosts": (["a", "b"], ["c"]),
    "listener.allow_origins": (["https://a", "https://b"], ["https://c"]),
    "upstream.command": (["a", "b c"], ["d"]),
    "upstream.url": ("http://a/", "http://b/"),
    "upstream.ca_file": ("a", "b"),
    "upstream.headers": ({"A": "b", "C": "d"}, {"E": "f"}),
    "upstream.forward_headers": (["A", "B"], ["C"]),
    "upstream.env": ({"A": "b"}, {"C": "d"}),
    "upstream.env_pass": (["HOME", "PATH"], ["HOME"]),
    "upstream.cwd": ("/a", "/b"),
    "sessions.recovery": (True, False),
    "upstream.strategy": ("random", "weighted"),
    "upstream.endpoints[].name": ("a", "b"),
    "upstream.endpoints[].url": ("http://a/", "http://b/"),
    "upstream.endpoints[].command": (["a"], ["b"]),
    "upstream.health.check": ("http", "tcp"),
    "upstream.health.path": ("/a", "/b"),
    "upstream.circuit.max_failure_rate": (0.1, 0.2),
    "limits.rate.total": ("1/s", "2/min burst 3"),
    "limits.rate.per_client": ("1/s", "2/s"),
    "limits.rate.per_session": ("1/s", "2/s"),
    "limits.rate.per_method": ({"ping": "1/s"}, {"*": "2/s"}),
    "limits.rate.per_tool": ({"a": "1/s"}, {"b c": "2/s"}),
    "limits.rate.trusted_proxies": (["10.0.0.0/8", "::1"], ["192.0.2.1"]),
    "limits.rate.client_header": ("x-forwarded-for", "forwarded"),
    "metrics.bind": ("127.0.0.1:1", "127.0.0.1:2"),
    "access_log.path": ("a", "b"),
    "audit_log.path": ("a", "b"),
    "tracing.endpoint": ("http://a/", "http://b/"),
    "tracing.sample_ratio": (0.1, 0.2),
    "tracing.service_name": ("a", "b"),
    "admin.bind": ("127.0.0.1:1", "127.0.0.1:2"),
    "admin.token": ("sixteen-letters-1", "sixteen-letters-2"),
    "admin.allowed_hosts": (["a", "b"], ["c"]),
    "rules[].server": ("x", "default"),
    "rules[].host": ("a", "b"),
    "rules[].header": ("A", "B"),
    "rules[].value": ("a", "b"),
}
"""Two values of each setting with an owner; of the others, numbers will do."""

TAKEN: dict[tuple[type, str], Any] = {
    (OriginConfig, "allowed_hosts"): tuple,
    (AdminConfig, "allowed_hosts"): tuple,
    (OriginConfig, "allowed_origins"): tuple,
    (StdioConfig, "command"): tuple,
    (StdioConfig, "env"): dict,
    (UpstreamSetConfig, "strategy"): Strategy,
    (CheckConfig, "kind"): CheckKind,
    (StdioConfig, "inherit"): tuple,
    (HttpUpstreamConfig, "headers"): lambda value: tuple(value.items()),
    (EndpointConfig, "forward_headers"): lambda value: frozenset(name.lower().encode() for name in value),
}
"""What components make of what they are given."""

OWNED = [setting for setting in SETTINGS if setting.owner is not None]
FLAGGED = [setting for setting in OWNED if setting.flag is not None]
NAMED = [setting for setting in OWNED if setting.variable is not None]


def sample(setting, number):
    return SAMPLES.get(setting.key.replace("servers.*.", "upstream."), (3, 4))[number]


def expected(setting, value):
    if setting.owner is LimitsConfig:
        return getattr(LimitsConfig(**{setting.attribute: value}), setting.attribute)
    return TAKEN.get((setting.owner, setting.attribute), lambda same: same)(value)


def texts(setting, value):
    """Return *value* as flags write it, one by one."""
    if isinstance(value, dict):
        sign = ":" if setting.key == "upstream.headers" else "="
        return [f"{name}{sign}{text}" for name, text in value.items()]
    if isinstance(value, list):
        return value
    return [json.dumps(value) if isinstance(value, bool) else str(value)]


def as_flags(setting, value):
    if setting.key == "upstream.command":
        return ["--", *value]
    if isinstance(value, bool):
        return [] if value else [setting.flag]
    return [part for text in texts(setting, value) for part in (setting.flag, text)]


def as_variable(setting, value):
    separator = setting.kind.separator
    return separator.join(f"'{text}'" if " " in text and separator else text for text in texts(setting, value))


FOR_A_COMMAND = ("env", "env_pass", "cwd", "max_children", "spares")


ONLY_WITH = {
    "access_log": ["--access-log", "x"],
    "audit_log": ["--audit-log", "x"],
    "tracing": ["--trace-endpoint", "http://x/"],
    "admin": ["--admin-token-file", str(Path(__file__).with_name("token.txt"))],
}
"""What switches a section on."""


def context(setting):
    """Return the flags and the text of a file without which *setting* means nothing."""
    key = setting.key.replace("servers.*.", "upstream.")
    flags, text = ["--upstream", URL], ""
    if key in ("upstream.url", "upstream.command"):
        flags = []
    elif key.startswith("upstream.endpoints[]."):
        flags = []
        text = "" if setting.name == "name" else 'name = "n"\n'
        text += f'url = "{URL}"\n' if setting.name not in ("url", "command") else ""
    elif setting.section == "upstream" and setting.name in FOR_A_COMMAND:
        flags = ["--", "server"]
    elif setting.section in ONLY_WITH and setting.name not in ("path", "endpoint", "token"):
        flags = [*flags, *ONLY_WITH[setting.section]]
    elif key in ("listener.tls_key", "listener.tls_client_ca"):
        flags = [*flags, "--tls-cert", "c.pem"]
    if setting.key.startswith("servers.*."):
        flags = []
        if "[]" not in key and key not in ("upstream.url", "upstream.command"):
            text = 'command = ["server"]\n' if setting.name in FOR_A_COMMAND else f'url = "{URL}"\n'
            text = f"[servers.x]\n{text}" if setting.section != "servers.*" else text
    if key.startswith("rules[]."):
        text = "".join(
            line for line in ('server = "x"\n', 'header = "h"\n', 'value = "v"\n') if not line.startswith(setting.name)
        )
    return flags, text


def as_toml(setting, value):
    shown = json.dumps(value)
    if isinstance(value, dict):
        shown = "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(text)}" for name, text in value.items()) + "}"
    section = setting.section.replace("*", "x")
    header = f"[[{section.removesuffix('[]')}]]" if section.endswith("[]") else f"[{section}]"
    before = f'[servers.x]\nurl = "{URL}"\n' if section == "rules[]" else ""
    _, text = context(setting)
    line = f"{setting.name} = {shown}\n"
    if text.startswith("["):
        return f"{text}{header}\n{line}"
    return f"{before}{header}\n{text}{line}"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return what builds a configuration from flags, variables and a file."""

    def build(setting, *flags, variable="", file=""):
        base, _ = context(setting)
        path = tmp_path / "shadowcat.toml"
        path.write_text(file)
        if variable:
            monkeypatch.setenv(setting.variable, variable)
        arguments = [*flags, *base] if base[:1] == ["--"] else [*base, *flags]
        values = read_values(parse("--config", str(path), *arguments))
        return build_reverse(values), build_beside(values)

    return build


def find(config, owner):
    """Return the part of *config* that is an *owner*."""
    if isinstance(config, owner):
        return config
    if isinstance(config, tuple):
        inner = config
    elif isinstance(config, dict):
        inner = tuple(config.values())
    elif attrs.has(type(config)):
        inner = tuple(getattr(config, field.name) for field in attrs.fields(type(config)))
    else:
        return None
    parts = (find(part, owner) for part in inner)
    return next((part for part in parts if part is not None), None)


def effect(config, setting):
    if setting.key.startswith("servers.*."):
        config = config[0].servers["x"]
    return getattr(find(config, setting.owner), setting.attribute)


@pytest.mark.parametrize("setting", OWNED, ids=lambda setting: setting.key)
def test_setting_in_a_file_takes_effect(setting, build):
    for number in (LOWER, HIGHER):
        value = sample(setting, number)
        assert effect(build(setting, file=as_toml(setting, value)), setting) == expected(setting, value)


@pytest.mark.parametrize("setting", NAMED, ids=lambda setting: setting.key)
def test_variable_takes_effect_before_the_file(setting, build):
    file, value = as_toml(setting, sample(setting, LOWER)), sample(setting, HIGHER)
    config = build(setting, variable=as_variable(setting, value), file=file)
    assert effect(config, setting) == expected(setting, value)
    value = sample(setting, LOWER)
    config = build(setting, variable=as_variable(setting, value))
    assert effect(config, setting) == expected(setting, value)


@pytest.mark.parametrize("setting", FLAGGED, ids=lambda setting: setting.key)
def test_flag_takes_effect_before_all_others(setting, build):
    """Several values are in place of several, not added to them."""
    lower, value = sample(setting, LOWER), sample(setting, HIGHER)
    config = build(
        setting,
        *as_flags(setting, value),
        variable=as_variable(setting, lower) if setting.variable else "",
        file=as_toml(setting, lower),
    )
    assert effect(config, setting) == expected(setting, value)


@pytest.mark.parametrize("setting", OWNED, ids=lambda setting: setting.key)
def test_default_is_the_owners(setting):
    """Nothing is said twice: the table has no default of its own."""
    assert setting.fallback is None
    field = attrs.fields_dict(setting.owner)[setting.attribute]
    assert setting.default in (None, field.default, getattr(field.default, "value", None))


UNOWNED: dict[str, Any] = {
    "listener.workers": ("2", "workers = 2", None),
    "upstream.transport": ("sse", 'transport = "sse"', None),
    "upstream.header_env": None,
    "upstream.circuit.enabled": ("False", "enabled = false", lambda config: config.upstream.circuit is None),
    "servers.*.transport": None,
    "servers.*.circuit.enabled": None,
    "sessions.store": ("sqlite", 'store = "sqlite"', lambda config: config.storage.backend.value == "sqlite"),
    "sessions.sqlite_path": ("b", 'sqlite_path = "b"', lambda config: str(config.storage.sqlite.path) == "b"),
    "sessions.redis_url": ("redis://b", 'redis_url = "redis://b"', lambda c: c.storage.redis.url == "redis://b"),
    "sessions.redis_prefix": ("b", 'redis_prefix = "b"', lambda config: config.storage.redis.prefix == "b"),
    "sessions.store_fallback": ("memory", 'store_fallback = "memory"', lambda config: config.storage.has_fallback),
    "log.level": ("debug", 'level = "debug"', None),
    "log.format": ("json", 'format = "json"', None),
    "admin.token_file": None,
}
"""How each setting without an owner is written, and how its effect is seen; None if another test sees it."""

CONTEXT = {
    "listener.workers": ["--store", "sqlite", "--sqlite-path", "x"],
    "sessions.store": ["--sqlite-path", "x"],
    "sessions.sqlite_path": ["--store", "sqlite"],
    "sessions.redis_url": ["--store", "redis"],
    "sessions.redis_prefix": ["--store", "redis", "--redis-url", "redis://h"],
    "sessions.store_fallback": ["--store", "redis", "--redis-url", "redis://h"],
}


def test_no_setting_is_left_out():
    assert [setting.key for setting in SETTINGS if setting.owner is None] == [*UNOWNED]
    assert {setting.section for setting in SETTINGS if setting.flag} <= set(SECTIONS)


@pytest.mark.parametrize("key", [key for key, row in UNOWNED.items() if row])
@pytest.mark.parametrize("way", ["file", "variable", "flag"])
def test_setting_without_an_owner_takes_effect(key, way, tmp_path, monkeypatch):
    setting = next(setting for setting in SETTINGS if setting.key == key)
    if way != "file" and setting.flag is None:
        return
    text, line, has_effect = UNOWNED[key]
    path = tmp_path / "f.toml"
    path.write_text(f"[{setting.section}]\n{line}\n" if way == "file" else "")
    if way == "variable":
        monkeypatch.setenv(setting.variable, text)
    flags = [setting.flag, text] if way == "flag" else []
    values = read_values(parse("--config", str(path), "--upstream", URL, *CONTEXT.get(key, []), *flags))
    config = build_reverse(values)

    assert str(values[key]) == text
    assert isinstance(config, ReverseProxyConfig)
    assert has_effect is None or has_effect(config)


def test_names_are_each_for_one_setting():
    for names in (
        [setting.key for setting in SETTINGS],
        [setting.flag for setting in SETTINGS if setting.flag],
        [setting.variable for setting in SETTINGS if setting.variable],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("sessions.store", "SHADOWCAT_STORE"),
        ("sessions.sqlite_path", "SHADOWCAT_SQLITE_PATH"),
        ("sessions.redis_url", "SHADOWCAT_REDIS_URL"),
        ("sessions.redis_prefix", "SHADOWCAT_REDIS_PREFIX"),
        ("sessions.store_fallback", "SHADOWCAT_STORE_FALLBACK"),
        ("sessions.recovery", "SHADOWCAT_SESSION_RECOVERY"),
        ("upstream.url", "SHADOWCAT_UPSTREAM"),
        ("upstream.command", "SHADOWCAT_UPSTREAM_COMMAND"),
    ],
)
def test_variables_keep_their_names(key, variable):
    assert {setting.key: setting.variable for setting in SETTINGS}[key] == variable


def test_forward_keeps_no_sessions_for_others():
    keys = {setting.key for setting in settings_of("forward")}
    assert {setting.key for setting in SETTINGS if setting.flag} - keys == {
        *("listener.workers", "metrics.bind", "access_log.path", "audit_log.path", "tracing.endpoint"),
        *("admin.bind", "admin.token_file"),
        *(f"sessions.{name}" for name in ("store", "sqlite_path", "redis_url", "redis_prefix", "store_fallback")),
    }


def test_address_in_the_environment_is_not_for_a_program_with_a_parent(monkeypatch):
    monkeypatch.setenv("SHADOWCAT_BIND", "127.0.0.1:0")
    assert not read_values(parse("--upstream", URL, command="forward")).is_given("listener.bind")
