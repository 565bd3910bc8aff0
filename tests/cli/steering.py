"""Commands that talk to a running proxy, run in the same loop as the proxy."""

import json
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from shadowcat.admin import open_admin
from shadowcat.cli.main import build_parser
from shadowcat.testing import ProxyKit, open_proxy_kit
from shadowcat.transport.downstream import ListenerConfig, bind_socket, url_of
from tests.admin.administering import CONFIG, TOKEN


@attrs.frozen
class Steered:
    kit: ProxyKit
    url: str
    capsys: pytest.CaptureFixture[str]

    async def run(self, *argv):
        """Run a command; return what it has printed."""
        await run_command(*argv, "--admin", self.url)
        return self.capsys.readouterr().out

    async def run_json(self, *argv):
        return json.loads(await self.run(*argv, "--json"))


async def run_command(*argv):
    args = build_parser().parse_args(argv)
    await args.run(args, trio.Event())


def only(group):
    """Return the error that a command ended with."""
    while isinstance(group, BaseExceptionGroup):
        (group,) = group.exceptions
    return group


@asynccontextmanager
async def open_steered(capsys, monkeypatch, token=TOKEN):
    """Serve a proxy with scripted peers, with its admin API on a socket."""
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", token)
    sock = bind_socket(ListenerConfig(bind="127.0.0.1:0"))
    url = url_of(sock)
    with trio.fail_after(20):
        async with open_proxy_kit() as kit, open_admin(kit.app, CONFIG, sock):
            yield Steered(kit, url, capsys)
