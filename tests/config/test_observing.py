"""What is told about a proxy, and who may steer it, as the settings say it."""

import pytest

from shadowcat.cli.options import read_values
from shadowcat.config import build_beside, build_reverse
from shadowcat.errors import ConfigError
from tests.config.reading import URL, parse

TOKEN = "a-token-of-24-characters"


def values(*flags):
    return read_values(parse("--upstream", URL, *flags))


def test_nothing_is_told_unless_it_is_asked_for():
    config = build_reverse(values())
    assert (config.access, config.audit, config.tracing) == (None, None, None)
    beside = build_beside(values())
    assert (beside.metrics, beside.admin) == (None, None)


def test_token_is_read_from_its_file_without_the_line_end(tmp_path):
    (tmp_path / "t").write_text(TOKEN + "\n")
    admin = build_beside(values("--admin-token-file", str(tmp_path / "t"), "--admin-bind", "127.0.0.1:1")).admin
    assert admin is not None
    assert (admin.token, admin.bind) == (TOKEN, "127.0.0.1:1")


def test_token_in_the_environment_opens_the_admin_api(monkeypatch):
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", TOKEN)
    admin = build_beside(values()).admin
    assert admin is not None
    assert admin.token == TOKEN


def test_file_of_the_token_goes_before_the_variable(tmp_path, monkeypatch):
    """The variable is there for the commands that ask the API, maybe of another proxy."""
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", "another-token-of-characters")
    (tmp_path / "t").write_text(TOKEN)
    admin = build_beside(values("--admin-token-file", str(tmp_path / "t"))).admin
    assert admin is not None
    assert admin.token == TOKEN


def test_what_the_environment_says_of_what_is_off_is_for_another_program(monkeypatch):
    monkeypatch.setenv("SHADOWCAT_ADMIN_BIND", "127.0.0.1:1")
    monkeypatch.setenv("SHADOWCAT_AUDIT_LOG_MAX_QUEUED", "7")
    assert build_beside(values()).admin is None
    assert build_reverse(values()).audit is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[access_log]\nmax_queued = 1", "f.toml:2: access_log.max_queued goes with --access-log only"),
        ('[admin]\nbind = "127.0.0.1:1"', "f.toml:2: admin.bind goes with --admin-token-file only"),
        ('[admin]\ntoken = "short"', "f.toml:2: admin.token: the admin token must have at least 16"),
        ('[admin]\ntoken = "x"\ntoken_file = "y"', "both give the admin token; remove one of them"),
        ('[admin]\ntoken_file = "/nowhere"', "f.toml:2: admin.token_file: '/nowhere' cannot be read: No such file"),
        ('[tracing]\nendpoint = "x"', "f.toml:2: tracing.endpoint: write where spans are sent as a URL"),
        ('[metrics]\nbind = "x"', "f.toml:2: metrics.bind: "),
        (
            '[listener]\nbind = "127.0.0.1:9"\n[metrics]\nbind = "127.0.0.1:9"',
            "f.toml:4: metrics.bind: port 9 is that of f.toml:2: listener.bind too; choose another for one of them",
        ),
        (
            '[metrics]\nbind = "127.0.0.1:9"\n[admin]\nbind = "127.0.0.1:9"\ntoken = "a-token-of-24-characters"',
            "f.toml:2: metrics.bind: port 9 is that of f.toml:4: admin.bind too",
        ),
        (
            '[listener]\nbind = "h:9"\nworkers = 4\n[sessions]\nstore = "sqlite"\nsqlite_path = "x"\n'
            '[metrics]\nbind = "h:6"',
            "f.toml:8: metrics.bind: port 9 is that of f.toml:2: listener.bind too",
        ),
        (
            '[listener]\nworkers = 4\n[sessions]\nstore = "sqlite"\nsqlite_path = "x"\n'
            '[metrics]\nbind = "127.0.0.1:65533"',
            "f.toml:7: metrics.bind: each worker has a port of its own, and ports go to 65535",
        ),
        (
            '[listener]\nworkers = 2\n[sessions]\nstore = "sqlite"\nsqlite_path = "x"\n'
            '[admin]\ntoken = "a-token-of-24-characters"',
            "the admin API is that of one process",
        ),
    ],
)
def test_mistakes_are_told_where_they_are(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.toml").write_text(text)
    found = values("--config", "f.toml")
    with pytest.raises(ConfigError) as caught:
        (build_reverse if text.startswith(("[access", "[tracing")) else build_beside)(found)
    assert said in str(caught.value)
    assert "short" not in str(caught.value).replace("--admin", "")


@pytest.mark.parametrize("content", ["", "short", "two words of a token", "ü" * 20])
def test_file_without_a_token(content, tmp_path):
    (tmp_path / "t").write_text(content)
    with pytest.raises(ConfigError, match="at least 16 visible ASCII"):
        build_beside(values("--admin-token-file", str(tmp_path / "t")))


def test_free_ports_are_no_conflict():
    build_beside(values("--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0"))
