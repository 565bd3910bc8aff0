"""Waiting for what another thread or process does, which nobody tells."""

import trio


async def wait_until(holds, seconds=5):
    """Return when *holds* returns true; fail after so many seconds."""
    with trio.fail_after(seconds):
        while True:
            if holds():
                return
            await trio.sleep(0.002)
