"""What docs/how-to/administer.md says to type, typed."""

import logging
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from shadowcat.admin import open_admin
from shadowcat.testing import open_proxy_kit
from shadowcat.transport.downstream import ListenerConfig, bind_socket, url_of
from tests.admin.administering import CONFIG, TOKEN, fill, upstream_set
from tests.proxy.conversation import open_session, start_listen

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "administer.md"
SHOWN = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
BLOCKS = [text for text in SHOWN if not text.startswith("shadowcat reverse")]
"""But for the one that starts the proxy, which `test_how_to` starts."""

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl")]


async def typed(text, url):
    """Run *text* in a shell as a user would; return what it says."""
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    env = {**os.environ, "PATH": path, "SHADOWCAT_ADMIN_TOKEN": TOKEN}
    script = text.replace("http://127.0.0.1:9465", url)
    script = re.sub(r"(shadowcat \w+ [\w-]+)", rf"\1 --admin {url}", script)
    run = partial(trio.run_process, ["sh", "-euc", script], env=env, capture_stdout=True)
    return (await run()).stdout.decode()


@pytest.fixture(autouse=True)
def _root_level():
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


async def test_the_page_works_as_it_is_typed():
    sock = bind_socket(ListenerConfig(bind="127.0.0.1:0"))
    url = url_of(sock)
    with trio.fail_after(120):
        async with open_proxy_kit() as kit, open_admin(kit.app, CONFIG, sock):
            kit.app.upstream_sets = {"default": upstream_set("a"), "files": upstream_set("files-1")}
            await open_session(kit)
            call, pending = await start_listen(kit)
            call.open_events()
            await pending()
            listed = await typed(BLOCKS[0], url)
            kit.nursery.start_soon(answer_farewell, kit)
            ended = await typed(BLOCKS[1], url)
            steered = await typed(BLOCKS[2], url)
            await fill(kit.store, 1)
            asked = await typed(BLOCKS[3], url)

    assert "shadowcat.testing 1" in listed
    assert "listening" in ended
    assert re.search(r"^ended [0-9a-f]{16}$", ended, re.MULTILINE)
    assert 3 == len(re.findall(r"^files +files-1 .* no ", steered, re.MULTILINE))
    assert 1 == len(re.findall(r"^files +files-1 .* yes ", steered, re.MULTILINE))
    assert '"kind":"memory"' in asked
    assert '{"level":"debug"}' in asked
    assert 4 == len(BLOCKS)


async def answer_farewell(kit):
    (await kit.upstream.next_call()).respond(200)
