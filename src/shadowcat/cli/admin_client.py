"""Talking to the admin API of a running proxy."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import trio

from ..errors import ConfigError, ProtocolError, ShadowcatError, UpstreamError, UpstreamUnavailable
from ..transport import UpstreamRequest
from ..transport.upstream import HttpUpstream, HttpUpstreamConfig

_VARIABLE = "SHADOWCAT_ADMIN_TOKEN"
_TOKEN = re.compile(r"[!-~]+")
_TIMEOUT = 30.0
_MAX_ANSWER = 64 * 1024 * 1024
_PAGE = 1000


class AdminClient:
    """Asks the admin API at *url*.  Its methods take half a minute at most.

    All of them raise a `ShadowcatError` that says what to do.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    async def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        """Return what is at *path*."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return await self.send("GET", path + (f"?{urlencode(given)}" if given else ""))

    async def list(self, path: str, name: str, limit: int | None, query: Mapping[str, object]) -> list[Any]:
        """Return the entries of every page of a listing, up to *limit*."""
        await trio.lowlevel.checkpoint()
        found: list[Any] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = await self.get(path, {**query, "limit": wanted, "cursor": cursor})
            found += page[name]
            cursor = page["next"]
            if cursor is None:
                break
        return found

    async def send(self, method: str, path: str) -> Any:
        """Send a request without a body, and return what is answered."""
        status, content_type, body = await self._exchange(method, path)
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = None
        if status == 200 and content_type == "application/json":
            return answer
        if content_type != "application/problem+json" or not isinstance(answer, dict):
            raise ConfigError(
                f"what answers at {self._url} is not the admin API; give its address with --admin: "
                "the proxy's log says it at the start"
            )
        if status == 401:
            raise ConfigError(
                f"the admin API at {self._url} does not take this token; put the one that the proxy was started with "
                f"into ${_VARIABLE} or into the file of --token-file"
            )
        raise ShadowcatError(f"{answer.get('detail')}")

    async def _exchange(self, method: str, path: str) -> tuple[int, str, bytes]:
        upstream = HttpUpstream(HttpUpstreamConfig(url=self._url + path))
        headers = [(b"authorization", b"Bearer " + self._token.encode()), (b"accept", b"application/json")]
        try:
            with trio.fail_after(_TIMEOUT):
                answer = await upstream.send(UpstreamRequest(method, headers))
                try:
                    body = bytearray()
                    async for chunk in answer.body:
                        body += chunk
                        if len(body) > _MAX_ANSWER:
                            raise ShadowcatError("the answer is too long; ask for less, with --limit")
                finally:
                    await answer.aclose()
        except UpstreamUnavailable:
            raise ConfigError(
                f"nothing answers at {self._url}; start the proxy with its admin API enabled, "
                "or give its address with --admin"
            ) from None
        except (UpstreamError, ProtocolError, trio.TooSlowError):
            raise ShadowcatError(
                f"the admin API at {self._url} did not answer in order; look at the proxy's log and try again"
            ) from None
        finally:
            await upstream.aclose()
        content_type = (answer.header(b"content-type") or b"").decode("latin-1").partition(";")[0].strip()
        return answer.status, content_type, bytes(body)


def build_client(args: argparse.Namespace) -> AdminClient:
    """Return what asks the admin API that *args* name.

    Raises:
        ConfigError: They, and the environment, do not say enough.
    """
    return AdminClient(_read_url(args.admin), _read_token(args.token_file))


def quoted(part: str) -> str:
    """Return *part* as one part of a path.

    Raises:
        ConfigError: It would be more than that, or nothing.
    """
    if part in ("", ".", "..") or "/" in part:
        raise ConfigError(f"{part!r} is no key and no name; give one as list shows it")
    return quote(part, safe="")


def _read_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_url = is_url and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError("--admin takes the URL of an admin API without a query, for example http://127.0.0.1:9465")
    return text.rstrip("/")


def _read_token(file: str | None) -> str:
    if file is not None:
        try:
            token = Path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {file} cannot be read; give a file that has the token alone") from error
    else:
        token = os.environ.get(_VARIABLE, "").strip()
    if not token:
        raise ConfigError(f"there is no token; set ${_VARIABLE} to that of the admin API, or give --token-file FILE")
    if not _TOKEN.fullmatch(token):
        raise ConfigError("the token has characters that no token has; check the file or the variable that it is from")
    return token
