"""Who observes exchanges, and from when to when."""

import trio

from shadowcat.proxy.observers import Observers
from shadowcat.record import Observer
from shadowcat.testing import open_proxy_kit, request, result


class Witness(Observer):
    def __init__(self):
        self.finished = []

    def finish(self, record):
        self.finished.append((record.http_method, record.path, record.client, record.method, record.status))


def test_observers_come_and_go_in_any_order():
    observers, one, other = Observers(), Observer(), Observer()
    found = []
    with observers.observing(one):
        with observers.observing(other):
            found.append(observers.present)
        found.append(observers.present)
    found.append(observers.present)
    assert found == [(one, other), (one,), ()]


async def test_exchanges_that_begin_while_somebody_observes_are_told(autojump_clock):
    """One before, one during and one after; those of supervisors never."""
    witness = Witness()
    async with open_proxy_kit() as kit:

        async def call():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kit.client.post, request(1, "ping"))
                (await kit.upstream.next_call()).answer(result(1))

        kit.nursery.start_soon(kit.upstream.answer_initialize)
        await kit.client.initialize()
        await call()
        with kit.app.observers.observing(witness):
            await call()
            await kit.client.send("GET", path="/health")
            await kit.client.send("GET", path="/ready")
        await call()
    assert witness.finished == [("POST", "/mcp", "127.0.0.1", "ping", 200)]
