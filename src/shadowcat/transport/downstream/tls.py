"""TLS towards clients: the certificate, the handshake, and a socket that is read and written like any other."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from typing import Any

import attrs
import trio

from ...errors import ConfigError
from .wire import READ_SIZE, Wire

log = logging.getLogger(__name__)

_CHUNK = 65536
"""Bytes that are encrypted at once: others have their turn meanwhile."""

_KEY_UPDATE_PAUSE = 0.01
"""Seconds until a read is tried again that could not go on because a client reads nothing."""


@attrs.frozen(kw_only=True)
class TlsConfig:
    """What clients are shown, and what they have to show.  All files are PEM."""

    cert_file: str
    """The certificate, and those between it and the authority."""

    key_file: str | None = None
    """Its key, without a passphrase; if None, the certificate's file has it."""

    client_ca_file: str | None = None
    """The authorities of which a client must have a certificate; None asks for none."""

    handshake_timeout: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Seconds that a client has to agree on the encryption."""


class TlsSocket(ssl.SSLSocket):
    """A TLS connection that raises BlockingIOError when a plain socket would."""

    def recv(self, buflen: int = READ_SIZE, flags: int = 0) -> bytes:
        """Return what has come; raise if nothing has."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send a part of *data*; after a BlockingIOError the same bytes have to be sent again."""
        try:
            return super().send(memoryview(data)[:_CHUNK], flags)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Tell the client that this is the end, by TLS and then by TCP; reading goes on."""
        with contextlib.suppress(OSError, ValueError):
            self.unwrap()
        socket.socket.shutdown(self, how)


class TlsWire(Wire):
    """A `Wire` over a `TlsSocket`."""

    __slots__ = ()

    is_encrypted = True

    async def receive(self) -> bytes:
        """As `Wire.receive`: a checkpoint; safe to cancel."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            while self._sock.fileno() != -1:
                try:
                    # Before anything is waited for: what was decrypted already wakes nobody.
                    data = self._sock.recv(READ_SIZE)
                    self.is_gone = self.is_gone or not data
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return data
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._sock)
                except ssl.SSLWantWriteError:
                    # A client that changes keys is owed an answer, which does not fit.
                    await trio.sleep(_KEY_UPDATE_PAUSE)
        except (OSError, trio.ClosedResourceError):
            self.is_gone = True
        await trio.lowlevel.checkpoint()
        return b""


class ServerTls:
    """The certificate that new connections get, and their handshakes."""

    def __init__(self, config: TlsConfig) -> None:
        self._timeout = config.handshake_timeout
        self._context = build_context(config)

    def use(self, context: ssl.SSLContext) -> None:
        """Show new connections the certificate of *context*; those that there are keep theirs."""
        self._context = context

    async def accept(self, sock: socket.socket) -> TlsSocket | None:
        """Return the connection on *sock*, encrypted; None, and *sock* closed, if the client does not agree.

        Waits for `TlsConfig.handshake_timeout` at most.  A checkpoint; if cancelled, the
        connection is closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # The file is that already, but OpenSSL asks the object.
        sock.setblocking(False)
        try:
            encrypted = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            # The client has left already.
            sock.close()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return None
        assert isinstance(encrypted, TlsSocket)
        try:
            with trio.fail_after(self._timeout):
                await _shake_hands(encrypted)
        except (OSError, trio.TooSlowError) as error:
            log.debug("a client did not agree on TLS: %s", str(error) or "it took too long")
            encrypted.close()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return None
        except trio.Cancelled:
            encrypted.close()
            raise
        return encrypted


async def _shake_hands(sock: ssl.SSLSocket) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        try:
            sock.do_handshake()
            break
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)
    await trio.lowlevel.cancel_shielded_checkpoint()


def build_context(config: TlsConfig) -> ssl.SSLContext:
    """Return what *config* says, with its files read.

    Raises:
        ConfigError: A file cannot be read, or does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TlsSocket
    for file in (config.cert_file, config.key_file, config.client_ca_file):
        if file is not None:
            _check_readable(file)
    try:
        # An empty passphrase, or somebody would be asked for one.
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    except ssl.SSLError:
        raise ConfigError(
            f"{config.cert_file!r} and {config.key_file or config.cert_file!r} are no certificate and the key of it, "
            "without a passphrase, in PEM"
        ) from None
    if config.client_ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(config.client_ca_file)
        except ssl.SSLError:
            raise ConfigError(f"{config.client_ca_file!r} holds no certificate in PEM") from None
    return context


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{path!r} cannot be read: {error.strerror}") from None
