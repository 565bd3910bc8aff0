"""All that takes part: upstream, faults, proxies that are killed and come back, clients, and the books.

Clients reach each proxy, and the proxies the upstream, through a `FaultProxy` if there
are to be faults; what gives orders and looks at figures does not.
"""

import contextlib
import enum
import math
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import attrs
import trio

from tests.e2e.child import PATIENCE, module, running
from tests.e2e.soak.client import Client, Wants
from tests.e2e.soak.faults import FaultProxy, Faults
from tests.e2e.soak.ledger import Epoch, Ledger
from tests.e2e.soak.wire import ask
from tests.e2e.storing import Proxy, redis_place, running_proxy, sqlite_place, until, url_of
from tests.session.stores.redis_server import free_port, running_redis

SUSPENSION = 5.0
"""Seconds for which a proxy is suspended: others take it for dead by then."""


class Blow(enum.Enum):
    """What happens to a proxy again and again."""

    KILL = "kill"
    TERMINATE = "terminate"
    SUSPEND = "suspend"


@attrs.frozen(kw_only=True)
class Plan:
    """One run."""

    events: int = 5_000
    """Events of all calls together; those for listeners come on top."""
    sessions: int = 20
    mean_total: int = 100
    """Events of a call, on average."""
    store: str = "memory"
    replicas: int = 1
    """Proxies; with none, clients speak to the upstream."""
    kill_interval: float | None = None
    """Seconds between two blows to proxies, each in its turn."""
    blow: Blow = Blow.KILL
    forget_interval: float | None = None
    """Seconds between two times the upstream forgets its sessions."""
    client_faults: Faults | None = None
    upstream_faults: Faults | None = None
    upstream_options: Sequence[str] = ()
    proxy_options: Sequence[str] = ()
    seed: int = 0
    duration_limit: float = 3600.0
    """Seconds after which no call begins."""
    conclusion: float = 60.0
    """Seconds that what is under way then has to end."""


@attrs.frozen
class Sample:
    """What the proxies need, all together."""

    resident: int
    open_files: int


@attrs.define
class Outcome:
    """What a run came to."""

    ledger: Ledger = attrs.field(factory=Ledger)
    upstream: dict = attrs.field(factory=dict)
    """Its own figures."""
    faults: Counter[str] = attrs.field(factory=Counter)
    kills: int = 0
    """Or other blows."""
    tracebacks: list[str] = attrs.field(factory=list)
    samples: dict[str, Sample] = attrs.field(factory=dict)
    seconds: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether each event came once and in order, or was reported lost."""
        return self.ledger.faults == 0 and self.upstream["cancelled"] == 0


class Replica:
    """A proxy that is started again at the same address."""

    def __init__(self, upstream: str, options: Sequence[str]) -> None:
        self._upstream = upstream
        self._options = [*options, "--bind", f"127.0.0.1:{free_port()}"]
        self._running = contextlib.ExitStack()
        self.process: Proxy | None = None
        self.url = ""
        self.tracebacks: list[str] = []

    async def start(self) -> None:
        self.process = self._running.enter_context(running_proxy(self._upstream, self._options))
        self.url = await url_of(self.process)

    async def suffer(self, blow: Blow) -> None:
        """Take *blow*, and come back."""
        assert self.process is not None
        match blow:
            case Blow.SUSPEND:
                self.process.suspend()
                await trio.sleep(SUSPENSION)
                self.process.resume()
                return
            case Blow.KILL:
                self.process.kill()
            case Blow.TERMINATE:
                self.process.terminate()
        await trio.to_thread.run_sync(self.process.wait, PATIENCE)
        self.close()
        await self.start()

    def close(self) -> None:
        self._running.close()
        if self.process is not None and "Traceback" in self.process.output:
            self.tracebacks.append(self.process.output)
        self.process = None


class Stage:
    """The processes of a run, and what can be done to them."""

    def __init__(self, plan: Plan, upstream_url: str, replicas: Sequence[Replica], urls: Sequence[str]) -> None:
        self._plan = plan
        self._control = upstream_url.removesuffix("/mcp") + "/control/"
        self._replicas = replicas
        self._urls = urls
        self._disturbance = trio.CancelScope()
        self.outcome = Outcome()

    async def run(self) -> None:
        """Play the plan to its end."""
        ledger, plan, began = self.outcome.ledger, self._plan, trio.current_time()
        rng = random.Random(plan.seed)
        clients = [
            Client(f"c{number}", self._urls, random.Random(f"{plan.seed}/{number}"), ledger)
            for number in range(plan.sessions)
        ]
        self._sample("begin")
        with trio.move_on_after(plan.duration_limit + plan.conclusion):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._disturb)
                for client in clients:
                    nursery.start_soon(client.run, Wants(totals=totals_of(plan, rng)))
                await self._conclude(clients, plan.duration_limit)
        self._sample("end")
        self.outcome.seconds = trio.current_time() - began
        self.outcome.upstream = await self._order("statistics")
        self._balance(clients)

    async def _conclude(self, clients: Sequence[Client], limit: float) -> None:
        """Wait for the calls, or until it has been enough; then let listeners hear the end."""
        with trio.move_on_after(limit) as enough:
            await wait_idle(clients)
        for client in clients:
            client.is_enough = True
        if enough.cancelled_caught:
            # A call that never ends must not keep listeners from hearing their end.
            with trio.move_on_after(self._plan.conclusion / 2):
                await wait_idle(clients)
        self._disturbance.cancel()
        await self._order("finish")

    def _balance(self, clients: Sequence[Client]) -> None:
        epochs: defaultdict[str, list[Epoch]] = defaultdict(list)
        for epoch_id, name, last in self.outcome.upstream["epochs"]:
            epochs[name].append(Epoch(epoch_id, last))
        for client in clients:
            for call in client.calls:
                call.close()
            client.listening.close(epochs[client.name])

    async def _order(self, order: str) -> dict:
        async with ask("POST", self._control + order) as reply:
            statistics: dict = await reply.json()
            return statistics

    async def _disturb(self) -> None:
        with self._disturbance:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kill)
                nursery.start_soon(self._forget)
                nursery.start_soon(self._sample_at_half)

    async def _kill(self) -> None:
        while self._plan.kill_interval is not None:
            for replica in self._replicas:
                await trio.sleep(self._plan.kill_interval)
                with trio.CancelScope(shield=True):
                    await replica.suffer(self._plan.blow)
                    self.outcome.kills += 1

    async def _forget(self) -> None:
        while self._plan.forget_interval is not None:
            await trio.sleep(self._plan.forget_interval)
            await self._order("forget")

    async def _sample_at_half(self) -> None:
        await until(lambda: self.outcome.ledger.received >= self._plan.events / 2, math.inf)
        self._sample("half")

    def _sample(self, moment: str) -> None:
        processes = [replica.process for replica in self._replicas if replica.process is not None]
        if not processes:
            return
        with contextlib.suppress(OSError, IndexError):  # one is about to end
            self.outcome.samples[moment] = Sample(
                sum(process.resident for process in processes), sum(process.open_files for process in processes)
            )


async def wait_idle(clients: Sequence[Client]) -> None:
    """Return when all calls have ended."""
    for client in clients:
        await client.is_idle.wait()


def totals_of(plan: Plan, rng: random.Random) -> list[int]:
    """Return the events of the calls of one session."""
    totals: list[int] = []
    while (left := plan.events // plan.sessions - sum(totals)) > 0:
        totals.append(min(left, rng.randint(1, 2 * plan.mean_total)))
    return totals


@contextlib.contextmanager
def store_options(store: str):
    """Run what the store needs; yield the options that make proxies use it."""
    with contextlib.ExitStack() as stack:
        if store == "sqlite":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            yield sqlite_place(folder / "sessions.db").options
        elif store == "redis":
            yield redis_place(stack.enter_context(running_redis())).options
        else:
            yield ["--store", "memory"]


@contextlib.asynccontextmanager
async def open_stage(plan: Plan) -> AsyncGenerator[Stage, None]:
    """Start all that *plan* needs, and stop it at the end."""
    clients_side = FaultProxy(plan.seed, plan.client_faults) if plan.client_faults else None
    upstream_side = FaultProxy(plan.seed + 1, plan.upstream_faults) if plan.upstream_faults else None
    replicas: list[Replica] = []
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running(module("tests.e2e.soak.upstream", *plan.upstream_options)))
        options = [*stack.enter_context(store_options(plan.store)), *plan.proxy_options]
        upstream_url = await trio.to_thread.run_sync(upstream.wait_for_url)
        async with trio.open_nursery() as nursery:
            faulty = await upstream_side.start(nursery, upstream_url) if upstream_side else upstream_url
            for _ in range(plan.replicas):
                replica = Replica(faulty, options)
                stack.callback(replica.close)
                replicas.append(replica)
                await replica.start()
            urls = [replica.url for replica in replicas] or [faulty]
            if clients_side:
                urls = [await clients_side.start(nursery, url) for url in urls]
            stage = Stage(plan, upstream_url, replicas, urls)
            yield stage
            nursery.cancel_scope.cancel()
    sides = [side.counts for side in (clients_side, upstream_side) if side is not None]
    stage.outcome.faults.update({kind.value: sum(side[kind] for side in sides) for side in sides for kind in side})
    stage.outcome.tracebacks.extend(text for replica in replicas for text in replica.tracebacks)


async def run_soak(plan: Plan) -> Outcome:
    """Run *plan*, from the first process to the last."""
    async with open_stage(plan) as stage:
        await stage.run()
    return stage.outcome
