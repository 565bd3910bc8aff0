"""Streams of managers that share a store, and one that seems to die."""

from contextlib import asynccontextmanager

import trio

from shadowcat.session import InMemoryStore

from .managing import create, open_manager


@asynccontextmanager
async def open_two(store=None, **config):
    """Run two managers on one store; yield them, and a session."""
    store = store or InMemoryStore()
    async with open_manager(store, **config) as one, open_manager(store, **config) as other:
        yield one, other, await create(one)


async def crash(manager):
    """Let others take *manager* for dead, after it has stored what it has."""
    await trio.sleep(0.2)
    await manager.give_up_streams()


def publish(manager, stream, *upstream_ids):
    for upstream_id in upstream_ids:
        stream.publish(b"data: " + str(upstream_id).encode(), upstream_id, manager.now())


def park(manager, stream):
    stream.park(manager.now())
    manager.streams.note_rest(stream)


def finish(manager, stream):
    stream.end(manager.now())
    manager.streams.note_rest(stream)


def copy(stream, number=0, after=0):
    """Return what a client gets that comes and goes again."""
    reader = stream.attach(number, after)
    entries = list(reader.take())
    stream.detach(reader)
    return entries


def blocks(entries):
    return [entry.event.block for entry in entries]
