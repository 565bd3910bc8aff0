"""What the tests in this folder use: a proxy, and somebody who looks at it and has each answer checked."""

import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import jsonschema
import trio

from shadowcat.admin import AdminConfig
from shadowcat.admin.app import AdminApp
from shadowcat.admin.desk import Desk
from shadowcat.admin.openapi import build_document
from shadowcat.admin.routes import ROUTES
from shadowcat.session import Session, SessionId
from shadowcat.testing import ProxyClient, ProxyKit, ScriptedUpstream, open_proxy_kit
from shadowcat.upstreams import Endpoint, UpstreamSet

TOKEN = "a-token-of-24-characters"
CONFIG = AdminConfig(token=TOKEN)
DOCUMENT = json.loads(json.dumps(build_document(ROUTES)))


def check_answer(name, value):
    """Fail unless *value* is as the schema called *name* says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


@attrs.frozen
class Reply:
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def detail(self):
        return self.body["detail"]


class AdminClient:
    """Asks the admin API; every answer is checked against the document."""

    def __init__(self, app, nursery):
        self._client = ProxyClient(app, nursery)

    async def get(self, path, **kwargs):
        return await self.send("GET", path, **kwargs)

    async def send(self, method, path, body=b"", *, token=TOKEN, headers=()):
        fields = {"accept": "", "content-type": "", **dict(headers)}
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self._client.send(method, data, fields, path)
        reply = Reply(response.status, response.headers, json.loads(await response.read()))
        self._check(method, path.partition("?")[0], reply)
        return reply

    async def read(self, path):
        """Return an answer as it is, unchecked, for who measures."""
        response = await self._client.send("GET", b"", {"authorization": f"Bearer {TOKEN}"}, path)
        return await response.read()

    def _check(self, method, path, reply):
        if reply.status != 200:
            assert reply.headers["content-type"] == "application/problem+json"
            check_answer("Problem", reply.body)
            assert reply.body["status"] == reply.status
            return
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"
        (route,) = [route for route in ROUTES if route.method == method and route.match(path) is not None]
        check_answer(route.answer, reply.body)

    async def pages(self, path, key, **parameters):
        """Return the entries of each page of a listing."""
        pages = []
        cursor = ""
        while cursor is not None:
            query = {**parameters, **({"cursor": cursor} if cursor else {})}
            reply = await self.get(f"{path}?" + "&".join(f"{name}={value}" for name, value in query.items()))
            assert reply.status == 200, reply.body
            pages.append(reply.body[key])
            cursor = reply.body["next"]
        return pages


@attrs.frozen
class AdminKit:
    proxy: ProxyKit
    admin: AdminClient
    desk: Desk

    @property
    def store(self):
        return self.proxy.store

    @property
    def sessions(self):
        return self.proxy.app.sessions


@asynccontextmanager
async def open_admin_kit(config=None, *, store=None, admin=CONFIG):
    """Open a proxy with scripted peers, and its admin API, without sockets."""
    async with open_proxy_kit(config, store=store) as kit:
        with trio.fail_after(3600):
            app = AdminApp(kit.app, admin)
            yield AdminKit(kit, AdminClient(app, kit.nursery), app.desk)


async def fill(store, count, *, prefix="s", now=1000.0, **fields):
    """Make sessions; return their ids."""
    ids = [SessionId(f"{prefix}-{number:05}") for number in range(count)]
    for number, session_id in enumerate(ids):
        times = {"created_at": now, "last_activity": now - number, "expires_at": now + 1e6}
        client = {"clientInfo": {"name": "filler", "version": "1.0"}, "capabilities": {"roots": {}}}
        await store.create_session(Session(id=session_id, initialize_params=client, **times, **fields))
    return ids


def upstream_set(*names):
    """Return a set of endpoints that nobody calls."""
    return UpstreamSet([Endpoint(name, ScriptedUpstream()) for name in names])
