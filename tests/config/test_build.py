"""What several workers can serve together."""

import pytest

from shadowcat import HttpUpstreamConfig, RedisConfig, SqliteConfig, StorageBackend, StorageConfig
from shadowcat.cli.options import read_values
from shadowcat.config import SETTINGS, Given, Origin, Values
from shadowcat.config.build import build_reverse, check_workers
from shadowcat.errors import ConfigError
from tests.config.reading import parse

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
MEMORY = StorageConfig()
SQLITE = StorageConfig(backend=StorageBackend.SQLITE, sqlite=SqliteConfig(path="x.db"))
REDIS = StorageConfig(backend=StorageBackend.REDIS, redis=RedisConfig(url="redis://h"))


def workers(count):
    return Values(SETTINGS, {"listener.workers": Given(count, "--workers", Origin.FLAG)})


@pytest.mark.parametrize(("count", "storage"), [(1, MEMORY), (1, SQLITE), (2, SQLITE), (64, REDIS)])
def test_sessions_that_all_can_read_may_be_served_by_any(count, storage):
    """One worker needs nothing of the kind."""
    check_workers(workers(count), storage, UPSTREAM)


def test_one_worker_may_have_any_upstream():
    check_workers(workers(1), MEMORY, object())


@pytest.mark.parametrize("option", ["--tls-key", "--tls-client-ca"])
def test_encryption_needs_a_certificate(option):
    with pytest.raises(ConfigError, match=f"^{option} goes with --tls-cert only"):
        build_reverse(read_values(parse("--upstream", "http://h/", option, "x.pem")))


@pytest.mark.parametrize(
    ("count", "storage", "upstream", "named"),
    [
        (0, SQLITE, UPSTREAM, "--workers must be at least 1, not 0"),
        (2, MEMORY, UPSTREAM, "--workers 2 needs a store that processes share: give --store sqlite"),
        (2, SQLITE, object(), "--workers 2 needs an upstream at an http or https URL"),
    ],
)
def test_what_needs_one_process_is_refused(count, storage, upstream, named):
    """The message says what to change."""
    with pytest.raises(ConfigError, match=named):
        check_workers(workers(count), storage, upstream)
