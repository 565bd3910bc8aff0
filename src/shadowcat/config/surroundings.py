"""What can be seen of a configuration without a network: whether the files and programs that it names are there."""

from __future__ import annotations

import importlib.util
import os
import ssl
from pathlib import Path

from ..errors import ConfigError
from ..proxy import ReverseProxyConfig
from ..telemetry import STDERR
from ..transport.downstream import TlsConfig, build_context
from ..transport.upstream import StdioConfig, StdioConnector
from ..upstreams import UpstreamConfig, UpstreamSetConfig, check_servers
from .problem import Problems
from .values import Values

_EXTRAS = {
    "metrics.bind": ("metrics", "prometheus_client"),
    "tracing.endpoint": ("otel", "opentelemetry.exporter.otlp.proto.http"),
    "sessions.redis_url": ("redis", "coredis"),
}
"""What some settings need that is not always installed: the extra, and a module of it."""


def check_surroundings(values: Values, config: ReverseProxyConfig) -> None:
    """See whether what *config*, built of *values*, names is there.

    Opens files for reading, and nothing else.

    Raises:
        SettingsError: Something is not; it says where that was named.
    """
    problems = Problems()
    with problems.collecting():
        if isinstance(config.upstream, StdioConfig):
            _check_command(values, config.upstream)
    for name, server in config.upstreams.items():
        with problems.collecting():
            if server is not config.upstream or isinstance(server, UpstreamSetConfig):
                _check_server(values, name, server)
    with problems.collecting():
        if config.listener.tls is not None:
            _check_tls(values, config.listener.tls)
    with problems.collecting():
        _check_authorities(values, "upstream.ca_file")
    with problems.collecting():
        if config.storage.sqlite is not None:
            _check_folder(values, "sessions.sqlite_path", Path(config.storage.sqlite.path))
    for name, log in (("access_log", config.access), ("audit_log", config.audit)):
        with problems.collecting():
            if log is not None and log.path != STDERR:
                _check_folder(values, f"{name}.path", Path(log.path))
    for key in _EXTRAS:
        with problems.collecting():
            _check_extra(values, key)
    problems.check()


def _check_server(values: Values, name: str, server: UpstreamConfig | UpstreamSetConfig) -> None:
    key = "upstream.endpoints" if name == "default" else f"servers.{name}"
    try:
        check_servers(server)
    except ConfigError as error:
        raise ConfigError(f"{values.given[key].source if key in values.given else name}: {error}") from None


def _check_command(values: Values, upstream: StdioConfig) -> None:
    try:
        StdioConnector(upstream).check()
    except ConfigError as error:
        raise ConfigError(f"{values.source('upstream.command')}: {error}") from None


def _check_tls(values: Values, tls: TlsConfig) -> None:
    try:
        build_context(tls)
    except ConfigError as error:
        raise ConfigError(f"{values.source('listener.tls_cert')}: {error}") from None


def _check_authorities(values: Values, key: str) -> None:
    if (path := values[key]) is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ConfigError(f"{values.source(key)}: {path!r} holds no certificate in PEM") from None
    except OSError as error:
        raise ConfigError(f"{values.source(key)}: {path!r} cannot be read: {error.strerror}") from None


def _check_folder(values: Values, key: str, path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(f"{values.source(key)}: there is no directory {str(folder)!r}; make it")
    if path.is_dir():
        raise ConfigError(f"{values.source(key)}: {str(path)!r} is a directory; name a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{values.source(key)}: {str(path)!r} cannot be written; change who owns it")


def _check_extra(values: Values, key: str) -> None:
    extra, module = _EXTRAS[key]
    if values.is_given(key) and not _is_installed(module):
        raise ConfigError(f"{values.source(key)} needs what is not installed: pip install 'shadowcat[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
