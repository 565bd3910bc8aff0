"""Streams, from the command line."""

import pytest

from shadowcat.admin.key import key_of
from tests.proxy.conversation import open_session, start_stream

from .steering import open_steered

pytestmark = pytest.mark.slow


async def test_streams_are_listed(capsys, monkeypatch):
    async with open_steered(capsys, monkeypatch) as steered:
        none = await steered.run("streams", "list")
        await open_session(steered.kit)
        await start_stream(steered.kit)
        said = await steered.run("streams", "list")
        key = key_of(steered.kit.client.session_id)
        of_one = await steered.run_json("streams", "list", "--session", key)
        of_none = await steered.run_json("streams", "list", "--session", "0" * 16)

    assert "no streams\n" == none
    assert [key, "answer", "0", "0", "0", "yes", "no", "no"] == said.splitlines()[1].split()[1:]
    assert ([key], []) == ([stream["session"] for stream in of_one], of_none)
