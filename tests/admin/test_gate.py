"""Who has the token is let in at once; who has not, waits for the answer."""

import logging

import pytest
import trio

from shadowcat.admin.gate import TokenGate
from shadowcat.errors import TooManyRequests, Unauthorized

TOKEN = "a-token-of-24-characters"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_token_lets_in(scheme):
    await TokenGate(TOKEN, 10.0).check(f"{scheme} {TOKEN}".encode())


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        TOKEN.encode(),
        b"Basic " + TOKEN.encode(),
        b"Bearer \xff",
        b"Bearer " + b"x" * 5000,
    ],
)
async def test_anything_else_does_not(value, caplog):
    gate = TokenGate(TOKEN, 10.0)
    with pytest.raises(Unauthorized, match="Authorization: Bearer TOKEN"):
        await gate.check(value)
    assert 1 == gate.failures


async def test_a_wrong_token_is_not_logged(caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthorized) as excinfo:
        await TokenGate(TOKEN, 10.0).check(b"Bearer a-secret-of-another-door")
    assert "another-door" not in caplog.text + str(excinfo.value)
    assert "had a wrong token" in caplog.text


async def fail(gate, told):
    with pytest.raises((Unauthorized, TooManyRequests)) as excinfo:
        await gate.check(b"Bearer wrong")
    told.append((trio.current_time(), excinfo.type))


async def test_wrong_tokens_are_answered_slowly_and_the_right_one_at_once(autojump_clock):
    """Ten a second; who has the token is not locked out meanwhile."""
    gate, told, start = TokenGate(TOKEN, 10.0), [], trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(fail, gate, told)
        await trio.testing.wait_all_tasks_blocked()
        await gate.check(f"Bearer {TOKEN}".encode())
        assert start == trio.current_time()

    assert pytest.approx(4.9) == told[-1][0] - start
    assert {Unauthorized} == {kind for _, kind in told}


async def test_those_that_wait_are_bounded(autojump_clock):
    gate, told = TokenGate(TOKEN, 10.0), []
    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(fail, gate, told)

    assert 100 == sum(kind is Unauthorized for _, kind in told)
    assert 900 == sum(kind is TooManyRequests for _, kind in told)


async def test_who_leaves_does_not_hold_a_place(autojump_clock):
    gate, told = TokenGate(TOKEN, 10.0), []
    with trio.move_on_after(0.5):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(fail, gate, told)
    await trio.sleep(60)
    told.clear()
    await fail(gate, told)
    assert Unauthorized is told[0][1]
