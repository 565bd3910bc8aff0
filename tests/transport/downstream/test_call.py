"""The failure of one call is logged, and only a cancellation passes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from shadowcat.transport.downstream.call import call_app


async def nobody(*args):
    raise AssertionError("not to be called")


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), ExceptionGroup("several", [ValueError(), KeyError()])])
async def test_failure_is_logged(caplog, error):
    async def app(scope, receive, send):
        raise error

    await call_app(app, {}, nobody, nobody)
    assert ["the application failed"] == [record.message for record in caplog.records]


async def test_cancellation_passes(caplog):
    async def app(scope, receive, send):
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("while it was cancelled")

    with trio.move_on_after(0) as scope:
        await call_app(app, {}, nobody, nobody)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert ["the application failed"] == [record.message for record in caplog.records]
