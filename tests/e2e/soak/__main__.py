"""Send a million events through proxies that are killed and connections that break, and account for each."""

import argparse
import sys

import trio

from tests.e2e.soak.faults import Faults
from tests.e2e.soak.ledger import Fate
from tests.e2e.soak.stage import Blow, Outcome, Plan, run_soak


def parse() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="of all calls together; default: 1000000")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--mean-total", type=int, default=100, metavar="N", help="events of a call; default: 100")
    parser.add_argument("--store", choices=["memory", "sqlite", "redis"], default="memory")
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="0: clients speak to the upstream")
    parser.add_argument("--kill-interval", type=float, metavar="S", help="seconds between two kills of a proxy")
    blows = [blow.value for blow in Blow]
    parser.add_argument("--blow", choices=blows, default="kill", help="what --kill-interval means; default: kill")
    parser.add_argument("--forget-interval", type=float, metavar="S", help="seconds between two redeployments upstream")
    parser.add_argument("--faults", default="", metavar="WHERE", help="client, upstream, or both with a comma")
    parser.add_argument("--fault-bytes", type=float, default=50_000, metavar="N", help="between two; default: 50000")
    parser.add_argument(
        "--upstream-option", action="append", default=[], metavar="OPTION", help="--polling=50, --no-ids"
    )
    parser.add_argument("--proxy-option", action="append", default=[], metavar="OPTION")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration-limit", type=float, default=3600.0, metavar="S", help="then no call begins")
    options = parser.parse_args()
    where = set(filter(None, options.faults.split(",")))
    if not where <= {"client", "upstream"}:
        parser.error(f"--faults: {options.faults}")
    faults = Faults(answer_bytes=options.fault_bytes, request_bytes=options.fault_bytes)
    return Plan(
        events=options.events,
        sessions=options.sessions,
        mean_total=options.mean_total,
        store=options.store,
        replicas=options.replicas,
        kill_interval=options.kill_interval,
        blow=Blow(options.blow),
        forget_interval=options.forget_interval,
        client_faults=faults if "client" in where else None,
        upstream_faults=faults if "upstream" in where else None,
        upstream_options=options.upstream_option,
        proxy_options=options.proxy_option,
        seed=options.seed,
        duration_limit=options.duration_limit,
    )


def rows(outcome: Outcome) -> list[tuple[str, object]]:
    """Return the lines of the table."""
    ledger, upstream = outcome.ledger, outcome.upstream
    samples = outcome.samples.items()
    return [
        ("events sent by the upstream", upstream["written"]),
        ("  sent again by it", upstream["rewritten"]),
        ("received once", ledger.received),
        ("duplicated", ledger.duplicated),
        ("out of order", ledger.out_of_order),
        ("on the wrong stream", ledger.stray),
        ("event ids not unique", ledger.repeated_ids),
        ("streams not primed", ledger.unprimed),
        ("reported lost", ledger.reported_lost),
        ("silently lost", ledger.silently_lost),
        ("of unknown outcome", ledger.unknown),
        ("unfinished", ledger.unfinished),
        *((f"calls {fate.value}", ledger.calls[fate]) for fate in Fate),
        ("sessions of clients", ledger.sessions),
        ("sessions of the upstream", upstream["sessions"]),
        ("  left open", upstream["open"]),
        ("reconnects", ledger.reconnects),
        ("cancelled by the proxy", upstream["cancelled"]),
        ("kills", outcome.kills),
        ("forgets", upstream["forgets"]),
        *((f"connections {kind}", number) for kind, number in sorted(outcome.faults.items())),
        *((f"proxy RSS, {moment} (MiB)", f"{sample.resident / 2**20:.1f}") for moment, sample in samples),
        *((f"proxy open files, {moment}", sample.open_files) for moment, sample in samples),
        ("proxy tracebacks", len(outcome.tracebacks)),
        ("seconds", f"{outcome.seconds:.1f}"),
        ("events received per second", f"{ledger.received / outcome.seconds:.0f}"),
    ]


def show(outcome: Outcome) -> None:
    for name, value in rows(outcome):
        print(f"{name:32} {value:>12}")
    for reason, number in outcome.ledger.reports.most_common(20):
        print(f"reported {number} times: {reason}")
    for complaint in outcome.ledger.complaints:
        print(f"wrong: {complaint}")
    for traceback in outcome.tracebacks[:3]:
        print(traceback[-3000:])


def main() -> int:
    outcome = trio.run(run_soak, parse())
    show(outcome)
    return 0 if outcome.is_exact and not outcome.tracebacks else 1


if __name__ == "__main__":
    sys.exit(main())
