"""All servers behind a proxy, by name: opened, checked, exchanged and closed."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import attrs
import trio

from ..errors import ConfigError
from ..transport import Upstream
from ..transport.upstream import PipeConfig
from .config import UpstreamEndpointConfig, UpstreamSetConfig, as_set, check_servers
from .endpoint import NEVER_OPEN, Endpoint
from .health import CheckConfig, keep_checking, open_check
from .reach import OpenUpstream, UpstreamConfig, open_upstream
from .set import UpstreamSet

log = logging.getLogger(__name__)

Configs = Mapping[str, UpstreamConfig | UpstreamSetConfig]
"""What is served, by the server's name."""


@attrs.define(eq=False)
class _Member:
    """An endpoint, and the tasks that keep it."""

    config: UpstreamEndpointConfig
    endpoint: Endpoint
    scope: trio.CancelScope
    check: CheckConfig | None = None
    checking: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class UpstreamSets:
    """Owns the endpoints of all sets.  Made by `open_upstream_sets`.

    Each endpoint has a task that keeps it open, and one that checks it if it is checked.
    """

    def __init__(self, nursery: trio.Nursery, children: PipeConfig, open_one: OpenUpstream) -> None:
        self._nursery = nursery
        self._children = children
        self._open_one = open_one
        self._sets: dict[str, UpstreamSet] = {}
        self._fixed: dict[str, UpstreamSet] = {}
        self._members: dict[tuple[str, str], _Member] = {}
        self._timeouts: dict[str, float] = {}
        self._changing = trio.Lock()

    @property
    def sets(self) -> Mapping[str, UpstreamSet]:
        """The sets by name, as they are at any time."""
        return self._sets

    def fix(self, name: str, upstream: Upstream) -> None:
        """Serve *upstream*, which stays its owner's, under *name*, whatever the configuration says."""
        endpoint = Endpoint(name, upstream, circuit=NEVER_OPEN)
        self._sets[name] = self._fixed[name] = UpstreamSet([endpoint], is_plain=True)

    async def reconfigure(self, configs: Configs) -> None:
        """Serve what *configs* names from now on, and nothing else.

        Endpoints that are what they were, by name and server, keep connections, sessions
        and what is known of them.  Those that are gone get no new sessions; they are closed
        when no call is under way, or after ``drain_timeout``.  Nothing has changed if this
        raises or is cancelled.

        Raises:
            ConfigError: Something in *configs* cannot be.
        """
        async with self._changing:
            configs = {name: config for name, config in configs.items() if name not in self._fixed}
            for config in configs.values():
                check_servers(config)
            wanted = {name: as_set(name, config) for name, config in configs.items()}
            members: dict[tuple[str, str], _Member] = {}
            try:
                for name, config in wanted.items():
                    for each in config.endpoints:
                        members[name, each.name] = self._kept(name, each) or await self._open(each)
            except BaseException:
                for key, member in members.items():
                    if self._members.get(key) is not member:
                        member.scope.cancel()
                raise
            self._exchange(configs, wanted, members)

    def _kept(self, name: str, config: UpstreamEndpointConfig) -> _Member | None:
        member = self._members.get((name, config.name))
        return member if member is not None and member.config.upstream == config.upstream else None

    async def _open(self, config: UpstreamEndpointConfig) -> _Member:
        member: _Member = await self._nursery.start(self._keep, config)
        return member

    async def _keep(self, config: UpstreamEndpointConfig, *, task_status: trio.TaskStatus[_Member]) -> None:
        with trio.CancelScope() as scope:
            async with self._open_one(config.upstream, self._children) as upstream:
                task_status.started(_Member(config, Endpoint(config.name, upstream), scope))
                await trio.sleep_forever()

    def _exchange(
        self, configs: Configs, wanted: Mapping[str, UpstreamSetConfig], members: dict[tuple[str, str], _Member]
    ) -> None:
        """Do all that `reconfigure` does, at once."""
        before, self._members = self._members, members
        for name, config in wanted.items():
            own = [members[name, each.name] for each in config.endpoints]
            for member, each in zip(own, config.endpoints, strict=True):
                member.config = each
                member.endpoint.configure(each.weight, config.health, config.circuit or NEVER_OPEN)
                self._check(member, config.check)
            endpoints = [member.endpoint for member in own]
            is_plain = not isinstance(configs[name], UpstreamSetConfig)
            found = self._sets.get(name)
            if found is None:
                self._sets[name] = UpstreamSet(
                    endpoints, config.strategy, concurrency=config.concurrency, is_plain=is_plain
                )
            else:
                found.reconfigure(endpoints, config.strategy, config.concurrency, is_plain=is_plain)
        for (name, _), member in before.items():
            if not any(member is kept for kept in members.values()):
                self._part(self._sets[name], member, self._timeouts[name])
        for name in [name for name in self._sets if name not in wanted and name not in self._fixed]:
            del self._sets[name]
        self._timeouts = {name: config.drain_timeout for name, config in wanted.items()}

    def _check(self, member: _Member, config: CheckConfig | None) -> None:
        if config == member.check:
            return
        member.checking.cancel()
        member.check = config
        if config is None:
            member.endpoint.forget_checks()
        else:
            member.checking = trio.CancelScope()
            member.endpoint.recheck = config.interval
            self._nursery.start_soon(self._keep_checking, member, config, member.checking)

    async def _keep_checking(self, member: _Member, config: CheckConfig, scope: trio.CancelScope) -> None:
        with scope:
            async with open_check(config, member.config.upstream, member.endpoint.upstream) as check:
                await keep_checking(member.endpoint, check, config)

    def _part(self, found: UpstreamSet, member: _Member, timeout: float) -> None:
        """Give a member up, in the background."""
        member.checking.cancel()
        member.endpoint.is_draining = True
        log.info(
            "endpoint %s is not wanted any more; %d calls are under way", member.config.name, member.endpoint.in_flight
        )
        self._nursery.start_soon(self._see_off, found, member, timeout)

    async def _see_off(self, found: UpstreamSet, member: _Member, timeout: float) -> None:  # noqa: ASYNC109
        with trio.move_on_after(timeout):
            await member.endpoint.wait_idle()
        found.forget(member.endpoint)
        member.scope.cancel()


@asynccontextmanager
async def open_upstream_sets(
    configs: Configs,
    children: PipeConfig,
    *,
    fixed: Mapping[str, Upstream] = MappingProxyType({}),
    open_one: OpenUpstream = open_upstream,
) -> AsyncGenerator[UpstreamSets, None]:
    """Open what *configs* names, for as long as the block lasts; then end what it leads to.

    Args:
        children: How clients share what is no streamable HTTP.
        fixed: Upstreams that are used instead of what *configs* says, by name.  Never closed here.
        open_one: How each server is reached.

    Raises:
        ConfigError: A command cannot be run, or certificates not be read.
    """
    failure: ConfigError | None = None
    async with trio.open_nursery() as nursery:
        sets = UpstreamSets(nursery, children, open_one)
        for name, upstream in fixed.items():
            sets.fix(name, upstream)
        try:
            await sets.reconfigure(configs)
        except ConfigError as error:
            failure = error
        else:
            yield sets
        nursery.cancel_scope.cancel()
    # Alone, and not in a group.
    if failure is not None:
        raise failure
