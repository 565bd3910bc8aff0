"""What a configuration names is there, or it is told where that was named."""

import sys

import pytest

from shadowcat.cli.options import read_values
from shadowcat.config import SettingsError, build_reverse
from shadowcat.config.surroundings import check_surroundings
from tests.config.reading import URL, parse


def check(*arguments):
    values = read_values(parse(*arguments))
    check_surroundings(values, build_reverse(values))


def test_what_is_there_is_right(tmp_path):
    check("--upstream", URL, "--store", "sqlite", "--sqlite-path", str(tmp_path / "new.db"))
    check("--", "true")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "shadowcat-no-such-program"], "the command after --: "),
        (["--upstream", URL, "--tls-cert", "/no/such"], "--tls-cert: '/no/such' cannot be read: No such file"),
        (["--upstream", URL, "--ca-file", "/no/such"], "--ca-file: '/no/such' cannot be read: No such file"),
        (["--upstream", URL, "--ca-file", __file__], f"--ca-file: '{__file__}' holds no certificate in PEM"),
        (
            ["--upstream", URL, "--store", "sqlite", "--sqlite-path", "/no/such/x"],
            "--sqlite-path: there is no directory",
        ),
        (["--upstream", URL, "--access-log", "/no/such/x"], "--access-log: there is no directory '/no/such'; make it"),
        (["--upstream", URL, "--audit-log", "/"], "--audit-log: '/' is a directory; name a file"),
    ],
)
def test_what_is_not_there_is_named(arguments, said):
    with pytest.raises(SettingsError) as excinfo:
        check(*arguments)
    assert str(excinfo.value).startswith(said)


def test_logs_on_standard_error_are_no_files():
    check("--upstream", URL, "--access-log", "-", "--audit-log", "-")


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["--metrics-bind", "127.0.0.1:1"], "prometheus_client", "metrics"),
        (["--trace-endpoint", "http://127.0.0.1:1/"], "opentelemetry.exporter.otlp.proto.http", "otel"),
        (["--trace-endpoint", "http://127.0.0.1:1/"], "opentelemetry", "otel"),
        (["--store", "redis", "--redis-url", "redis://h"], "coredis", "redis"),
    ],
)
def test_what_is_not_installed_is_told(arguments, module, extra, monkeypatch):
    check("--upstream", URL, *arguments)
    for name in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as excinfo:
        check("--upstream", URL, *arguments)
    assert str(excinfo.value) == f"{arguments[-2]} needs what is not installed: pip install 'shadowcat[{extra}]'"
