"""Settings that are read again: all of what can be changed, or nothing."""

import logging
import os
import signal
from functools import partial
from typing import cast

import pytest
import trio
import trustme

from shadowcat.cli.options import values_of
from shadowcat.cli.reload import Reloader, open_reloading
from shadowcat.errors import ConfigError
from shadowcat.telemetry import AuditEvent
from shadowcat.transport.downstream import ServerTls
from tests.cli.test_reverse import call, upstream
from tests.config.reading import parse
from tests.e2e.child import PATIENCE, module, running
from tests.e2e.storing import until

__all__ = ["upstream"]

FIRST = """\
[upstream]
url = "http://h/"
[log]
level = "warning"
"""


@pytest.fixture(autouse=True)
def _root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class App:
    """Remembers what it was told to use."""

    audit = None

    def __init__(self):
        self.used = []
        self.refusal: ConfigError | None = None

    async def reconfigure(self, config):
        await trio.lowlevel.checkpoint()
        if self.refusal:
            raise self.refusal
        self.used.append(config)


@pytest.fixture
def app():
    return App()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text(FIRST)
    return path


@pytest.fixture
def said():
    """What a reload has logged; the level and the handlers are its own to change."""
    said: list[str] = []

    def remember(record):
        said.append(record.getMessage())
        return True

    log = logging.getLogger("shadowcat.cli.reload")
    log.addFilter(remember)
    yield said
    log.removeFilter(remember)


@pytest.fixture
def reloader(app, file):
    args = parse("--config", str(file), "--max-sessions", "5")
    return Reloader(args, values_of(args), app.reconfigure)


async def test_what_the_file_says_now_is_used(reloader, app, file, caplog):
    """With the options, which go before it as ever."""
    file.write_text(FIRST.replace("//h/", "//other/").replace("warning", "debug") + "[limits]\nmax_sessions = 9\n")
    await reloader.reload()

    assert app.used[0].upstream.url == "http://other/"
    assert app.used[0].sessions.max_sessions == 5
    assert logging.getLogger().level == logging.DEBUG


WRONG = [
    "[upstream",
    FIRST + "[limits]\nmax_body_size = 0\n",
    FIRST.replace("warning", "loud"),
    FIRST + "other = 1\n",
    FIRST.replace('url = "http://h/"', 'url = "http://h/"\nca_file = "/no/such"'),
    "",
]


@pytest.mark.parametrize("text", WRONG)
async def test_failed_reload_changes_nothing(reloader, app, file, text, caplog):
    logging.getLogger().setLevel(logging.WARNING)
    file.write_text(text.replace('"warning"', '"debug"'))
    await reloader.reload()

    assert app.used == []
    assert logging.getLogger().level == logging.WARNING
    assert "the settings are not reloaded, and the old ones stay: " in caplog.text
    assert str(file) in caplog.text


async def test_what_the_app_refuses_changes_nothing(reloader, app, file, caplog):
    logging.getLogger().setLevel(logging.WARNING)
    app.refusal = ConfigError("no")
    file.write_text(FIRST.replace("warning", "debug"))
    await reloader.reload()

    assert logging.getLogger().level == logging.WARNING
    assert "and the old ones stay: no" in caplog.text


async def test_file_that_is_gone_changes_nothing(reloader, app, file, caplog):
    file.unlink()
    await reloader.reload()
    assert app.used == []
    assert "cannot be read: No such file" in caplog.text


async def test_what_needs_a_restart_is_named_each_time(reloader, file, said):
    """... and nothing of it is used, until there is one."""
    file.write_text('[listener]\npath = "/other"\nbind = "127.0.0.1:1"\n' + FIRST)
    for _ in range(2):
        await reloader.reload()
    expected = "changed in the settings, but needs a restart: listener.bind, listener.path"
    assert [text for text in said if "restart" in text] == [expected, expected]


async def test_what_is_used_needs_no_restart(reloader, file, said):
    """Neither servers and rules that come, nor those that go."""
    more = FIRST + '[[upstream.endpoints]]\nname = "a"\nurl = "http://a/"\n[servers.x]\nurl = "http://x/"\n'
    more += '[servers.x.health]\ninterval = 5\n[[rules]]\nserver = "x"\nhost = "x"\n'
    file.write_text(more.replace('url = "http://h/"\n', ""))
    await reloader.reload()
    again = Reloader(reloader._args, values_of(reloader._args), reloader._apply)
    file.write_text(FIRST)
    await again.reload()
    assert said == []


async def test_hangup_reloads_for_as_long_as_the_block_lasts(app, file):
    args, shutdown = parse("--config", str(file)), trio.Event()
    before = signal.getsignal(signal.SIGHUP)
    async with open_reloading(args, values_of(args), shutdown, None, app):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: app.used, PATIENCE)
    assert signal.getsignal(signal.SIGHUP) == before
    assert not shutdown.is_set()


async def test_reload_is_written_down_once_it_is_done(app, file):
    class Audit:
        def __init__(self):
            self.events = []

        async def note(self, event):
            await trio.lowlevel.checkpoint()
            self.events.append(event)

    app.audit = audit = Audit()
    args, shutdown = parse("--config", str(file)), trio.Event()
    async with open_reloading(args, values_of(args), shutdown, None, app):
        app.refusal = ConfigError("no")
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.sleep(0.2)
        assert audit.events == []
        app.refusal = None
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: bool(audit.events), PATIENCE)
    assert audit.events == [AuditEvent.CONFIGURATION_RELOADED]


async def test_certificate_is_read_again(app, tmp_path, file):
    used = []

    class Tls:
        use = used.append

    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "k.pem")
    args = parse("--config", str(file), "--tls-cert", f"{tmp_path}/c.pem", "--tls-key", f"{tmp_path}/k.pem")
    reloader = Reloader(args, values_of(args), app.reconfigure, cast(ServerTls, Tls()))
    await reloader.reload()
    assert len(used) == 1

    (tmp_path / "k.pem").write_text("nonsense")
    await reloader.reload()
    assert len(used) == 1


async def test_http_becomes_https_by_a_restart(reloader, file, tmp_path, said):
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    file.write_text(FIRST + f'[listener]\ntls_cert = "{tmp_path}/both.pem"\n')
    await reloader.reload()
    assert "changed in the settings, but needs a restart: listener.tls_cert" in said


@pytest.mark.slow
class TestProgram:
    def test_hangup_changes_the_log_and_keeps_serving(self, upstream, file):
        """A wrong file is told and changes nothing; the right one is used."""
        upstream.release.set()
        file.write_text(FIRST.replace("http://h/", upstream.url) + '[listener]\nbind = "127.0.0.1:0"\n')
        with running(module("shadowcat", "reverse", "--config", str(file))) as child:
            url = child.wait_for_url()
            right = file.read_text()
            hangup = partial(os.kill, child.pid, signal.SIGHUP)
            file.write_text(right.replace("bind =", "bnd ="))
            hangup()
            child.wait_for("the settings are not reloaded, and the old ones stay: .*did you mean listener.bind")
            assert call(url).get(timeout=20)[0] == 200

            file.write_text(right.replace("warning", "info"))
            hangup()
            child.wait_for("the settings are reloaded")
            assert call(url).get(timeout=20)[0] == 200

    def test_workers_stay_if_the_file_is_wrong(self, upstream, file, tmp_path):
        upstream.release.set()
        right = FIRST.replace("http://h/", upstream.url).replace("warning", "info")
        right += '[listener]\nbind = "127.0.0.1:0"\nworkers = 2\n'
        right += f'[sessions]\nstore = "sqlite"\nsqlite_path = "{tmp_path}/s"\n'
        file.write_text(right)
        with running(module("shadowcat", "reverse", "--config", str(file))) as child:
            url = child.wait_for_url()
            file.write_text(right.replace("workers = 2", "workers = 'x'"))
            os.kill(child.pid, signal.SIGHUP)
            child.wait_for("the workers are not replaced, and the old ones stay: .*listener.workers must be")
            assert call(url).get(timeout=20)[0] == 200

            file.write_text(right.replace("workers = 2", "workers = 3"))
            os.kill(child.pid, signal.SIGHUP)
            child.wait_for("needs a restart: listener.workers")
            child.wait_for("replacing all workers")
            assert call(url).get(timeout=20)[0] == 200
