"""TLS towards clients: requests, streams and WebSockets, and clients that do not agree."""

import contextlib
import socket
import ssl
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
import trio
import trustme

from shadowcat.errors import ConfigError
from shadowcat.transport.downstream import ListenerConfig, open_listening_socket, serve_asgi
from shadowcat.transport.downstream.tls import ServerTls, TlsConfig, TlsSocket, TlsWire, build_context

pytestmark = pytest.mark.slow
MUCH = bytes(range(256)) * 40_000
seen = SimpleNamespace()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(authority, tmp_path):
    """Return the files of a certificate for localhost."""
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def tls_of(files, **rest):
    return TlsConfig(cert_file=str(files / "cert.pem"), key_file=str(files / "key.pem"), **rest)


@pytest.fixture
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def app(scope, receive, send):
    """Echo a body; stream at /stream until the client leaves; send much at /much."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": f"{scope['scheme']} {message['text']}"})
        await receive()
        return
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-scheme", scope["scheme"].encode())]})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        seen.streaming.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.left.set()
        return
    await send({"type": "http.response.body", "body": MUCH if scope["path"] == "/much" else body})


@pytest.fixture
async def serve(nursery, files):
    """Return what serves `app` and gives the port."""
    seen.streaming, seen.left = trio.Event(), trio.Event()

    async def serve(tls=None, shutdown=None, grace=0.0, **rest):
        config = ListenerConfig(bind="127.0.0.1:0", tls=tls_of(files, **rest))
        sock = open_listening_socket(config)
        run = partial(
            serve_asgi,
            app,
            sock,
            config,
            shutdown=trio.Event() if shutdown is None else shutdown,
            graceful_timeout=grace,
            tls=tls,
        )
        (url,) = await nursery.start(run)
        assert url.startswith("https://127.0.0.1:")
        return int(url.rpartition(":")[2])

    yield serve
    nursery.cancel_scope.cancel()


async def get(context, url, **rest):
    async with httpx.AsyncClient(verify=context) as client:
        return await client.post(url, **rest)


async def test_request_is_answered(serve, trusting):
    port = await serve()
    with trio.fail_after(10):
        answer = await get(trusting, f"https://localhost:{port}/", content=MUCH[:100_000])
    assert (answer.status_code, answer.content) == (200, MUCH[:100_000])
    assert answer.headers["x-scheme"] == "https"


async def test_connection_is_kept_for_more(serve, trusting):
    port = await serve()
    with trio.fail_after(20):
        async with httpx.AsyncClient(verify=trusting) as client:
            for number in range(20):
                answer = await client.post(f"https://localhost:{port}/", content=b"%d" % number)
                assert answer.content == b"%d" % number


async def test_much_arrives_whole(serve, trusting):
    """More than any buffer on the way."""
    port = await serve()
    with trio.fail_after(20):
        assert (await get(trusting, f"https://localhost:{port}/much")).content == MUCH


async def test_stream_flows_and_ends_with_its_client(serve, trusting):
    port = await serve()
    with trio.fail_after(10):
        client = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=trusting)
        await client.send_all(b"POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        received = b""
        while b"data: 1\n\n" not in received:
            received += await client.receive_some()
        assert not seen.left.is_set()
        await trio.aclose_forcefully(client)
        await seen.left.wait()


async def test_websocket_is_served(serve, trusting):
    from trio_websocket import open_websocket_url

    port = await serve()
    with trio.fail_after(10):
        async with open_websocket_url(f"wss://localhost:{port}/", ssl_context=trusting) as socket:
            await socket.send_message("hello")
            assert await socket.get_message() == "wss hello"


async def test_client_needs_a_certificate_if_one_is_asked_for(serve, files, authority, trusting):
    port = await serve(client_ca_file=str(files / "ca.pem"))
    with trio.fail_after(10):
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await get(trusting, f"https://localhost:{port}/")
        authority.issue_cert("client@example.com").configure_cert(trusting)
        assert (await get(trusting, f"https://localhost:{port}/", content=b"x")).content == b"x"


@pytest.mark.parametrize(
    "said", [b"", b"POST / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01", bytes(1000)]
)
async def test_client_that_does_not_agree_disturbs_nobody(serve, trusting, said):
    port = await serve()
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", port) as odd:
            if said:
                await odd.send_all(said)
            assert (await get(trusting, f"https://localhost:{port}/", content=b"x")).content == b"x"


async def test_handshake_has_its_time(serve):
    port = await serve(handshake_timeout=0.05)
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            with contextlib.suppress(trio.BrokenResourceError):
                assert await silent.receive_some(1) == b""


async def test_shutdown_waits_for_no_handshake(serve):
    shutdown = trio.Event()
    port = await serve(shutdown=shutdown, grace=3600.0)
    with trio.fail_after(5):
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            await trio.testing.wait_all_tasks_blocked(0.01)
            shutdown.set()
            with contextlib.suppress(trio.BrokenResourceError):
                assert await silent.receive_some(1) == b""


async def test_new_certificate_is_for_new_connections(serve, files, trusting):
    other = trustme.CA()
    tls = ServerTls(tls_of(files))
    port = await serve(tls)
    with trio.fail_after(10):
        async with httpx.AsyncClient(verify=trusting) as old:
            await old.post(f"https://localhost:{port}/")
            certificate = other.issue_cert("localhost")
            certificate.cert_chain_pems[0].write_to_path(files / "cert.pem")
            certificate.private_key_pem.write_to_path(files / "key.pem")
            tls.use(build_context(tls_of(files)))

            assert (await old.post(f"https://localhost:{port}/", content=b"x")).content == b"x"
            with pytest.raises(httpx.ConnectError):
                await get(trusting, f"https://localhost:{port}/")
            other.configure_trust(trusting)
            assert (await get(trusting, f"https://localhost:{port}/", content=b"y")).content == b"y"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cert.pem", None, "cert.pem' cannot be read: No such file"),
        ("cert.pem", "nonsense", "are no certificate and the key of it"),
        ("key.pem", None, "key.pem' cannot be read"),
        ("ca.pem", "nonsense", "ca.pem' holds no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named(files, name, content, said):
    (files / name).unlink()
    if content is not None:
        (files / name).write_text(content)
    with pytest.raises(ConfigError, match=said):
        build_context(tls_of(files, client_ca_file=str(files / "ca.pem")))


def test_key_of_another_certificate_is_refused(files, authority):
    authority.issue_cert("other").private_key_pem.write_to_path(files / "key.pem")
    with pytest.raises(ConfigError, match="are no certificate and the key of it"):
        build_context(tls_of(files))


def test_file_may_hold_both(files):
    both = files / "both.pem"
    both.write_bytes((files / "key.pem").read_bytes() + (files / "cert.pem").read_bytes())
    build_context(TlsConfig(cert_file=str(both)))


@pytest.fixture
async def pair(files, trusting):
    """Return a wire and the socket of its client, after the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    client = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), trusting, server_hostname="localhost"
    )
    accepted = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            accepted.append(await ServerTls(tls_of(files)).accept(ours))
    assert isinstance(accepted[0], TlsSocket)
    wire = TlsWire(accepted[0], 0.2)
    yield wire, client
    wire.close()
    with trio.move_on_after(0.1):
        await client.aclose()


async def test_what_was_decrypted_is_not_waited_for(pair):
    """One record may hold more than one read takes."""
    wire, client = pair
    await client.send_all(b"x" * 16000)
    with trio.fail_after(5):
        assert wire._sock is not None
        found = b""
        while len(found) < 16000:
            found += await wire.receive()
    assert found == b"x" * 16000


async def test_client_that_reads_nothing_is_cut_off(pair):
    wire, _client = pair
    with trio.fail_after(10):
        await wire.send(MUCH)
    assert wire.is_gone


async def test_end_is_told_by_tls(pair):
    """The client can tell it from a connection that was cut, and we still read what it says."""
    wire, client = pair
    with trio.fail_after(5):
        await wire.send(b"bye")
        await wire.end()
        assert await client.receive_some() == b"bye"
        assert await client.receive_some() == b""
        await client.transport_stream.send_all(b"")
    assert not wire.is_gone


async def test_client_that_leaves_is_seen(pair):
    wire, client = pair
    with trio.fail_after(5):
        await trio.aclose_forcefully(client)
        assert await wire.receive() == b""
    assert wire.is_gone


async def test_closed_wire_reads_nothing(pair):
    wire, _ = pair
    wire.close()
    assert await wire.receive() == b""
