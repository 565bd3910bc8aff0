import pytest
import trio

from shadowcat.proxy.custody import Custody
from shadowcat.session import HeldId
from shadowcat.transport import UpstreamResponse


class _Held(HeldId):
    def __init__(self):
        self.released = 0

    def release(self):
        self.released += 1


def _answer(closed):
    async def close():
        closed.append(True)
        await trio.lowlevel.checkpoint()

    async def body():
        yield b""

    return UpstreamResponse(200, [], body(), close)


async def test_both_are_given_up_at_the_end_also_after_an_error():
    held, closed = _Held(), []

    async def fail():
        async with Custody(held) as custody:
            custody.answer = _answer(closed)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert (held.released, closed) == (1, [True])


async def test_the_id_is_released_though_closing_is_cancelled():
    held, closed = _Held(), []
    with trio.CancelScope() as scope:
        async with Custody(held) as custody:
            custody.answer = _answer(closed)
            scope.cancel()
    assert (held.released, closed) == (1, [True])


async def test_what_is_handed_over_is_left_alone():
    held, closed = _Held(), []
    async with Custody(held) as custody:
        custody.answer = _answer(closed)
        custody.hand_over()
    assert (held.released, closed) == (0, [])


async def test_there_may_be_neither():
    async with Custody(None):
        await trio.lowlevel.checkpoint()
