"""Streams outlive connections, proxies and sessions of the upstream; what does not is said to be lost."""

import attrs
import pytest
import trio

from tests.e2e.soak.faults import Faults
from tests.e2e.soak.ledger import Fate
from tests.e2e.soak.stage import Blow, Outcome, Plan, run_soak

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

FAULTS = Faults(answer_bytes=10_000, request_bytes=20_000, stall=0.3)


async def run(plan: Plan) -> Outcome:
    """Run *plan*; fail if an event came twice, out of order or not at all without a word, or most are not exact."""
    with trio.fail_after(100):
        outcome = await run_soak(attrs.evolve(plan, duration_limit=30, conclusion=20))
    ledger = outcome.ledger
    print(attrs.evolve(ledger, complaints=[]), outcome.samples, *ledger.complaints, sep="\n")
    assert [] == ledger.complaints
    assert [] == outcome.tracebacks
    assert outcome.is_exact
    assert 0 == ledger.unprimed
    assert ledger.sessions == plan.sessions, "sessions of clients outlive whatever happens behind the proxy"
    return outcome


async def test_connections_that_break_on_both_sides_lose_nothing_that_was_begun():
    outcome = await run(Plan(client_faults=FAULTS, upstream_faults=FAULTS))
    assert outcome.ledger.reconnects > 10
    assert outcome.ledger.calls[Fate.ANSWERED] >= 0.8 * outcome.ledger.calls.total()


async def test_connections_that_break_to_the_upstream_are_not_noticed():
    ledger = (await run(Plan(upstream_faults=FAULTS))).ledger
    assert 0 == ledger.reconnects
    assert 0 == ledger.unknown
    assert ledger.calls[Fate.ANSWERED] >= 0.8 * ledger.calls.total()


async def test_upstream_that_wants_to_be_asked_again_is():
    ledger = (await run(Plan(client_faults=FAULTS, upstream_options=["--polling", "20"]))).ledger
    assert 0 == ledger.reports.total() - ledger.reports["listener: connection broke before an event id"]


async def test_upstream_without_ids_can_be_resumed_from_the_proxy():
    ledger = (await run(Plan(client_faults=FAULTS, upstream_options=["--no-ids"]))).ledger
    assert ledger.reconnects > 10
    assert 0 == ledger.calls[Fate.REPORTED]


async def test_upstream_without_ids_that_breaks_off_is_reported():
    ledger = (await run(Plan(upstream_faults=FAULTS, upstream_options=["--no-ids"]))).ledger
    assert 0 == ledger.unknown
    assert ledger.calls[Fate.REPORTED] > 0


async def test_upstream_that_forgets_its_sessions_costs_only_what_was_under_way():
    outcome = await run(Plan(events=20_000, forget_interval=2))
    ledger = outcome.ledger
    assert outcome.upstream["forgets"] >= 2
    assert 0 == ledger.unknown
    assert 0 < ledger.calls[Fate.REPORTED] <= 0.5 * ledger.calls.total()


async def test_killed_proxy_goes_on_with_its_streams():
    outcome = await run(Plan(events=20_000, store="sqlite", kill_interval=2))
    assert outcome.kills >= 2
    assert outcome.ledger.reconnects > 20
    assert outcome.ledger.calls[Fate.ANSWERED] >= 0.5 * outcome.ledger.calls.total()


async def test_killed_proxy_reports_what_it_cannot_go_on_with():
    """The upstream cannot be resumed: what it said meanwhile nobody knows."""
    plan = Plan(events=20_000, store="sqlite", kill_interval=2, upstream_options=["--no-ids"])
    outcome = await run(plan)
    assert outcome.kills >= 2
    assert outcome.ledger.calls[Fate.REPORTED] > 0


@pytest.mark.parametrize(
    ("blow", "options"),
    [(Blow.KILL, []), (Blow.TERMINATE, ["--shutdown-timeout", "1"]), (Blow.SUSPEND, [])],
    ids=["killed", "stopped", "suspended"],
)
async def test_two_proxies_go_on_with_each_other_s_streams(blow, options):
    """Also if one takes itself for the owner of what the other has taken over, since it was asleep."""
    plan = Plan(events=30_000, store="redis", replicas=2, kill_interval=2.5, blow=blow, client_faults=FAULTS)
    outcome = await run(attrs.evolve(plan, proxy_options=options))
    assert outcome.kills >= 2
    assert outcome.ledger.reconnects > 20
    assert outcome.ledger.calls[Fate.ANSWERED] >= 0.5 * outcome.ledger.calls.total()


async def test_all_at_once_and_still_each_event_comes_once_or_is_reported_lost():
    plan = Plan(
        events=30_000,
        store="redis",
        replicas=2,
        kill_interval=2.5,
        forget_interval=3.5,
        client_faults=FAULTS,
        upstream_faults=FAULTS,
        upstream_options=["--polling", "200"],
    )
    outcome = await run(plan)
    assert outcome.kills >= 2
    assert outcome.upstream["forgets"] >= 2
