"""A listener that is given up while another process goes on with its socket."""

from functools import partial

import pytest
import trio

from shadowcat.transport.downstream import ListenerConfig, open_listening_socket, serve_asgi
from tests.transport.downstream.conftest import Client

pytestmark = pytest.mark.slow

REQUEST = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
CONFIG = ListenerConfig(bind="127.0.0.1:0")


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_retiring_leaves_no_client_in_doubt(nursery):
    """A connection is served once more, and told that it ends; one that comes is left to whoever else listens."""
    shutdown, retire, ended = trio.Event(), trio.Event(), trio.Event()
    sock = open_listening_socket(CONFIG)
    with sock.dup() as held:

        async def serve(*, task_status):
            run = partial(serve_asgi, shutdown=shutdown, retire=retire, graceful_timeout=1)
            await run(app, sock, CONFIG, task_status=task_status)
            ended.set()

        with trio.fail_after(10):
            await nursery.start(serve)
            address = held.getsockname()
            used, fresh = [Client(await trio.open_tcp_stream(*address)) for _ in range(2)]
            await used.send(REQUEST)
            assert b"connection: close" not in await used.read_until(b"\r\n\r\nok")
            retire.set()
            await trio.testing.wait_all_tasks_blocked()

            waiting = await trio.open_tcp_stream(*address)
            for client in (used, fresh):
                await client.send(REQUEST)
                assert (await client.read_to_end()).endswith(b"connection: close\r\n\r\nok")
                await client.stream.aclose()
            assert not ended.is_set()
            shutdown.set()
            await ended.wait()

            other, _ = held.accept()
            with other:
                other.sendall(b"here")
                assert await waiting.receive_some() == b"here"
            await waiting.aclose()
