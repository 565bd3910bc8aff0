"""Sessions, from the command line."""

import re

import pytest

from shadowcat.admin.key import key_of
from shadowcat.errors import SessionNotFound, ShadowcatError
from tests.admin.administering import fill
from tests.proxy.conversation import open_session, start_stream

from .steering import only, open_steered

pytestmark = pytest.mark.slow


@pytest.fixture
async def steered(capsys, monkeypatch):
    async with open_steered(capsys, monkeypatch) as steered:
        yield steered


async def test_sessions_are_listed_for_people(steered):
    await open_session(steered.kit)
    said = await steered.run("sessions", "list")

    heading, line = said.splitlines()
    assert ["KEY", "SERVER", "CLIENT", "VERSION", "STREAMS", "IDLE", "HERE"] == heading.split()
    assert line.startswith(f"{key_of(steered.kit.client.session_id)}  default  shadowcat.testing 1  2025-11-25")
    assert line.endswith("yes")
    assert steered.kit.client.session_id not in said


async def test_none_are_said_to_be_none(steered):
    assert "no sessions\n" == await steered.run("sessions", "list")
    assert [] == await steered.run_json("sessions", "list")


async def test_all_pages_are_listed_or_as_many_as_asked_for(steered):
    ids = await fill(steered.kit.store, 1500)
    assert sorted(map(key_of, ids)) == sorted(each["key"] for each in await steered.run_json("sessions", "list"))
    assert 1100 == len(await steered.run_json("sessions", "list", "--limit", "1100"))


async def test_filters_are_passed_on(steered):
    now = steered.kit.app.sessions.now()
    await fill(steered.kit.store, 10, now=now)
    await fill(steered.kit.store, 10, prefix="other", now=now, upstream_name="other")
    found = await steered.run_json("sessions", "list", "--server", "other", "--idle", "4.5")
    assert ["other"] * 5 == [session["server"] for session in found]


async def test_a_session_is_shown_with_its_streams(steered):
    await open_session(steered.kit)
    key = key_of(steered.kit.client.session_id)
    without = await steered.run("sessions", "show", key)
    await start_stream(steered.kit)
    said = await steered.run("sessions", "show", key)

    assert without.endswith("streams: none\n")
    assert f"key                   {key}" in said
    assert ["answer", "0", "0"] == said.splitlines()[-1].split()[2:5]
    assert key == (await steered.run_json("sessions", "show", key))["key"]


async def test_a_session_that_is_elsewhere_is_said_to_be(steered):
    (session_id,) = await fill(steered.kit.store, 1)
    assert "may be in use at another process" in await steered.run("sessions", "show", key_of(session_id))


async def test_sessions_are_ended(steered):
    ids = await fill(steered.kit.store, 3)
    keys = [key_of(session_id) for session_id in ids[:2]]
    said = await steered.run("sessions", "end", *keys)

    assert [f"ended {key}" for key in keys] == said.splitlines()
    assert 1 == await steered.kit.store.count_sessions()
    with pytest.raises(SessionNotFound):
        await steered.kit.store.get_session(ids[0])


@pytest.mark.parametrize("key", ["0" * 16, "ü ?#", "..", "../sessions", ""])
async def test_a_key_that_is_none_is_told_where_to_look(steered, key):
    for action in ("show", "end"):
        with pytest.raises(ExceptionGroup) as excinfo:
            await steered.run("sessions", action, key)
        assert isinstance(only(excinfo.value), ShadowcatError)
        assert re.search("shadowcat sessions list|as list shows it", str(only(excinfo.value)))
