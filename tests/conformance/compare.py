"""Run the official MCP conformance suite direct and through a proxy, and compare check by check.

Through the proxy twice: before a server that speaks HTTP, and before a command.

Run it with ``python tests/conformance/compare.py``; it needs npm.  A check that succeeds
direct and does not through the proxy, or is not made there at all, is a loss;
any loss makes the exit status 1.  The suite's own exit status is no measure:
a check can vanish, or turn into a warning, and it is still 0.
"""

import argparse
import json
import re
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parents[2]))  # for those who run this file by its path

from tests.e2e import npm
from tests.e2e.child import ROOT, module, proxy_command, running

VERSIONS = ("2025-06-18", "2025-11-25", "2026-07-28")
SUITE = ("@modelcontextprotocol/conformance", "conformance")
OVER_STDIO = "over stdio"
LEG_TIMEOUT = 180.0
"""Seconds one run of the suite may take."""


@attrs.frozen(order=True)
class Check:
    """One thing the suite looks at; it may look several times."""

    scenario: str
    id: str
    status: str


@attrs.frozen
class Leg:
    """What one run of the suite found."""

    checks: Counter[Check]
    seconds: float

    def only(self, *statuses: str) -> Counter[Check]:
        return Counter({check: number for check, number in self.checks.items() if check.status in statuses})

    @property
    def passing_scenarios(self) -> int:
        """How many scenarios have no failed check."""
        failed = {check.scenario for check in self.checks if check.status == "FAILURE"}
        return len({check.scenario for check in self.checks} - failed)

    def statuses(self, scenario: str, check_id: str) -> str:
        found = {c.status: number for c, number in self.checks.items() if (c.scenario, c.id) == (scenario, check_id)}
        return ", ".join(f"{number} {status}" for status, number in sorted(found.items())) or "not made"


HELD = ("server-sse-polling", "server-sse-disconnect-resume")
"""A check that has nothing to look at through the proxy: it wants to see the server close the stream
on purpose, and the proxy polls in its client's place, which keeps its connection and gets the answer there."""


NOT_CARRIED = {
    ("server-sse-multiple-streams", "server-sse-streams-functional"),
    ("server-sse-polling", "server-sse-retry-field"),
}
"""Checks that look at how a server uses event streams.  On standard streams it has none: an answer that
comes alone is a JSON document then, and nothing says when a client should come back."""


def losses(direct: Leg, proxied: Leg) -> list[tuple[str, str]]:
    """Return scenario and id of each check that succeeds less often through the proxy, or goes wrong more often."""
    missing = direct.only("SUCCESS") - proxied.only("SUCCESS")
    wrong = proxied.only("FAILURE", "WARNING") - direct.only("FAILURE", "WARNING")
    lost = {(check.scenario, check.id) for check in missing + wrong}
    if proxied.statuses(*HELD) == "1 INFO":
        lost.discard(HELD)
    return sorted(lost)


def read_results(directory: Path) -> Iterator[Check]:
    """Yield each check from what the suite left in its output directory."""
    for path in sorted(directory.glob("**/checks.json")):
        named = re.fullmatch(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z", path.parent.name)
        scenario = named["scenario"] if named is not None else path.parent.name
        for check in json.loads(path.read_text()):
            yield Check(scenario, check["id"], check["status"])


def run_suite(url: str, version: str) -> Leg:
    with tempfile.TemporaryDirectory(prefix="conformance-") as output:
        command = npm.script(*SUITE)
        command += ["server", "--url", url, "--spec-version", version, "--suite", "all", "--output-dir", output]
        start = time.monotonic()
        with running(command, cwd=Path(output)) as suite:
            suite.wait(LEG_TIMEOUT)
        checks = Counter(read_results(Path(output)))
    if not checks:
        raise SystemExit(f"the suite made no check at {url}:\n{suite.output}")
    return Leg(checks, time.monotonic() - start)


def report(version: str, direct: Leg, proxied: Mapping[str, Leg]) -> bool:
    """Print what was found; return whether nothing was lost."""
    print(f"{version:12}{'scenarios':>11}{'passed':>9}{'failed':>9}{'warnings':>11}{'seconds':>10}")
    for name, leg in {"direct": direct, **proxied}.items():
        passed, failed, warned = (leg.only(status).total() for status in ("SUCCESS", "FAILURE", "WARNING"))
        print(f"  {name:11}{leg.passing_scenarios:>10}{passed:>9}{failed:>9}{warned:>11}{leg.seconds:>10.1f}")
    for check in sorted(direct.only("FAILURE", "WARNING")):
        print(f"  the fixture itself: {check.scenario} / {check.id}: {check.status}")
    is_whole = True
    for name, leg in proxied.items():
        for scenario, id in losses(direct, leg):
            if name == OVER_STDIO and (scenario, id) in NOT_CARRIED:
                continue
            is_whole = False
            fared = f"{direct.statuses(scenario, id)} direct, {leg.statuses(scenario, id)} {name}"
            print(f"  lost: {scenario} / {id}: {fared}")
    print(flush=True)
    return is_whole


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spec-version", action="append", choices=VERSIONS, help="may be given several times")
    parser.add_argument("--proxy", help="another proxy: a command with {upstream} in it, which prints its URL")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    npm.script(*SUITE)
    complete = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running
    with ExitStack() as stack, ThreadPoolExecutor(max_workers=2) as pool:
        # Each leg has a fixture of its own, so that neither sees what the other does to it.
        fixture = module("tests.conformance.fixture_server")
        urls = [stack.enter_context(running(fixture)).wait_for_url() for _ in "ab"]
        command = proxy_command(urls[1])
        if arguments.proxy is not None:
            command = [part.replace("{upstream}", urls[1]) for part in shlex.split(arguments.proxy)]
        commands = {"proxied": command}
        if arguments.proxy is None:
            serve = module("shadowcat", "reverse", "--bind", "127.0.0.1:0", "--cwd", str(ROOT))
            commands[OVER_STDIO] = [*serve, "--", *fixture, "--stdio"]
        urls[1:] = [stack.enter_context(running(command)).wait_for_url() for command in commands.values()]
        for version in arguments.spec_version or VERSIONS:
            direct, *legs = pool.map(lambda url, version=version: run_suite(url, version), urls)
            is_whole = report(version, direct, dict(zip(commands, legs, strict=True)))
            # A check the fixture itself does not pass says nothing about the proxy.
            complete = complete and is_whole and not direct.only("FAILURE", "WARNING")
    print("nothing lost" if complete else "checks were lost")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
