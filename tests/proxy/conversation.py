"""What the conversations in this folder begin with."""

import trio


async def open_session(kit, version="2025-11-25"):
    kit.nursery.start_soon(kit.upstream.answer_initialize, "upstream-1", version)
    response = await kit.client.initialize(version)
    assert response.status == 200
    await response.read()
    return response


async def start_post(kit, message, client=None, headers=None):
    """Send *message* and return the upstream's side and a function that waits for the client's."""
    pending = Pending()
    kit.nursery.start_soon(pending.run, (client or kit.client).post, message, headers)
    return await kit.upstream.next_call(), pending


class Pending:
    """The result of a call under way; awaited as often as one likes."""

    def __init__(self):
        self._done = trio.Event()

    async def run(self, fn, *args):
        self._value = await fn(*args)
        self._done.set()

    async def __call__(self):
        await self._done.wait()
        return self._value
