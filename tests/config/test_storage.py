"""Where sessions are kept, as flags and variables say it."""

import pytest

from shadowcat import RedisConfig, SqliteConfig, StorageBackend, StorageConfig
from shadowcat.cli.main import build_parser
from shadowcat.cli.options import read_values
from shadowcat.config.storage import build_storage
from shadowcat.errors import ConfigError


def storage_of(*options, **environ):
    args = build_parser().parse_args(["reverse", "--upstream", "http://upstream.invalid/mcp", *options])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        return build_storage(read_values(args))


def test_default_is_memory():
    assert storage_of() == StorageConfig(backend=StorageBackend("memory"))


def test_command_line_goes_before_the_environment():
    expected = StorageConfig(backend=StorageBackend("sqlite"), sqlite=SqliteConfig(path="b"))
    environ = {"SHADOWCAT_STORE": "redis", "SHADOWCAT_SQLITE_PATH": "a"}
    assert storage_of("--store", "sqlite", "--sqlite-path", "b", **environ) == expected


def test_environment_chooses_what_the_command_line_does_not():
    expected = StorageConfig(
        backend=StorageBackend("redis"), redis=RedisConfig(url="redis://h", prefix="p"), has_fallback=True
    )
    environ = {"SHADOWCAT_STORE": "redis", "SHADOWCAT_REDIS_URL": "redis://h", "SHADOWCAT_REDIS_PREFIX": "p"}
    assert storage_of("--store-fallback", "memory", **environ) == expected


@pytest.mark.parametrize(
    ("options", "environ", "named"),
    [
        (["--redis-prefix", "p"], {}, "--redis-url"),
        ([], {"SHADOWCAT_STORE": "disk"}, "$SHADOWCAT_STORE"),
    ],
)
def test_contradiction_is_refused(options, environ, named):
    with pytest.raises(ConfigError) as excinfo:
        storage_of(*options, **environ)
    assert named in str(excinfo.value)
