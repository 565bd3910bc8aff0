"""The options that commands share, and what they set."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from ..auth import OriginConfig
from ..errors import ConfigError
from ..proxy import EndpointConfig, RecoveryConfig
from ..session import LogLimits, SessionConfig, StreamConfig

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OPTIONS = {
    "max_body_size": "--max-body-size",
    "max_sessions": "--max-sessions",
    "max_age": "--session-max-age",
    "max_idle": "--session-idle-timeout",
    "heartbeat_interval": "--heartbeat-interval",
    "connect_timeout": "--connect-timeout",
    "answer_timeout": "--answer-timeout",
    "shutdown_timeout": "--shutdown-timeout",
}
"""Which option sets what the library calls so."""

CHILDREN_OPTIONS = {"max_sessions": "--max-children", "spares": "--spares"}

_STREAM_OPTIONS = {
    "max_events": "--replay-events",
    "max_bytes": "--replay-bytes",
    "max_age": "--replay-age",
    "linger": "--linger",
}
_OUT_OF_RANGE = re.compile(r"'(\w+)' must be (>=?) (\S+): (\S+)")
"""What a validator of attrs says."""


def add_letting_in(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who may connect, and what of it passes."""
    group = parser.add_argument_group("headers", "repeat an option to give several values")
    for name, metavar, text in (
        ("--allow-host", "HOST", "let in this Host beside loopback names"),
        ("--allow-origin", "ORIGIN", "let in web pages of this origin"),
        (
            "--forward-header",
            "NAME",
            "pass this request header upstream, for example Authorization; credentials never pass otherwise",
        ),
    ):
        group.add_argument(name, action="append", default=[], metavar=metavar, help=text)


def add_streams(parser: argparse.ArgumentParser) -> None:
    """Add the options of event streams and lost sessions."""
    group = parser.add_argument_group("streams", "what is kept of event streams, for clients that come back")
    add = partial(add_number, group)
    add("--replay-events", int, 1000, "newest events kept of a stream")
    add("--replay-bytes", int, 1024 * 1024, "bytes of those")
    add("--replay-age", _finite, 300.0, "seconds that they are kept")
    add("--linger", _finite, 60.0, "seconds that the upstream is read for a client that has left")
    group.add_argument(
        "--no-session-recovery",
        action="store_true",
        help="pass on the 404 of an upstream that has lost a session, instead of opening another there",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits."""
    add = partial(add_number, parser.add_argument_group("limits"))
    add("--max-body-size", int, 4 * 1024 * 1024, "bytes of a message of a client")
    add("--max-sessions", int, 10_000, "sessions open at once")
    add("--session-max-age", float, math.inf, "seconds after which a session ends though it is used")
    add("--session-idle-timeout", float, 3600.0, "seconds after which an unused session ends")
    add("--heartbeat-interval", float, 15.0, "seconds of silence before a comment on an event stream")
    add("--connect-timeout", float, 5.0, "seconds to connect to the upstream")
    add("--answer-timeout", float, 300.0, "seconds until the upstream begins to answer a call")
    add("--shutdown-timeout", float, 10.0, "seconds that calls have to finish at shutdown")


def add_number(
    group: argparse._ActionsContainer, name: str, kind: Callable[[str], object], default: object, text: str
) -> None:
    """Add an option that takes a number; *text* tells a default that is None itself."""
    said = text if default is None else f"{text}; default: %(default)s"
    group.add_argument(name, type=kind, default=default, metavar="N", help=said)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return value


def build_endpoint(args: argparse.Namespace) -> EndpointConfig:
    """Return how requests are treated."""
    return EndpointConfig(
        max_body_size=args.max_body_size,
        heartbeat_interval=args.heartbeat_interval,
        forward_headers=args.forward_header,
    )


def build_sessions(args: argparse.Namespace) -> SessionConfig:
    """Return how many sessions there may be, how long, and what is kept of their streams."""
    with naming(_STREAM_OPTIONS, args):
        limits = LogLimits(max_events=args.replay_events, max_bytes=args.replay_bytes, max_age=args.replay_age)
        streams = StreamConfig(limits=limits, linger=args.linger)
    return SessionConfig(
        max_sessions=args.max_sessions,
        max_idle=args.session_idle_timeout,
        max_age=args.session_max_age,
        streams=streams,
    )


def build_recovery(args: argparse.Namespace) -> RecoveryConfig:
    """Return what becomes of sessions that the upstream has lost."""
    return RecoveryConfig(is_enabled=not args.no_session_recovery)


def build_origin(args: argparse.Namespace) -> OriginConfig:
    """Return which hosts and web pages are let in."""
    return OriginConfig(allowed_origins=args.allow_origin, allowed_hosts=args.allow_host)


@contextmanager
def naming(options: Mapping[str, str], args: argparse.Namespace) -> Generator[None, None, None]:
    """Say what is wrong with a setting of the library by the option that sets it."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        if (found := _OUT_OF_RANGE.fullmatch(said)) is not None and found[1] in options:
            bound = "at least" if found[2] == ">=" else "more than"
            said = f"{options[found[1]]} must be {bound} {found[3]}, not {found[4]}"
        raise ConfigError(f"{said}; see shadowcat {args.name} --help") from None
